"""Pictures of observations, for people."""

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

__all__ = ["draw", "render_modes"]

_SHORT_SIDE = 256


def render_modes(space: gym.spaces.Box) -> list[str]:
    """How observations of a space can be shown; empty if there are no pictures of them."""
    return ["rgb_array"] if space.dtype == np.uint8 and len(space.shape) == 3 else []


def draw(observation: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Show the newest frame of a stack, enlarged without smoothing.

    Args:
        observation: Stack of grey frames, newest last, uint8, shape (frames, height, width).

    Returns:
        RGB picture, uint8, shape (about 256, about 256, 3).
    """
    frame = observation[-1]
    factor = max(1, _SHORT_SIDE // min(frame.shape))
    enlarged = frame.repeat(factor, 0).repeat(factor, 1)
    return np.repeat(enlarged[:, :, None], 3, 2)
