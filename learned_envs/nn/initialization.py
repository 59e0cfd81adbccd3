"""Weight initialisation that the papers prescribe and the framework does not offer by name."""

import math
from typing import TypeVar

from torch import nn

__all__ = ["kaiming_uniform", "orthogonal"]

_Layer = TypeVar("_Layer", nn.Linear, nn.Conv2d)


def kaiming_uniform(layer: nn.Linear | nn.Conv2d, gain: float = math.sqrt(2)) -> None:
    """Uniform weights of variance gain² / fan-in and zero biases (He et al., 2015).

    Args:
        layer: The layer to initialise, in place.
        gain: The square root of 2 stands for relu, and in TWM for SiLU too; 1 for linear outputs.
    """
    bound = gain * math.sqrt(3 / layer.weight[0].numel())
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def orthogonal(layer: _Layer, gain: float = math.sqrt(2)) -> _Layer:
    """Orthogonal weights and zero biases, as PPO begins.

    Args:
        layer: The layer to initialise, in place.
        gain: The square root of 2 stands for relu; 0.01 makes a policy undecided.

    Returns:
        The layer.
    """
    nn.init.orthogonal_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
