"""Recurrent backbones: an Elman network with tanh, and an LSTM (Hochreiter and Schmidhuber, 1997).

Written out in plain operations: the framework's fused kernels have no second derivatives, and on a GPU no first ones outside
training mode.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from learned_envs.awm.backbone import Backbone
from learned_envs.nn.initialization import kaiming_uniform
from learned_envs.world_model import State

__all__ = ["Lstm", "LstmMemory", "Rnn", "RnnMemory"]


@dataclass(frozen=True)
class RnnMemory(State):
    """What an Elman network remembers.

    Args:
        hidden: Hidden state, shape (B, D).
    """

    hidden: Tensor


@dataclass(frozen=True)
class LstmMemory(State):
    """What an LSTM remembers.

    Args:
        hidden: Hidden state, shape (B, D).
        cell: Cell state, shape (B, D).
    """

    hidden: Tensor
    cell: Tensor


class _Recurrent(Backbone):
    """A backbone whose memory is its hidden state.

    Args:
        width: Units, D.
        gates: Pre-activations per unit.
    """

    def __init__(self, width: int, gates: int) -> None:
        super().__init__()
        self.width = width
        self.input = nn.Linear(width, gates * width)
        self.recurrent = nn.Linear(width, gates * width, bias=False)
        kaiming_uniform(self.input, gain=1.0)
        for gate in self.recurrent.weight.chunk(gates):
            nn.init.orthogonal_(gate)

    @abstractmethod
    def _update(self, drive: Tensor, memory: Any) -> Any:
        """The memory after one more token, whose input to the gates is ``drive``, shape (B, gates * D)."""

    def forward(self, tokens: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        memory: Any = self.empty(len(tokens), tokens)
        features = []
        for drive in self.input(tokens).unbind(1):
            memory = self._update(drive, memory)
            features.append(memory.hidden)
        return torch.stack(features, 1)

    def step(self, token: Tensor, anchor: Tensor | None, position: Tensor, memory: Any) -> tuple[Tensor, State]:
        """See `Backbone.step`."""
        if anchor is not None:
            begun = self._update(self.input(anchor), self.empty(len(anchor), anchor))
            memory = begun.where(position == 1, memory)
        memory = self._update(self.input(token), memory)
        return memory.hidden, memory


class Rnn(_Recurrent):
    """h' = tanh(W x + U h + b), with orthogonal U.

    Args:
        width: Units, D.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, gates=1)

    def empty(self, batch: int, like: Tensor) -> RnnMemory:
        """See `Backbone.empty`."""
        return RnnMemory(like.new_zeros(batch, self.width))

    def _update(self, drive: Tensor, memory: RnnMemory) -> RnnMemory:
        return RnnMemory((drive + self.recurrent(memory.hidden)).tanh())


class Lstm(_Recurrent):
    """An LSTM without peepholes, with one bias a gate and orthogonal recurrent weights.

    Args:
        width: Units, D.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, gates=4)

    def empty(self, batch: int, like: Tensor) -> LstmMemory:
        """See `Backbone.empty`."""
        zeros = like.new_zeros(batch, self.width)
        return LstmMemory(zeros, zeros)

    def _update(self, drive: Tensor, memory: LstmMemory) -> LstmMemory:
        gates, proposal = (drive + self.recurrent(memory.hidden)).split([3 * self.width, self.width], -1)
        keep, write, show = gates.sigmoid().chunk(3, -1)
        cell = keep * memory.cell + write * proposal.tanh()
        return LstmMemory(show * cell.tanh(), cell)
