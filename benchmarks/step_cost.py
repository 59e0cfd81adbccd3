"""Whether step 10,000 costs what step 100 costs, in time and in memory: ``python -m benchmarks.step_cost``."""

import gc
import time
from pathlib import Path
from statistics import median

import numpy as np
import tyro

from benchmarks.report import write_result
from learned_envs.envs.vector import LearnedVectorEnv


def main(id: str = "LearnedPong-v0", num_envs: int = 8, steps: int = 10_000, window: int = 100) -> None:
    """Step one batch for long, and beside it a fresh one, in turns: what the machine does meanwhile hits both.

    Args:
        id: Id of the learned environment.
        num_envs: Environments side by side.
        steps: Steps of the old batch before the comparison.
        window: Steps to time of each.
    """
    old = _begin(id, num_envs)
    _run(old, 100)
    memory = {"step_100": _resident_bytes()}
    _run(old, steps - 100)
    memory[f"step_{steps}"] = _resident_bytes()
    fresh = _begin(id, num_envs)
    _run(fresh, 100)
    ratios = [_time(old) / _time(fresh) for _ in range(window)]
    write_result(
        "step_cost",
        {
            "id": id,
            "num_envs": num_envs,
            "steps": steps,
            "cost_of_late_to_early_step": round(median(ratios), 3),
            "resident_megabytes": {name: round(size / 2**20, 1) for name, size in memory.items()},
        },
    )


def _begin(id: str, num_envs: int) -> LearnedVectorEnv:
    envs = LearnedVectorEnv(id, num_envs)
    envs.reset(seed=0)
    return envs


def _run(envs: LearnedVectorEnv, steps: int) -> None:
    actions = np.zeros(envs.num_envs, np.int64)
    for _ in range(steps):
        envs.step(actions)


def _time(envs: LearnedVectorEnv, steps: int = 10) -> float:
    begin = time.perf_counter()
    _run(envs, steps)
    return time.perf_counter() - begin


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    tyro.cli(main)
