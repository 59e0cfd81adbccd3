"""What large pages of memory are worth when a world model is fitted on a CPU: ``python -m benchmarks.large_pages``.

Every update allocates and frees hundreds of megabytes. Told to, Linux backs them by pages of 2 MB, and glibc keeps them for the
next update. Both are settings of the process (`SETTINGS`), so each way is measured in processes of its own, in turns.
"""

import json
import os
import subprocess
import sys
import time
from statistics import median

import numpy as np
import torch
import tyro

from benchmarks.report import write_result
from learned_envs.twm.config import compact
from learned_envs.twm.world_model import TransformerWorldModel
from training.experience import Episode, Experience
from training.twm.dynamics import DynamicsStage, DynamicsTraining
from training.twm.replay import Replay

SETTINGS = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=134217728:glibc.malloc.trim_threshold=4294967296"
_ACTIONS = 6


def main(rounds: int = 5, updates: int = 20, threads: int = 2, once: bool = False) -> None:
    """Measure both, one after the other, several times; the medians count.

    Args:
        rounds: How often to measure.
        updates: Updates of the dynamics in a process, after two that are not counted.
        threads: CPU threads.
        once: Measure this process alone, and print its seconds per update.
    """
    if once:
        print(json.dumps(_seconds_per_update(updates, threads)))
        return
    seconds: dict[str, list[float]] = {"as_it_is": [], "large_pages": []}
    for _ in range(rounds):
        seconds["as_it_is"].append(_measure(updates, threads, {}))
        seconds["large_pages"].append(_measure(updates, threads, {"GLIBC_TUNABLES": SETTINGS}))
    gains = [before / after for before, after in zip(*seconds.values(), strict=True)]
    figures = {
        "settings": f"GLIBC_TUNABLES={SETTINGS}",
        "rounds": rounds,
        "updates": updates,
        "threads": threads,
        "seconds_per_update": {name: round(median(values), 3) for name, values in seconds.items()},
        "gain": round(median(gains), 3),
        "gain_lowest": round(min(gains), 3),
        "gain_highest": round(max(gains), 3),
    }
    write_result("large_pages", figures)


def _measure(updates: int, threads: int, settings: dict[str, str]) -> float:
    program = [sys.executable, "-m", "benchmarks.large_pages", "--once"]
    options = ["--updates", str(updates), "--threads", str(threads)]
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"} | settings
    done = subprocess.run([*program, *options], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def _seconds_per_update(updates: int, threads: int) -> float:
    """Of the dynamics of the compact preset, on made-up codes."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    stage = _stage()
    for step in range(2):
        stage.update(step)
    begin = time.perf_counter()
    for step in range(updates):
        stage.update(step)
    return (time.perf_counter() - begin) / updates


def _stage(steps: int = 2_000) -> DynamicsStage:
    draws = np.random.default_rng(0)
    frames = np.zeros((steps + 1, 64, 64), np.uint8)
    frames[:, 0, 0] = np.arange(steps + 1) % 256  # equal frames are stored once
    actions = draws.integers(_ACTIONS, size=steps).astype(np.uint8)
    rewards = draws.integers(-1, 2, size=steps).astype(np.float32)
    recorded = Experience.from_episodes([Episode(frames, actions, rewards, True, "made up", 0)])
    model = TransformerWorldModel(compact(_ACTIONS))
    training = DynamicsTraining(updates=4)  # short, so that it soon feeds itself: two passes an update
    latent = model.config.observation.latent
    codes = torch.randint(256, (len(recorded.frames), latent.variables, latent.classes), dtype=torch.uint8)
    return DynamicsStage(model.dynamics, codes, Replay(recorded, _ACTIONS, training.length), training)


if __name__ == "__main__":
    tyro.cli(main)
