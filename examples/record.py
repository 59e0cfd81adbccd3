"""Write imagined experience to a file, for agents that learn from data sets."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro

import learned_envs  # noqa: F401 - registers the ids


def main(
    id: str = "LearnedPong-v0", num_envs: int = 16, steps: int = 500, seed: int = 0, out: Path = Path("imagined.npz")
) -> None:
    """Record random play.

    Args:
        id: Id of a learned environment.
        num_envs: Environments side by side.
        steps: Steps of each.
        seed: Seed of environments and actions.
        out: Where the experience goes. ``valid`` is False where a step only began the next episode.
    """
    envs = gym.make_vec(id, num_envs=num_envs)
    envs.action_space.seed(seed)
    observation, _ = envs.reset(seed=seed)
    names = "observations", "actions", "rewards", "terminated", "truncated", "valid"
    steps_of = []
    over = np.zeros(num_envs, bool)
    for _ in range(steps):
        action = envs.action_space.sample()
        following, reward, terminated, truncated, _ = envs.step(action)
        steps_of.append((observation, action, reward, terminated, truncated, ~over))
        observation, over = following, terminated | truncated
    content = {name: np.stack(values) for name, values in zip(names, zip(*steps_of, strict=True), strict=True)}
    np.savez_compressed(out, **content, last_observations=observation)
    print(f"{content['valid'].sum():,} steps are in {out}")


if __name__ == "__main__":
    tyro.cli(main)
