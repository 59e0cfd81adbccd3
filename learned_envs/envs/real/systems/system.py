"""What a real system is to everything that is built on it: a differentiable function from one step to the next.

A system is a frozen dataclass of parameters with a pure `System.step`: no hidden state, no random numbers of its own, no
wait for the device. So a rollout can be batched, repeated, and differentiated with respect to actions, states and noise.

Letters: B batch, n numbers in a state, m numbers in an action, H steps in an episode.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import ClassVar, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

__all__ = ["Bounds", "Columns", "Fixed", "System"]

Fixed = Literal["duration", "dt"]
Bounds = tuple[tuple[float, float], ...]
"""A lower and an upper bound for each number; infinite where there is none."""
Columns = tuple[Tensor, ...]
"""A batch taken apart into its numbers, each of shape (B,): equations read like equations."""


@dataclass(frozen=True, kw_only=True)
class System(ABC):
    """A deterministic or noisy control problem of a fixed number of steps.

    Everything is batched, and works in the dtype of the state, float32 or float64, on any device.

    Args:
        horizon: Steps in an episode, H; at least 1.
        duration: Physical time of ``standard_horizon`` steps, in the system's own unit.
        fixed: What stays when the horizon changes. ``"duration"``: the physical time, so that a step lasts
            ``duration / horizon``. ``"dt"``: the step, ``duration / standard_horizon``, so that a longer episode lasts longer.

    Raises:
        ValueError: If a parameter lies outside its range.

    """

    standard_horizon: ClassVar[int] = 100
    """The number of steps for which both conventions of ``fixed`` agree."""

    horizon: int = 100
    duration: float = 1.0
    fixed: Fixed = "duration"

    def __post_init__(self) -> None:
        if not isinstance(self.horizon, Integral) or isinstance(self.horizon, bool) or self.horizon < 1:
            raise ValueError(f"horizon is {self.horizon!r}, expected a whole number of at least 1 step.")
        if self.fixed not in get_args(Fixed):
            raise ValueError(f'fixed is {self.fixed!r}, expected "duration" or "dt".')
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, float) and not (isinstance(value, Real) and math.isfinite(value)):
                raise ValueError(f"{field.name} is {value!r}, expected a finite number.")
            if isinstance(field.default, bool) and not isinstance(value, bool):
                raise ValueError(f"{field.name} is {value!r}, expected True or False.")
        if self.duration <= 0:
            raise ValueError(f"duration is {self.duration}, but must be above 0.")

    @property
    @abstractmethod
    def state_bounds(self) -> Bounds:
        """Lower and upper bound of each number of a state."""

    @property
    @abstractmethod
    def control_bounds(self) -> Bounds:
        """The physical values that actions of -1 and 1 stand for."""

    @property
    def state_dim(self) -> int:
        """Numbers in a state, n."""
        return len(self.state_bounds)

    @property
    def action_dim(self) -> int:
        """Numbers in an action, m."""
        return len(self.control_bounds)

    @property
    def observation_bounds(self) -> Bounds:
        """Lower and upper bound of each number of an observation: the state, the index of the step, and any extras."""
        return (*self.state_bounds, (0.0, float(self.horizon)))

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Space of one observation, float32, within `observation_bounds`."""
        low, high = np.array(self.observation_bounds, np.float32).T
        return gym.spaces.Box(low, high, dtype=np.float32)

    @property
    def action_space(self) -> gym.spaces.Box:
        """Space of one action: m numbers in [-1, 1], float32."""
        return gym.spaces.Box(-1.0, 1.0, (self.action_dim,), np.float32)

    @property
    def noise_size(self) -> int:
        """How many standard normal numbers a step, and a start, consume; 0 if the system is deterministic."""
        return 0

    @property
    def dt(self) -> float:
        """Physical time of a step."""
        return self.duration / (self.horizon if self.fixed == "duration" else self.standard_horizon)

    def initial_state(
        self,
        batch: int,
        noise: Tensor | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Where episodes begin.

        Args:
            batch: Number of episodes, B.
            noise: Standard normal, shape (B, noise_size); may be left out if the system is deterministic.
            dtype: Dtype of the state.
            device: Where to put it.

        Returns:
            The states, shape (B, n).

        Raises:
            ValueError: If noise is missing or has a wrong shape.
        """
        like = torch.empty(batch, 0, dtype=dtype, device=device)
        columns = self._start(self._parse_noise(noise, like).unbind(1))
        return torch.stack([c if isinstance(c, Tensor) else like.new_full((batch,), c) for c in columns], 1)

    def step(
        self, state: Tensor, action: Tensor, t: int | Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Advance every episode by one step.

        The values are not checked, since that would wait for the device: an action beyond [-1, 1] is a control beyond its
        physical bounds, and NaN stays NaN.

        Args:
            state: Shape (B, n), float32 or float64.
            action: In [-1, 1], mapped affinely to the physical bounds of the controls; shape (B, m), dtype of the state.
            t: Index of the step, 0 to H - 1; one for all, or int64, shape (B,).
            noise: Standard normal, shape (B, noise_size); may be left out if the system is deterministic.

        Returns:
            The next states, shape (B, n), and the rewards of the step, shape (B,).

        Raises:
            ValueError: If a shape or dtype does not fit.
        """
        self._check(state, action)
        t = torch.as_tensor(t, device=state.device).expand(len(state))
        told = state.unbind(1), self._controls(action), t, self._parse_noise(noise, state).unbind(1)
        return torch.stack(self._following(*told), 1), self._reward(*told)

    def reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The reward of a step, from what an agent is shown before it; of a noisy reward the mean.

        So whoever models the dynamics alone knows the rewards. Values are not checked.

        Args:
            observations: Shape (..., len(observation_bounds)), as `observe` gives them.
            actions: In [-1, 1], shape (..., m), dtype of the observations.

        Returns:
            The rewards that `step` gives, shape (...), with gradients to states and actions.
        """
        state, t = self.split(observations)
        x = state.unbind(-1)
        noise = (torch.zeros_like(x[0]),) * self.noise_size
        return self._reward(x, self._controls(actions), t, noise)

    def rollout(
        self, actions: Tensor, state: Tensor | None = None, noise: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Play a plan from the first step on.

        Args:
            actions: In [-1, 1], shape (B, T, m), T <= H; the dtype of everything.
            state: Where to begin, shape (B, n); left out, at `initial_state`.
            noise: Standard normal, shape (B, T + 1, noise_size), the first for the start; may be left out if the system is
                deterministic.

        Returns:
            The states, shape (B, T + 1, n), and the rewards, shape (B, T).

        Raises:
            ValueError: If a shape or dtype does not fit.
        """
        if actions.ndim != 3 or not 1 <= actions.shape[1] <= self.horizon:
            raise ValueError(
                f"actions has shape {tuple(actions.shape)}, expected (B, T, {self.action_dim}) with 1 <= T <= {self.horizon}."
            )
        expected = (len(actions), actions.shape[1] + 1, self.noise_size)
        if noise is not None and tuple(noise.shape) != expected:
            raise ValueError(
                f"noise has shape {tuple(noise.shape)}, expected {expected}: for the start and for each of the "
                f"{actions.shape[1]} steps."
            )
        draws = [None] * (actions.shape[1] + 1) if noise is None else noise.unbind(1)
        if state is None:
            state = self.initial_state(len(actions), draws[0], dtype=actions.dtype, device=actions.device)
        states, rewards = [state], []
        for t, (action, draw) in enumerate(zip(actions.unbind(1), draws[1:], strict=True)):
            state, reward = self.step(state, action, t, draw)
            states.append(state)
            rewards.append(reward)
        return torch.stack(states, 1), torch.stack(rewards, 1)

    def observe(self, state: Tensor, t: int | Tensor) -> Tensor:
        """What an agent is shown.

        Args:
            state: Shape (B, n).
            t: Index of the step, one for all or shape (B,).

        Returns:
            The state, then the index of the step, then any extras; dtype of the state,
            shape (B, len(observation_bounds)).
        """
        t = torch.as_tensor(t, device=state.device).expand(len(state))
        return torch.cat([state, t.to(state.dtype).unsqueeze(1)], 1)

    def split(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Tell state and time apart in what `observe` showed.

        Args:
            observations: Shape (..., len(observation_bounds)).

        Returns:
            The states, shape (..., n), and the indices of the step, rounded to whole numbers, int64, shape (...).
        """
        n = self.state_dim
        return observations[..., :n], observations[..., n].detach().round().long()

    def check_observations(self, observations: Tensor) -> None:
        """Refuse observations that the system cannot go on from.

        Args:
            observations: Shape (B, len(observation_bounds)).

        Raises:
            ValueError: If a number is not finite or out of bounds, or an index is no whole number from 0 to H - 1.
        """
        observations = observations.detach()
        values, clock = observations[:, : self.state_dim], observations[:, self.state_dim]
        low, high = values.new_tensor(self.state_bounds).unbind(1)
        wrong = ~(values.isfinite() & (values >= low) & (values <= high))
        if bool(wrong.any()):
            row, column = wrong.nonzero()[0].tolist()
            raise ValueError(
                f"observations has {values[row, column].item()} as number {column} of state {row}, expected a finite number in "
                f"[{low[column].item():g}, {high[column].item():g}]."
            )
        wrong = ~((clock >= 0) & (clock < self.horizon) & (clock == clock.round()))
        if bool(wrong.any()):
            row = int(wrong.nonzero()[0])
            raise ValueError(
                f"observations has the step {clock[row].item():g} in state {row}, expected a whole number from 0 to "
                f"{self.horizon - 1}."
            )

    @abstractmethod
    def _start(self, noise: Columns) -> tuple[float | Tensor, ...]:
        """The numbers of the initial state."""

    @abstractmethod
    def _following(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Columns:
        """The numbers of the next state, for physical controls u and the index of the step t."""

    @abstractmethod
    def _reward(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Tensor:
        """The reward of the step. Like every column, it may have any shape."""

    def _controls(self, action: Tensor) -> Columns:
        """Physical controls of actions in [-1, 1]."""
        pairs = zip(action.unbind(-1), self.control_bounds, strict=True)
        return tuple(low + (a + 1) * ((high - low) / 2) for a, (low, high) in pairs)

    def _parse_noise(self, noise: Tensor | None, like: Tensor) -> Tensor:
        expected = (len(like), self.noise_size)
        if noise is None and self.noise_size == 0:
            return like.new_empty(expected)
        if noise is None:
            raise ValueError(
                f"noise is missing: {type(self).__name__} as configured consumes {self.noise_size} standard normal "
                f"numbers a step. Give a tensor of shape {expected}."
            )
        if tuple(noise.shape) != expected:
            raise ValueError(f"noise has shape {tuple(noise.shape)}, expected {expected}.")
        return noise.to(like)

    def _check(self, state: Tensor, action: Tensor) -> None:
        if state.ndim != 2 or state.shape[1] != self.state_dim or not state.is_floating_point():
            raise ValueError(
                f"state has shape {tuple(state.shape)} and dtype {state.dtype}, expected (B, {self.state_dim}) and "
                "float32 or float64."
            )
        expected = (len(state), self.action_dim)
        if tuple(action.shape) != expected or action.dtype != state.dtype:
            raise ValueError(
                f"action has shape {tuple(action.shape)} and dtype {action.dtype}, expected {expected} and {state.dtype}, "
                "as the state."
            )
