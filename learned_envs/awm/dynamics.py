"""What happens next, in normalised units: the three families of Ma et al. (ICML 2024).

Letters: B batch, L steps, n observation, m action, k state (n without the clock).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from learned_envs.awm.backbone import Backbone
from learned_envs.awm.config import AwmConfig
from learned_envs.awm.perceptron import perceptron
from learned_envs.awm.recurrent import Lstm, Rnn
from learned_envs.awm.transformer import Transformer
from learned_envs.world_model import State

__all__ = ["Dynamics", "MarkovDynamics", "SequenceDynamics", "make_dynamics"]


class Dynamics(nn.Module, ABC):
    """A network that predicts states, and its memory."""

    @abstractmethod
    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Predict every step of recorded windows, in parallel.

        Args:
            observations: Normalised s_1..s_L, shape (B, L, n). An action-conditioned model reads only the first.
            actions: a_1..a_L, shape (B, L, m).

        Returns:
            What the network says of s_2..s_{L+1}, shape (B, L, k).
        """

    @abstractmethod
    def empty(self, batch: int, like: Tensor) -> State:
        """The memory of B windows that have not begun, with the dtype and device of another tensor."""

    @abstractmethod
    def step(self, observation: Tensor, action: Tensor, position: Tensor, memory: Any) -> tuple[Tensor, State]:
        """Predict one more step.

        Args:
            observation: Normalised s_t, shape (B, n). An action-conditioned model reads it only where a window begins.
            action: a_t, shape (B, m).
            position: Number of the step in its window, int64 from 1 to H, shape (B,); at 1 the window begins.
            memory: The steps before.

        Returns:
            What the network says of s_{t+1}, shape (B, k), and the new memory.
        """


@dataclass(frozen=True)
class _NoMemory(State):
    """What a Markov model remembers."""


class MarkovDynamics(Dynamics):
    """s_{t+1} = f(s_t, a_t).

    Args:
        config: All sizes.
    """

    def __init__(self, config: AwmConfig) -> None:
        super().__init__()
        inputs = config.observation_dim + config.action_dim
        self.network = perceptron(inputs, config.hidden, config.state_dim, nn.SiLU)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `Dynamics.forward`."""
        return self.network(torch.cat([observations, actions], -1))

    def empty(self, batch: int, like: Tensor) -> State:
        """See `Dynamics.empty`."""
        return _NoMemory()

    def step(self, observation: Tensor, action: Tensor, position: Tensor, memory: State) -> tuple[Tensor, State]:
        """See `Dynamics.step`."""
        return self(observation, action), memory


class SequenceDynamics(Dynamics):
    """s_{t+1} = h(s_1..s_t, a_1..a_t), or g(s_1, a_1..a_t).

    Token 0 embeds s_1; token t embeds a_t, and if history-conditioned s_t beside it. The feature at token t is read out as
    s_{t+1}.

    Args:
        config: All sizes.
    """

    def __init__(self, config: AwmConfig) -> None:
        super().__init__()
        self.reads_states = config.family == "hwm"
        told = config.action_dim + config.observation_dim * self.reads_states
        self.anchor_embedder = perceptron(config.observation_dim, config.embedder_hidden, config.width)
        self.step_embedder = perceptron(told, config.embedder_hidden, config.width)
        self.backbone = _make_backbone(config)
        self.decoder = perceptron(config.width, config.hidden, config.state_dim)

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """See `Dynamics.forward`."""
        anchor = self.anchor_embedder(observations[:, :1])
        tokens = torch.cat([anchor, self._embed_step(observations, actions)], 1)
        return self.decoder(self.backbone(tokens)[:, 1:])

    def empty(self, batch: int, like: Tensor) -> State:
        """See `Dynamics.empty`."""
        return self.backbone.empty(batch, like)

    def step(self, observation: Tensor, action: Tensor, position: Tensor, memory: Any) -> tuple[Tensor, State]:
        """See `Dynamics.step`."""
        # On a GPU, asking whether a window begins would wait for the device, and one more token costs next to nothing.
        asks = position.device.type == "cpu"
        anchor = self.anchor_embedder(observation) if not asks or bool((position == 1).any()) else None
        feature, memory = self.backbone.step(self._embed_step(observation, action), anchor, position, memory)
        return self.decoder(feature), memory

    def _embed_step(self, observations: Tensor, actions: Tensor) -> Tensor:
        return self.step_embedder(torch.cat([observations, actions], -1) if self.reads_states else actions)


def make_dynamics(config: AwmConfig) -> Dynamics:
    """The dynamics of a family."""
    return MarkovDynamics(config) if config.family == "markov" else SequenceDynamics(config)


def _make_backbone(config: AwmConfig) -> Backbone:
    if config.backbone == "transformer":
        return Transformer(config.width, config.layers, config.heads, config.horizon)
    return Lstm(config.width) if config.backbone == "lstm" else Rnn(config.width)
