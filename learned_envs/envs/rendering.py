"""Pictures of observations, for people."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["draw"]

_SHORT_SIDE = 256


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
