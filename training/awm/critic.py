"""What a policy will still earn: lets a Markov model be unrolled for a few steps only."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from learned_envs.awm.normalization import Normalizer
from learned_envs.awm.perceptron import perceptron

__all__ = ["Critic"]


class Critic(nn.Module):
    """V(s_t), and a copy that trails behind it, from which targets are computed.

    Args:
        observation_dim: Numbers in an observation, n.
        hidden: Widths of the hidden layers.
    """

    def __init__(self, observation_dim: int, hidden: tuple[int, ...] = (64, 64)) -> None:
        super().__init__()
        self.normalizer = Normalizer(observation_dim)
        self.value_normalizer = Normalizer(1)
        self.network = perceptron(observation_dim, hidden, 1, nn.SiLU)
        self.trailing = deepcopy(self.network).requires_grad_(False)

    def forward(self, observations: Tensor) -> Tensor:
        """Value of observations, shape (..., n), in units of the reward: shape (...)."""
        return self._value(self.network, observations)

    def target(self, observations: Tensor) -> Tensor:
        """Value by the trailing copy, with a gradient to the observations, shape (...)."""
        return self._value(self.trailing, observations)

    def loss(self, observations: Tensor, targets: Tensor) -> Tensor:
        """Half the mean squared error in normalised units, shape ().

        Args:
            observations: Shape (B, n).
            targets: What they should be worth, shape (B,).
        """
        error = (self(observations) - targets.detach()) / self.value_normalizer.scale
        return error.square().mean() / 2

    @torch.no_grad()
    def trail(self, share: float) -> None:
        """Move the copy by a share of the way towards the network."""
        for mine, newest in zip(self.trailing.parameters(), self.network.parameters(), strict=True):
            mine.lerp_(newest, share)

    def _value(self, network: nn.Module, observations: Tensor) -> Tensor:
        return self.value_normalizer.inverse(network(self.normalizer(observations))).squeeze(-1)
