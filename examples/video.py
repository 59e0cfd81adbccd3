"""Film imagined games side by side."""

from pathlib import Path

import gymnasium as gym
import numpy as np
import tyro

import learned_envs  # noqa: F401 - registers the ids
from learned_envs.video import write_gif


def main(
    id: str = "LearnedPong-v0", games: int = 3, steps: int = 150, seed: int = 0, out: Path = Path("film.gif")
) -> None:
    """Film random play.

    Args:
        id: Id of a learned game.
        games: Games side by side.
        steps: Steps of each.
        seed: Seed of games and actions.
        out: Where the film goes.
    """
    envs = gym.make_vec(id, num_envs=games)
    envs.action_space.seed(seed)
    seen = [envs.reset(seed=seed)[0]]
    seen += [envs.step(envs.action_space.sample())[0] for _ in range(steps)]
    films = np.stack(seen, 1)  # (games, steps + 1, 4, 64, 64)
    write_gif(out, {f"game {number}": film for number, film in enumerate(films)})
    print(f"The film is {out}")


if __name__ == "__main__":
    tyro.cli(main)
