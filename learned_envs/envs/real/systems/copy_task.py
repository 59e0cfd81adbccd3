"""A toy of credit assignment: the first action counts at the very end, and the true gradient is known."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from learned_envs.envs.real.systems.system import Bounds, Columns, System

__all__ = ["CopyTask"]


@dataclass(frozen=True, kw_only=True)
class CopyTask(System):
    """Remember the first action to the end, while every step in between asks for something else.

    State: the saved first action u0, and a target z. Action: one number in [-1, 1]. Source: Ma et al., ICML 2024, the toy
    task of credit assignment, as in their released code. The state's Jacobian with respect to the first action is exactly 1
    for u0 and 0 for z, at every later step.

    Step t = 0 saves the action and gives no reward. The last P steps each give ``max(10 - 20 (u0 - 0.5)^2, -10) / P``, so the
    best first action is 0.5, which brings 10. The steps between give ``-(z - a)^2 / H`` and ask to copy z. The start and every
    step draw a new z. Physical time means nothing here: ``duration`` and ``fixed`` have no effect.

    Args:
        target_deviation: Standard deviation of z; at least 0. At 0, the default, z is always 0.
        reward_deviation: Standard deviation of the noise on the rewards of the steps between; at least 0.
        final_share: Share of the horizon that is P, the final steps, rounded down, but at least 1 step; 0, the default, is 1
            step. In [0, 1).
        short_term: Whether the steps between give any reward.
        show_phase: Whether two more numbers of the observation, after the index of the step, show the phase: (1, 0) until
            the final steps, (0, 1) in them.

    Raises:
        ValueError: If a parameter lies outside its range.
    """

    standard_horizon = 20

    horizon: int = 20
    duration: float = 20.0
    target_deviation: float = 0.0
    reward_deviation: float = 0.0
    final_share: float = 0.0
    short_term: bool = True
    show_phase: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("target_deviation", "reward_deviation"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but a standard deviation must be at least 0.")
        if not 0 <= self.final_share < 1:
            raise ValueError(f"final_share is {self.final_share}, but must lie in [0, 1).")

    @property
    def final_steps(self) -> int:
        """How many steps at the end reward the first action, P."""
        return max(1, math.floor(self.final_share * self.horizon))

    @property
    def state_bounds(self) -> Bounds:
        """Bounds of the saved action and of the target."""
        return ((-1.0, 1.0), (-math.inf, math.inf))

    @property
    def control_bounds(self) -> Bounds:
        """An action stands for itself."""
        return ((-1.0, 1.0),)

    @property
    def observation_bounds(self) -> Bounds:
        """Bounds of the state, of the index of the step, and of the phase if it is shown."""
        return super().observation_bounds + ((0.0, 1.0),) * (2 * self.show_phase)

    @property
    def noise_size(self) -> int:
        """Standard normal numbers of a step: one for the target, one for the reward."""
        return 2 if self.target_deviation or self.reward_deviation else 0

    def observe(self, state: Tensor, t: int | Tensor) -> Tensor:
        """What an agent is shown, see `System.observe`; with the phase, if wanted."""
        observation = super().observe(state, t)
        if not self.show_phase:
            return observation
        final = observation[:, self.state_dim :] >= self.horizon - self.final_steps
        return torch.cat([observation, (~final).to(state.dtype), final.to(state.dtype)], 1)

    def _start(self, noise: Columns) -> tuple[float | Tensor, ...]:
        return (0.0, self.target_deviation * noise[0] if noise else 0.0)

    def _following(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Columns:
        saved, target = x
        following = self.target_deviation * noise[0] if noise else torch.zeros_like(target)
        return (torch.where(t == 0, u[0], saved), following)

    def _reward(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Tensor:
        saved, target = x
        between = -((target - u[0]) ** 2) / self.horizon
        if noise:
            between = between + self.reward_deviation * noise[1]
        if not self.short_term:
            between = torch.zeros_like(between)
        final = (10 - 20 * (saved - 0.5) ** 2).clamp_min(-10) / self.final_steps
        reward = torch.where(t >= self.horizon - self.final_steps, final, between)
        return torch.where(t == 0, 0.0, reward)
