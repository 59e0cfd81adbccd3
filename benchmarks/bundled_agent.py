"""The agent that comes with LearnedPong-v0, in the real game: ``python -m benchmarks.bundled_agent``."""

import warnings
from statistics import fmean, pstdev

import torch
import tyro
from stable_baselines3.common.evaluation import evaluate_policy

import learned_envs
from benchmarks.report import write_result
from learned_envs.sb3 import make_real_vec_env


def main(id: str = "LearnedPong-v0", games: int = 100, n_envs: int = 20, seeds: tuple[int, ...] = (0, 1, 2)) -> None:
    """Let it play whole games; actions are drawn, as they were in training.

    Args:
        id: Id, or folder of a snapshot that an agent came with.
        games: Games to play with each seed.
        n_envs: How many at a time.
        seeds: Seeds of games and actions.
    """
    by_seed = {str(seed): _play(id, games, n_envs, seed) for seed in seeds}
    returns = [value for each in by_seed.values() for value in each]
    figures = {
        "id": id,
        "games": len(returns),
        **_sum_up(returns),
        "by_seed": {seed: {**_sum_up(each), "returns": each} for seed, each in by_seed.items()},
    }
    write_result("bundled_agent", figures)


def _play(id: str, games: int, n_envs: int, seed: int) -> list[float]:
    """Points of whole games."""
    torch.manual_seed(seed)
    policy, envs = learned_envs.load_policy(id), make_real_vec_env(id, n_envs, seed=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Evaluation environment is not wrapped")
        # Its predict has a state of its own kind, which Stable-Baselines3 hands back untouched.
        returns, _ = evaluate_policy(policy, envs, games, deterministic=False, return_episode_rewards=True)  # pyright: ignore[reportArgumentType]
    envs.close()
    assert isinstance(returns, list)
    return returns


def _sum_up(returns: list[float]) -> dict[str, float]:
    return {
        "mean": round(fmean(returns), 2),
        "sd": round(pstdev(returns), 2),
        "won": sum(value > 0 for value in returns),
    }


if __name__ == "__main__":
    tyro.cli(main)
