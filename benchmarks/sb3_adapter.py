"""What the Stable-Baselines3 face costs over the torch core, in turns: ``python -m benchmarks.sb3_adapter``."""

import time
from statistics import median

import numpy as np
import torch
import tyro
from gymnasium.vector import AutoresetMode

from benchmarks.report import write_result
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.sb3 import BatchedVecEnv, make_vec_env


def main(
    ids: tuple[str, ...] = ("LearnedPong-v0", "LearnedDoublePendulum-v0", "LearnedHarvest-v0"),
    num_envs: int = 64,
    steps: int = 300,
    rounds: int = 7,
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """Step the core with tensors and the adapter with arrays, one after the other, several times; the medians count.

    The core resets in the same step, as the adapter needs it.

    Args:
        ids: Ids of learned environments, or folders of snapshots.
        num_envs: Environments side by side.
        steps: Steps of each in a round.
        rounds: How often to measure.
        device: Where the model runs.
        threads: CPU threads to use.
    """
    torch.set_num_threads(threads)
    measured = {id: _compare(id, num_envs, steps, rounds, device) for id in ids}
    write_result("sb3_adapter", {"num_envs": num_envs, "steps": steps, "rounds": rounds, "ids": measured}, device)


def _compare(id: str, num_envs: int, steps: int, rounds: int, device: str) -> dict[str, float]:
    core = LearnedVectorEnv(id, num_envs, device=device, output="torch", autoreset_mode=AutoresetMode.SAME_STEP)
    adapter = make_vec_env(id, num_envs, device=device, seed=0)
    core.reset(seed=0)
    adapter.reset()
    speeds: dict[str, list[float]] = {"core": [], "adapter": []}
    for _ in range(rounds + 1):
        speeds["core"].append(_measure_core(core, steps))
        speeds["adapter"].append(_measure_adapter(adapter, steps))
    core_speeds, adapter_speeds = speeds["core"][1:], speeds["adapter"][1:]  # the first round warms up
    ratios = [its / mine for mine, its in zip(core_speeds, adapter_speeds, strict=True)]
    return {
        "core_steps_per_second": round(median(core_speeds)),
        "adapter_steps_per_second": round(median(adapter_speeds)),
        "ratio": round(median(ratios), 3),
        "ratio_lowest": round(min(ratios), 3),
        "ratio_highest": round(max(ratios), 3),
    }


def _measure_core(envs: LearnedVectorEnv, steps: int) -> float:
    """Environment steps per second with tensors, which stay where they are."""
    envs.action_space.seed(0)
    actions = [torch.as_tensor(envs.action_space.sample(), device=envs.device) for _ in range(steps)]
    begin = time.perf_counter()
    for action in actions:
        envs.step(action)
    if envs.device.type == "cuda":
        torch.cuda.synchronize(envs.device)
    return steps * envs.num_envs / (time.perf_counter() - begin)


def _measure_adapter(envs: BatchedVecEnv, steps: int) -> float:
    """Environment steps per second as Stable-Baselines3 sees them, arrays in and out."""
    envs.envs.action_space.seed(0)
    actions = [np.asarray(envs.envs.action_space.sample()) for _ in range(steps)]
    begin = time.perf_counter()
    for action in actions:
        envs.step(action)
    return steps * envs.num_envs / (time.perf_counter() - begin)


if __name__ == "__main__":
    tyro.cli(main)
