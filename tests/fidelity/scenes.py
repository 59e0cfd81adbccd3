"""Frames of Pong drawn by hand, and real ones with what the console's memory says of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learned_envs.fidelity.pong import BACKGROUND
from training.policies import PongTracker

__all__ = ["draw_pong", "play_real_pong"]

_BALL_Y, _BALL_X, _OWN_Y, _OPPONENT_Y = 54, 49, 51, 50  # places in the console's memory


def draw_pong(
    ball: Sequence[int] | None = (30, 30), own: int | None = 40, opponent: int | None = 20, score: bool = True
) -> NDArray[np.uint8]:
    """Draw a frame, uint8, shape (64, 64).

    Args:
        ball: Row and column of the ball, one pixel; None for no ball.
        own: Centre row of the right paddle, five rows high; None for none.
        opponent: Centre row of the left paddle.
        score: Whether to draw the score.
    """
    frame = np.full((64, 64), BACKGROUND, np.uint8)
    frame[8:10], frame[59:] = 236, 218  # the walls
    if score:
        frame[1:6, 16] = frame[1:6, 48] = 148
    if own is not None:
        frame[own - 2 : own + 3, 56:58] = 147
    if opponent is not None:
        frame[opponent - 2 : opponent + 3, 6:8] = 148
    if ball is not None:
        frame[tuple(ball)] = 206
    return frame


def play_real_pong(steps: int) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.float64]]]:
    """Play a game with a decent player.

    Returns:
        The newest frames, uint8, shape (steps, 64, 64); and, by name, where the console has ball and paddles, in its own
        units of one line or column of the 210x160 picture.
    """
    from learned_envs.envs.real.atari import make_atari

    env, player, rng = make_atari("Pong"), PongTracker(0.1), np.random.default_rng(0)
    console: Any = env.unwrapped
    observation, _ = env.reset(seed=0)
    frames, memory = [], []
    for _ in range(steps):
        observation, _, terminated, _, _ = env.step(player.act(observation[-1], rng))
        assert not terminated
        frames.append(observation[-1].copy())
        memory.append(console.ale.getRAM().astype(np.float64))
    places = {"ball_y": _BALL_Y, "ball_x": _BALL_X, "own_y": _OWN_Y, "opponent_y": _OPPONENT_Y}
    return np.stack(frames), {name: np.stack(memory)[:, place] for name, place in places.items()}
