"""How long imagination stays with the real game: both are fed the same actions, and the ball is looked for in both."""

import gymnasium as gym
import numpy as np
import tyro

import learned_envs
from learned_envs.fidelity.pong import detect


def main(games: int = 16, context: int = 16, steps: int = 30, begin: int = 40, seed: int = 0) -> None:
    """Compare open loop, from many real moments at once.

    Args:
        games: Real games.
        context: Real observations that the model is shown.
        steps: Steps that it imagines.
        begin: Steps that are played before.
        seed: Seed of games and actions.
    """
    reals = learned_envs.make_real_vec("LearnedPong-v0", games)
    learned = gym.make_vec("LearnedPong-v0", num_envs=games)
    reals.action_space.seed(seed)
    seen, actions, rewards = [reals.reset(seed=seed)[0]], [], []
    for _ in range(begin + context - 1):
        actions.append(np.asarray(reals.action_space.sample()))
        observations, reward, *_ = reals.step(actions[-1])
        seen.append(observations.copy())
        rewards.append(reward)
    shown = {"observations": seen[-context:], "actions": actions[begin:], "rewards": rewards[begin:]}
    learned.reset(seed=seed, options={name: np.stack(each, 1) for name, each in shown.items()})
    for step in range(1, steps + 1):
        action = np.asarray(reals.action_space.sample())
        real, imagined = (detect(envs.step(action)[0][:, -1]) for envs in (reals, learned))
        distance = np.linalg.norm(real.ball - imagined.ball, axis=1)
        found = np.isfinite(distance)
        if found.any() and step % 5 == 0:
            paddle = np.nanmean(np.abs(real.own_paddle - imagined.own_paddle))
            print(f"step {step}: ball off by {np.median(distance[found]):.1f}, paddle by {paddle:.1f} of 64 pixels")


if __name__ == "__main__":
    tyro.cli(main)
