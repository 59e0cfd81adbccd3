"""Whether an imagined Pong that runs by itself still is Pong after a long time.

Nothing real is left to compare with. What can be told is whether the picture is one that Pong could show: the score is
drawn, and ball and paddles are not gone for longer than they ever are in the real game.
"""

from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from learned_envs.fidelity.pong import detect

__all__ = ["LONGEST_ABSENCE", "pong_free_running", "shows_pong"]

# Steps for which a thing was out of sight at most in 32,000 real steps, and a few more: the ball between two points, the
# opponent's paddle while it waits, the own paddle when it is held against a wall.
LONGEST_ABSENCE = {"ball": 20, "opponent_paddle": 20, "own_paddle": 80}


def shows_pong(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell frames that look like Pong from those that do not.

    Args:
        frames: Consecutive single frames, uint8, shape (N, T, 64, 64).

    Returns:
        Whether the score is drawn and ball and paddles were seen not longer ago than they ever are absent in the real game,
        bool, shape (N, T).
    """
    count, steps = frames.shape[:2]
    scene = detect(frames.reshape(-1, 64, 64))
    seen = {
        "ball": ~np.isnan(scene.ball[:, 0]),
        "own_paddle": ~np.isnan(scene.own_paddle),
        "opponent_paddle": ~np.isnan(scene.opponent_paddle),
    }
    good = scene.score.reshape(count, steps).copy()
    for name, present in seen.items():
        good &= _steps_since(present.reshape(count, steps)) <= LONGEST_ABSENCE[name]
    return good


def pong_free_running(envs: VectorEnv, steps: int = 1000, hold: float = 0.9, seed: int = 0) -> dict[str, Any]:
    """Let games run by themselves and tell how many of their frames look like Pong.

    Args:
        envs: Games of Pong side by side, learned or real, with NumPy observations.
        steps: Steps of each. Games that end begin anew.
        hold: Probability with which a random action is held for another step.
        seed: Seed of games and actions.

    Returns:
        ``looks_like_pong``: share of all frames that `shows_pong` accepts; ``at_the_end``: of the last hundred;
        ``points_won`` and ``points_lost`` in a thousand steps; ``games`` and ``steps``.
    """
    rng = np.random.default_rng(seed)
    choices = int(envs.single_action_space.n)  # type: ignore[attr-defined]
    observations, _ = envs.reset(seed=seed)
    frames, rewards = [observations[:, -1].copy()], []
    actions = rng.integers(choices, size=envs.num_envs)
    for _ in range(steps):
        actions = np.where(rng.random(envs.num_envs) < hold, actions, rng.integers(choices, size=envs.num_envs))
        observations, reward, *_ = envs.step(actions)
        frames.append(observations[:, -1].copy())
        rewards.append(reward)
    good, gained = shows_pong(np.stack(frames, 1)), np.stack(rewards)
    return {
        "games": envs.num_envs,
        "steps": steps,
        "looks_like_pong": float(good.mean()),
        "at_the_end": float(good[:, -100:].mean()),
        "points_won": float((gained > 0).mean() * 1000),
        "points_lost": float((gained < 0).mean() * 1000),
    }


def _steps_since(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps since a thing was last seen, or since the beginning: int64, shape (N, T)."""
    step = np.arange(present.shape[1])
    return step - np.maximum.accumulate(np.where(present, step, 0), 1)
