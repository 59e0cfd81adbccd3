"""The same policy in the learned and in the real game: does imagination tell what it is worth?"""

from collections.abc import Callable

import gymnasium as gym
import numpy as np
import tyro
from gymnasium.vector import VectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import learned_envs
from learned_envs.fidelity.pong import detect


def follow_the_ball(observations: np.ndarray) -> np.ndarray:
    """Move the paddle towards the height of the ball; actions 2 and 3 move up and down."""
    scene = detect(observations[:, -1])
    below = scene.ball[:, 0] - scene.own_paddle
    return np.where(below > 2, 3, np.where(below < -2, 2, 0))


def play(envs: VectorEnv, policy: Callable[[np.ndarray], np.ndarray], steps: int) -> tuple[np.ndarray, str]:
    """Points of every episode that ends within so many steps, or of those that were begun, if none does; and which they are."""
    envs = RecordEpisodeStatistics(envs)
    observations, _ = envs.reset(seed=0)
    returns: list[float] = []
    gained = np.zeros(envs.num_envs)
    for _ in range(steps):
        observations, rewards, *_, infos = envs.step(policy(observations))
        gained += rewards
        if "episode" in infos:
            returns += infos["episode"]["r"][infos["_episode"]].tolist()
    return (np.array(returns), "whole episodes") if returns else (gained, "episodes so far")


def main(id: str = "LearnedPong-v0", num_envs: int = 8, steps: int = 2000) -> None:
    """Play in both.

    Args:
        id: Id of learned Pong.
        num_envs: Games side by side.
        steps: Steps of each.
    """
    learned = gym.make_vec(id, num_envs=num_envs)
    for name, envs in {"imagined": learned, "real": learned_envs.make_real_vec(id, num_envs)}.items():
        returns, which = play(envs, follow_the_ball, steps)
        print(f"{name}: {returns.mean():+.1f} ± {returns.std():.1f} points in {len(returns)} {which}")


if __name__ == "__main__":
    tyro.cli(main)
