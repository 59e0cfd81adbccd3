"""Where ball, paddles and score stand in a 64x64 frame of Pong.

Pixel errors say little about Pong: a frame without a ball is almost perfect in mean squared error and useless to an agent.
These detectors read positions from frames, real or imagined alike, so that both can be compared in pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BACKGROUND", "PongScene", "detect"]

BACKGROUND = 87  # grey value of the empty playing field
_FIELD_ROWS = slice(11, 58)  # between the two white walls
_OPPONENT_COLUMNS = slice(6, 8)
_OWN_COLUMNS = slice(56, 58)
_PADDLE_COLUMNS = (5, 6, 7, 8, 55, 56, 57, 58)  # a paddle hides the ball here, a row of margin on both sides
_SCORE_ROWS = slice(0, 8)
_BALL_THRESHOLD = (
    35  # grey values above the field; a whole ball, spread over two to four pixels, has 70 to 149 in its brightest
)
_PADDLE_THRESHOLD = 25
_PADDLE_HEIGHT = 6  # rows that a paddle touches at most
_PADDLE_MASS = 40  # a whole paddle has about 280; the walls hide part of it


@dataclass(frozen=True)
class PongScene:
    """What a batch of frames shows.

    Args:
        ball: Centre as (row, column) in pixels, float32, shape (frames, 2); NaN where no ball is seen.
        own_paddle: Centre row of the right paddle in pixels, float32, shape (frames,); NaN where absent.
        opponent_paddle: Centre row of the left paddle in pixels, float32, shape (frames,); NaN where absent.
        score: Whether the score is drawn, bool, shape (frames,).
    """

    ball: NDArray[np.float32]
    own_paddle: NDArray[np.float32]
    opponent_paddle: NDArray[np.float32]
    score: NDArray[np.bool_]


def detect(frames: NDArray[np.uint8]) -> PongScene:
    """Find ball, paddles and score.

    Args:
        frames: Grey frames, uint8 in [0, 255], shape (frames, 64, 64).

    Returns:
        The positions, in pixels of the 64x64 frame.

    Raises:
        ValueError: If the frames are not 64x64 pixels.
    """
    if frames.ndim != 3 or frames.shape[1:] != (64, 64):
        raise ValueError(f"frames has shape {frames.shape}, expected (frames, 64, 64): one grey 64x64 frame each.")
    brightness = frames.astype(np.float32) - BACKGROUND
    return PongScene(
        ball=_find_ball(brightness),
        own_paddle=_centre_row(brightness[:, _FIELD_ROWS, _OWN_COLUMNS].max(2)),
        opponent_paddle=_centre_row(brightness[:, _FIELD_ROWS, _OPPONENT_COLUMNS].max(2)),
        score=np.abs(brightness[:, _SCORE_ROWS]).max((1, 2)) > 40,
    )


def _find_ball(brightness: NDArray[np.float32]) -> NDArray[np.float32]:
    field = brightness.copy()
    field[:, : _FIELD_ROWS.start] = 0
    field[:, _FIELD_ROWS.stop :] = 0
    field[:, :, _PADDLE_COLUMNS] = 0
    count = len(field)
    brightest = field.reshape(count, -1).argmax(1)
    row, column = np.divmod(brightest, 64)
    # Centre of mass of the 5x5 pixels around the brightest: the ball is spread over two to four pixels.
    padded = np.pad(np.where(field > 10, field, 0), ((0, 0), (2, 2), (2, 2)))
    offsets = np.arange(-2, 3)
    patch = padded[
        np.arange(count)[:, None, None],
        (row[:, None] + 2 + offsets)[:, :, None],
        (column[:, None] + 2 + offsets)[:, None, :],
    ]
    mass = np.maximum(patch.sum((1, 2)), 1e-6)
    centre = np.stack(
        [
            row + (patch.sum(2) * offsets).sum(1) / mass,
            column + (patch.sum(1) * offsets).sum(1) / mass,
        ],
        1,
    ).astype(np.float32)
    seen = field[np.arange(count), row, column] > _BALL_THRESHOLD
    return np.where(seen[:, None], centre, np.float32(np.nan))


def _centre_row(column: NDArray[np.float32]) -> NDArray[np.float32]:
    """Centre of a paddle, shape (frames,), in columns of shape (frames, rows).

    A paddle is the brightest stretch of its height; the ball, or a speck elsewhere in the column, does not move it.
    """
    mass = np.where(column > _PADDLE_THRESHOLD, column, 0)
    stretches = np.lib.stride_tricks.sliding_window_view(
        np.pad(mass, ((0, 0), (_PADDLE_HEIGHT - 1,) * 2)), _PADDLE_HEIGHT, 1
    )
    best = stretches.sum(2).argmax(1)
    stretch = stretches[np.arange(len(mass)), best]
    total = stretch.sum(1)
    rows = _FIELD_ROWS.start + 1 - _PADDLE_HEIGHT + best[:, None] + np.arange(_PADDLE_HEIGHT)
    centre = (stretch * rows).sum(1) / np.maximum(total, 1e-6)
    return np.where(total > _PADDLE_MASS, centre, np.nan).astype(np.float32)
