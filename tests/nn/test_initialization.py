"""Weights start with the spread that the papers prescribe."""

import math

import pytest
import torch
from torch import nn

from learned_envs.nn.initialization import kaiming_uniform


@pytest.mark.parametrize(
    ("layer", "fan_in"), [(nn.Linear(50, 400), 50), (nn.Conv2d(6, 200, 4), 96)], ids=["linear", "convolution"]
)
@pytest.mark.parametrize("gain", [math.sqrt(2), 1.0])
def test_weights_are_uniform_with_the_prescribed_variance(layer: nn.Linear, fan_in: int, gain: float) -> None:
    torch.manual_seed(0)
    kaiming_uniform(layer, gain)
    bound = gain * math.sqrt(3 / fan_in)
    assert layer.weight.abs().max() <= bound
    assert layer.weight.abs().max() > 0.99 * bound
    assert layer.weight.var().item() == pytest.approx(gain**2 / fan_in, rel=0.05)
    assert (layer.bias == 0).all()


def test_layer_without_a_bias_is_no_error() -> None:
    kaiming_uniform(nn.Linear(3, 4, bias=False))
