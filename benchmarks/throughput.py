"""Steps per second of the learned game and of the emulator, in turns: ``python -m benchmarks.throughput``."""

from statistics import median

import tyro

from benchmarks.report import write_result
from learned_envs import make_real_vec
from learned_envs.demo import measure_speed
from learned_envs.envs.vector import LearnedVectorEnv


def main(
    id: str = "LearnedPong-v0", num_envs: int = 64, steps: int = 200, rounds: int = 7, device: str = "cpu"
) -> None:
    """Measure both, one after the other, several times; the medians count.

    Args:
        id: Id of the learned environment.
        num_envs: Environments side by side, learned and real.
        steps: Steps of each in a round.
        rounds: How often to measure.
        device: Where the model runs.
    """
    learned, real = LearnedVectorEnv(id, num_envs, device=device), make_real_vec(id, num_envs)
    speeds: dict[str, list[float]] = {"imagined": [], "emulated": []}
    for seed in range(rounds):
        speeds["imagined"].append(measure_speed(learned, steps, seed))
        speeds["emulated"].append(measure_speed(real, steps, seed))
    ratios = [mine / its for mine, its in zip(speeds["imagined"], speeds["emulated"], strict=True)]
    figures = {
        "id": id,
        "num_envs": num_envs,
        "steps": steps,
        "rounds": rounds,
        "imagined_steps_per_second": round(median(speeds["imagined"])),
        "emulated_steps_per_second": round(median(speeds["emulated"])),
        "ratio": round(median(ratios), 3),
        "ratio_lowest": round(min(ratios), 3),
        "ratio_highest": round(max(ratios), 3),
    }
    write_result("throughput", figures, device)


if __name__ == "__main__":
    tyro.cli(main)
