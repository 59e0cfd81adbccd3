"""The protocol that every model family fulfils, and that every environment is built on.

A world model continues recorded experience. Its core is pure: all it knows of an episode is in a `State` that is handed
in and out, and all randomness comes in as an argument. So a rollout can be copied, forked, repeated bit for bit, and
differentiated.

    state = model.start(observations)
    for action in plan:
        state, prediction = model.step(state, action, noise)
    picture = model.observe(state)

Letters: B batch (environments), T steps of context.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from learned_envs.sharing import Shareable

__all__ = ["Prediction", "State", "WorldModel"]


@dataclass(frozen=True)
class State:
    """All a model knows of the episodes it is imagining: a structure of tensors, with the batch first in each.

    Subclasses are frozen dataclasses whose fields are tensors, further states, or tuples of either.
    """

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor with its name; names of nested ones are joined by dots, items of a tuple are numbered from 0."""
        for field in fields(self):
            yield from _named_tensors(field.name, getattr(self, field.name))

    def map(self, function: Callable[..., Tensor], *others: Self) -> Self:
        """Apply a function to each tensor, and to its like in other states.

        Args:
            function: Takes one tensor of each state, returns a tensor.
            others: States of the same structure.
        """
        return _map_tensors(function, self, *others)

    def where(self, mask: Tensor, other: Self) -> Self:
        """This state where the mask is True, the other where it is False, without a host sync.

        Args:
            mask: bool, shape (B,).
            other: State of the same structure and batch.
        """

        def choose(mine: Tensor, theirs: Tensor) -> Tensor:
            return torch.where(mask.view(-1, *(1,) * (mine.ndim - 1)), mine, theirs)

        return self.map(choose, other)

    def take(self, index: Tensor) -> Self:
        """The environments with the given indices: int64, shape (n,)."""
        return self.map(lambda tensor: tensor[index])

    def detach(self) -> Self:
        """The same state, cut off from the graph of gradients."""
        return self.map(Tensor.detach)

    def clone(self) -> Self:
        """A copy that shares no memory."""
        return self.map(Tensor.clone)

    def to(self, device: torch.device | str) -> Self:
        """The same state on another device."""
        return self.map(lambda tensor: tensor.to(device))

    def __len__(self) -> int:
        """Number of environments, B."""
        return len(next(self.tensors())[1])


def _named_tensors(name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
        return
    parts = value.tensors() if isinstance(value, State) else enumerate(value)
    for key, part in parts:
        yield from _named_tensors(f"{name}.{key}", part)


def _map_tensors(function: Callable[..., Tensor], *values: Any) -> Any:
    """Rebuild a tensor, state or tuple from the results for its tensors."""
    first = values[0]
    if isinstance(first, Tensor):
        return function(*values)
    if isinstance(first, tuple):
        return tuple(_map_tensors(function, *items) for items in zip(*values, strict=True))
    names = [field.name for field in fields(first)]
    return type(first)(**{name: _map_tensors(function, *(getattr(value, name) for value in values)) for name in names})


@dataclass(frozen=True)
class Prediction:
    """What a model says happens in one step.

    Args:
        reward: The reward of the step, float32, shape (B,).
        end_probability: Probability that the episode ends with the step, float32 in [0, 1], shape (B,).
    """

    reward: Tensor
    end_probability: Tensor


class WorldModel(nn.Module, Shareable, ABC):
    """A trained model that continues recorded experience.

    Attributes:
        observation_shape: Shape of one observation.
        observation_dtype: Its dtype.
        noise_size: How many uniform random numbers in [0, 1) a step consumes per environment; 0 if it is deterministic.
        ends: Whether episodes can end by themselves; if not, every end probability is 0, and nothing is drawn for it.
        observation_space, action_space, snapshot, starts: Gymnasium spaces, the snapshot's configuration and its recorded
            contexts; set by `learned_envs.load`.
    """

    observation_shape: tuple[int, ...]
    observation_dtype: torch.dtype
    noise_size: int
    ends: bool = True
    observation_space: Any
    action_space: Any
    snapshot: Any
    starts: Any

    @abstractmethod
    def start(self, observations: Tensor, actions: Tensor | None = None, rewards: Tensor | None = None) -> State:
        """Encode a context of T real steps, T >= 1.

        Args:
            observations: Shape (B, T, *observation_shape); the last is where imagination begins.
            actions: The actions between them, shape (B, T - 1, ...); may be left out if T = 1.
            rewards: The rewards between them, float32, shape (B, T - 1); left out means zero.

        Returns:
            The state from which `step` goes on.

        Raises:
            ValueError: If a shape or dtype does not fit.
        """

    @abstractmethod
    def observe(self, state: Any) -> Tensor:
        """The observation that a state shows, shape (B, *observation_shape). It may be the state's own: do not write into it."""

    @abstractmethod
    def step(self, state: Any, action: Tensor, noise: Tensor, decode: bool = True) -> tuple[State, Prediction]:
        """Imagine one step.

        Args:
            state: Where the episodes stand; not changed.
            action: One action for each, shape (B, ...).
            noise: Uniform in [0, 1), float32, shape (B, noise_size).
            decode: Whether the new state shows the next observation; without it planning in latent space is cheaper, and
                `observe` shows the last one that was decoded.

        Returns:
            The state after the step, and what happened in it; `observe` gives the next observation.
        """
