"""The agent that comes with LearnedPong-v0, in the real game: ``python -m benchmarks.bundled_agent``."""

import warnings
from statistics import fmean, pstdev

import torch
import tyro
from stable_baselines3.common.evaluation import evaluate_policy

import learned_envs
from benchmarks.report import write_result
from learned_envs.sb3 import make_real_vec_env


def main(id: str = "LearnedPong-v0", games: int = 100, n_envs: int = 20, seed: int = 0) -> None:
    """Let it play whole games; actions are drawn, as they were in training.

    Args:
        id: Id, or folder of a snapshot that an agent came with.
        games: Games to play.
        n_envs: How many at a time.
        seed: Seed of games and actions.
    """
    torch.manual_seed(seed)
    policy, envs = learned_envs.load_policy(id), make_real_vec_env(id, n_envs, seed=seed)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Evaluation environment is not wrapped")
        # Its predict has a state of its own kind, which Stable-Baselines3 hands back untouched.
        returns, lengths = evaluate_policy(policy, envs, games, deterministic=False, return_episode_rewards=True)  # pyright: ignore[reportArgumentType]
    assert isinstance(returns, list) and isinstance(lengths, list)
    figures = {
        "id": id,
        "games": games,
        "seed": seed,
        "mean": round(fmean(returns), 2),
        "sd": round(pstdev(returns), 2),
        "won": sum(value > 0 for value in returns),
        "returns": returns,
        "steps": sum(lengths),
    }
    write_result("bundled_agent", figures)


if __name__ == "__main__":
    tyro.cli(main)
