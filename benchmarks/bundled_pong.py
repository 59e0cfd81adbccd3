"""The bundled LearnedPong-v0 against fresh recordings of the real game: ``python -m benchmarks.bundled_pong``."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

from benchmarks.report import write_result
from learned_envs.pretrained import Pretrained, load_pretrained
from training.collect import CollectConfig, collect
from training.experience import Experience
from training.twm.fidelity import measure_pong


def main(model: str = "LearnedPong-v0", steps: int = 32_000, seeds: tuple[int, ...] = (1001, 1002, 20261121)) -> None:
    """Measure it on play of scripted policies of every strength, as its recipe does, in recordings of other seeds.

    Args:
        model: Id or folder of a model of Pong.
        steps: Real steps of a recording.
        seeds: Seed of each recording; the recipe trains on that of seed 0 and measures on that of seed 77.
    """
    pretrained = load_pretrained(model)
    write_result("bundled_pong", {f"seed {seed}": _measure(pretrained, steps, seed) for seed in seeds})


def _measure(pretrained: Pretrained, steps: int, seed: int) -> dict[str, Any]:
    with TemporaryDirectory() as folder:
        collect(CollectConfig("Pong", steps, seed), Path(folder))
        return measure_pong(pretrained, Experience.load(Path(folder)))


if __name__ == "__main__":
    tyro.cli(main)
