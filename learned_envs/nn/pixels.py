"""What agents see pixels through: the convolutions of Mnih et al. (Nature, 2015), narrower.

Letters: N observations, F frames in one, A actions.
"""

import torch
from torch import Tensor, nn

from learned_envs.nn.initialization import orthogonal

__all__ = ["PixelActor", "brightness", "pixel_trunk"]

_CONVOLUTIONS = ((8, 4), (4, 2), (3, 1))  # width of the kernel, and stride


def pixel_trunk(shape: tuple[int, ...], channels: tuple[int, ...], hidden: int) -> nn.Sequential:
    """Three convolutions and a hidden layer.

    Args:
        shape: Of an observation, (F, height, width); at least 36 pixels each way.
        channels: Channels of the convolutions.
        hidden: Width of the hidden layer.

    Returns:
        A module that takes what `brightness` makes of observations, and gives features, shape (N, hidden).
    """
    layers: list[nn.Module] = []
    width, sides = shape[0], shape[1:]
    for count, (kernel, stride) in zip(channels, _CONVOLUTIONS, strict=True):
        layers += [orthogonal(nn.Conv2d(width, count, kernel, stride)), nn.ReLU()]
        width, sides = count, tuple((side - kernel) // stride + 1 for side in sides)
    return nn.Sequential(*layers, nn.Flatten(), orthogonal(nn.Linear(width * sides[0] * sides[1], hidden)), nn.ReLU())


def brightness(observations: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Pixels, uint8, shape (N, F, height, width), as numbers in [0, 1], laid out as convolutions like them."""
    return observations.contiguous(memory_format=torch.channels_last).to(dtype).mul_(1 / 255)


class PixelActor(nn.Module):
    """A policy that sees pixels.

    Args:
        shape: Of an observation, (F, height, width).
        channels: Channels of the three convolutions.
        hidden: Width of the layer behind them.
        num_actions: Size of the set of actions, A.
    """

    def __init__(self, shape: tuple[int, ...], channels: tuple[int, ...], hidden: int, num_actions: int) -> None:
        super().__init__()
        self.trunk = pixel_trunk(shape, channels, hidden)
        self.actor = orthogonal(nn.Linear(hidden, num_actions), 0.01)

    def forward(self, observations: Tensor) -> Tensor:
        """Observations, uint8, shape (N, F, height, width), to logits, shape (N, A)."""
        return self.actor(self.trunk(brightness(observations)))
