"""How long the first observation of a bundled model takes: ``python -m benchmarks.loading``.

From the first import to the first observation, beside importing torch and reading the same weights; each in fresh processes,
in turns.
"""

import subprocess
import sys
from statistics import median

import tyro

from benchmarks.report import write_result
from learned_envs.catalog import BUNDLED
from learned_envs.manifest import MODEL

_FIRST_OBSERVATION = """
import time
begin = time.perf_counter()
import gymnasium as gym
import learned_envs
env = gym.make({id!r})
env.reset(seed=0)
print(time.perf_counter() - begin)
"""
_WEIGHTS_ALONE = """
import time
begin = time.perf_counter()
import torch
from safetensors.torch import load_file
weights = [tensor.float() for tensor in load_file({path!r}).values()]
print(time.perf_counter() - begin)
"""


def main(id: str = "LearnedPong-v0", rounds: int = 9) -> None:
    """Measure both, one after the other, several times; the medians count.

    Args:
        id: Id of a bundled model.
        rounds: How often to measure.
    """
    programs = {
        "first_observation": _FIRST_OBSERVATION.format(id=id),
        "torch_and_weights_alone": _WEIGHTS_ALONE.format(path=str(BUNDLED / id / MODEL)),
    }
    for program in programs.values():
        _run(program)  # fills the operating system's cache of files
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(rounds):
        for name, program in programs.items():
            seconds[name].append(_run(program))
    ratios = [mine / least for mine, least in zip(*seconds.values(), strict=True)]
    figures = {f"{name}_seconds": round(median(values), 3) for name, values in seconds.items()}
    spread = {"ratio": median(ratios), "ratio_lowest": min(ratios), "ratio_highest": max(ratios)}
    figures |= {name: round(value, 3) for name, value in spread.items()}
    write_result("loading", {"id": id, "rounds": rounds, **figures})


def _run(program: str) -> float:
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    tyro.cli(main)
