"""A double pendulum: one action, then chaos."""

import math
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral

import torch
from torch import Tensor

from learned_envs.envs.real.systems.system import Bounds, Columns, Fixed, System

__all__ = ["DoublePendulum"]


@dataclass(frozen=True, kw_only=True)
class DoublePendulum(System):
    """Let a double pendulum go at the angle from which it will swing to the goal.

    State: angle and angular velocity of the upper rod, then of the lower one, in radians from hanging down and radians per
    second, without bounds. Action: the first one lets the pendulum go, with the upper rod at ``angle_scale * action``; all
    later ones are ignored. Source: Ma et al., ICML 2024, the chaotic task, as in their released code, but for the angle, where
    they have ``angle_scale=180`` without a conversion to radians, the integrator, where they have an adaptive one, and the
    goal, which is ours.

    Step t = 0 sets the angles to ``angle_scale * (action, goal_lower)`` and the velocities to 0. In every later step the
    pendulum swings freely, integrated by Runge and Kutta's fourth-order method. The reward is 0 but for the last step,
    t = H - 1, where it is minus the mean over the four numbers of (state - goal)^2, read on the state *before* that step's
    transition, as the released code has it. The goal is where ``goal_action`` leads, so that this is the best action, with
    reward 0. An episode begins in the goal state, so that the agent sees it.

    Args:
        angle_scale: Angle that action 1 stands for, in radians; above 0.
        goal_action: The action that reaches the goal, in [-1, 1].
        goal_lower: Angle of the lower rod at the start, as a share of ``angle_scale``, in [-1, 1].
        substeps: Steps of the integrator in one step; at least 1. In 98 steps of 0.05, in float64, the energy drifts by less
            than 1e-4 joules with 10, and by less than 1e-6 with 40.
        gravity: In metres per second squared.
        length1: Length of the upper rod, in metres.
        length2: Length of the lower rod.
        mass1: Mass at the end of the upper rod, in kilograms.
        mass2: Mass at the end of the lower rod.

    Raises:
        ValueError: If a parameter lies outside its range.
    """

    standard_horizon = 10

    horizon: int = 10
    duration: float = 0.5
    fixed: Fixed = "dt"
    angle_scale: float = math.pi
    goal_action: float = 0.5
    goal_lower: float = 0.3
    substeps: int = 10
    gravity: float = 9.8
    length1: float = 1.0
    length2: float = 1.0
    mass1: float = 1.0
    mass2: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("angle_scale", "length1", "length2", "mass1", "mass2"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be above 0.")
        for name in ("goal_action", "goal_lower"):
            if abs(getattr(self, name)) > 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must lie in [-1, 1].")
        if not isinstance(self.substeps, Integral) or self.substeps < 1:
            raise ValueError(f"substeps is {self.substeps!r}, expected a whole number of at least 1.")

    @property
    def state_bounds(self) -> Bounds:
        """No bounds: the angles count full turns."""
        return ((-math.inf, math.inf),) * 4

    @property
    def control_bounds(self) -> Bounds:
        """Angles at which the upper rod is let go."""
        return ((-self.angle_scale, self.angle_scale),)

    @cached_property
    def goal(self) -> tuple[float, ...]:
        """The state that the goal action leads to, which the last reward compares with; computed in float64."""
        angles = self.angle_scale * self.goal_action, self.angle_scale * self.goal_lower
        state = torch.tensor([[angles[0], 0.0, angles[1], 0.0]], dtype=torch.float64)
        with torch.no_grad():
            for _ in range(self.horizon - 2):
                state = self._swing(state)
        return tuple(state[0].tolist())

    def energy(self, state: Tensor) -> Tensor:
        """Kinetic and potential energy, which swinging keeps.

        Args:
            state: Shape (B, 4).

        Returns:
            The energy in joules, 0 where the potential energy is that of the suspension; shape (B,).
        """
        angle1, speed1, angle2, speed2 = state.unbind(1)
        height1 = -self.length1 * angle1.cos()
        height2 = height1 - self.length2 * angle2.cos()
        along1, along2 = self.length1 * speed1, self.length2 * speed2
        square2 = along1**2 + along2**2 + 2 * along1 * along2 * (angle1 - angle2).cos()
        kinetic = (self.mass1 * along1**2 + self.mass2 * square2) / 2
        return kinetic + self.gravity * (self.mass1 * height1 + self.mass2 * height2)

    def _start(self, noise: Columns) -> tuple[float, ...]:
        return self.goal

    def _following(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Columns:
        swung = self._swing(torch.stack(x, 1)).unbind(1)
        released = (u[0], 0.0, self.angle_scale * self.goal_lower, 0.0)
        return tuple(torch.where(t == 0, new, free) for new, free in zip(released, swung, strict=True))

    def _reward(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Tensor:
        distance = sum((number - goal) ** 2 for number, goal in zip(x, self.goal, strict=True)) / 4
        return torch.where(t == self.horizon - 1, -distance, 0.0)

    def _swing(self, state: Tensor) -> Tensor:
        """One free step, shape (B, 4)."""
        h = self.dt / self.substeps
        for _ in range(self.substeps):
            k1 = self._rate(state)
            k2 = self._rate(state + h / 2 * k1)
            k3 = self._rate(state + h / 2 * k2)
            k4 = self._rate(state + h * k3)
            state = state + h / 6 * (k1 + 2 * (k2 + k3) + k4)
        return state

    def _rate(self, state: Tensor) -> Tensor:
        """Equations of motion, shape (B, 4)."""
        angle1, speed1, angle2, speed2 = state.unbind(1)
        delta = angle2 - angle1
        cosine, sine = delta.cos(), delta.sin()
        mass, mass2 = self.mass1 + self.mass2, self.mass2
        pull1, pull2 = self.gravity * angle1.sin(), self.gravity * angle2.sin()
        spin1, spin2 = self.length1 * speed1**2 * sine, self.length2 * speed2**2 * sine
        inertia = mass - mass2 * cosine**2
        force1 = mass2 * (cosine * (spin1 + pull2) + spin2) - mass * pull1
        force2 = mass * (pull1 * cosine - spin1 - pull2) - mass2 * spin2 * cosine
        return torch.stack([speed1, force1 / (self.length1 * inertia), speed2, force2 / (self.length2 * inertia)], 1)
