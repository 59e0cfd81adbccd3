"""Recorded experience made up for tests: short episodes of Pong drawn by hand."""

import numpy as np

from tests.fidelity.scenes import draw_pong
from training.experience import Episode, Experience

__all__ = ["made_up_episode", "made_up_experience"]


def made_up_episode(
    steps: int, seed: int = 0, terminated: bool = True, rewards: tuple[float, ...] = (-1.0, 0.0, 1.0)
) -> Episode:
    """A ball that flies about, random actions and rewards."""
    rng = np.random.default_rng(seed)
    row, column = rng.integers(12, 50), rng.integers(10, 40)
    paddle = rng.integers(15, 50, size=steps + 1)
    frames = [
        draw_pong((int(12 + (row + 2 * step) % 44), int(10 + (column + 3 * step) % 44)), own=int(paddle[step]))
        for step in range(steps + 1)
    ]
    return Episode(
        np.stack(frames),
        rng.integers(6, size=steps).astype(np.uint8),
        rng.choice(rewards, size=steps).astype(np.float32),
        terminated,
        f"policy-{seed % 2}",
        seed,
    )


def made_up_experience(
    lengths: tuple[int, ...] = (30, 45, 40), rewards: tuple[float, ...] = (-1.0, 0.0, 1.0)
) -> Experience:
    """Episodes of the given lengths; every other one was cut rather than ended."""
    episodes = [made_up_episode(steps, seed, seed % 2 == 0, rewards) for seed, steps in enumerate(lengths)]
    return Experience.from_episodes(episodes)
