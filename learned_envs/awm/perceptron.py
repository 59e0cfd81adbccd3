"""Fully connected networks, initialised as in the authors' release."""

from torch import nn

from learned_envs.nn.initialization import kaiming_uniform

__all__ = ["perceptron"]


def perceptron(
    inputs: int, hidden: tuple[int, ...], outputs: int, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """A network with lecun-uniform weights (variance 1 / fan-in) and zero biases.

    Args:
        inputs: Number of input features.
        hidden: Widths of the hidden layers; empty for a linear map.
        outputs: Number of output features.
        activation: What follows each hidden layer.
    """
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [_linear(inputs, size), activation()]
        inputs = size
    return nn.Sequential(*layers, _linear(inputs, outputs))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    kaiming_uniform(layer, gain=1.0)
    return layer
