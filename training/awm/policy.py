"""The policy of BPO: a Gaussian squashed into [-1, 1] (section 2.4 of the paper's reconstruction; as in Brax)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from learned_envs.awm.normalization import Normalizer
from learned_envs.awm.perceptron import perceptron

__all__ = ["Policy"]

_LEAST_DEVIATION = 1e-3


class Policy(nn.Module):
    """A perceptron with swish that reads an observation and tells mean and deviation of the action before tanh.

    Args:
        observation_dim: Numbers in an observation, n.
        action_dim: Numbers in an action, m.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, observation_dim: int, action_dim: int, hidden: tuple[int, ...] = (64, 64)) -> None:
        super().__init__()
        self.action_dim = action_dim
        self.normalizer = Normalizer(observation_dim)
        self.network = perceptron(observation_dim, hidden, 2 * action_dim, nn.SiLU)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation before tanh, each of shape (..., m), for observations of shape (..., n)."""
        mean, deviation = self.network(self.normalizer(observations)).chunk(2, -1)
        return mean, functional.softplus(deviation) + _LEAST_DEVIATION

    def act(self, observations: Tensor, noise: Tensor | None = None) -> Tensor:
        """Choose actions.

        Args:
            observations: Shape (..., n).
            noise: Standard normal, shape (..., m); left out, the policy acts deterministically: tanh of the mean.

        Returns:
            Actions in [-1, 1], shape (..., m), with gradients to the weights and the observations.
        """
        mean, deviation = self(observations)
        return torch.tanh(mean if noise is None else mean + deviation * noise)

    def entropy(self, observations: Tensor, noise: Tensor) -> Tensor:
        """Entropy of the action, in nats, estimated at the one that the noise chooses; shape (...)."""
        mean, deviation = self(observations)
        before = mean + deviation * noise
        stretch = 2 * (math.log(2) - before - functional.softplus(-2 * before))  # log of the derivative of tanh
        return (0.5 * math.log(2 * math.pi * math.e) + deviation.log() + stretch).sum(-1)
