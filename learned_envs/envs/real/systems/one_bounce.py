"""A ball that is thrown at a wall: one action, one bounce, and a kink in the return."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from learned_envs.envs.real.systems.system import Bounds, Columns, Fixed, System

__all__ = ["OneBounce"]


@dataclass(frozen=True, kw_only=True)
class OneBounce(System):
    """Throw a ball so that it bounces off the wall and comes to rest at the goal.

    State: position and velocity of the ball, positions of wall and goal. Action: the first one sets the velocity, from -30 at
    action -1 to -10 at action 1; all later ones are ignored. Source: Ma et al., ICML 2024, the task with non-smooth dynamics,
    as in their released code, which leaves goal and horizon free: the defaults are ours.

    Step t = 0 puts the ball at 0 with the chosen velocity v. In every later step, if x + v dt is at or beyond the wall, the
    ball is reflected without friction, x = 2 wall - (x + v dt) and v = -v; else x = x + v dt and v = (1 - friction dt) v. The
    reward is 0 but for the last step, t = H - 1, where it is -(x - goal)^2, read on the state *before* that step's
    transition, as the released code has it.

    In continuous time x would end near -a, so the best action is about -goal. A gradient through a step follows the
    branch taken, and does not see that another action would take the other.

    Args:
        friction: Loss of velocity per second; ``friction * dt`` at most 1.
        wall: Position of the wall; below 0.
        goal: Position where the ball shall end. It is part of the state, so an episode may also be given its own.

    Raises:
        ValueError: If a parameter lies outside its range.
    """

    duration: float = 1.0
    fixed: Fixed = "dt"
    friction: float = 10.0
    wall: float = -1.0
    goal: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.friction * self.dt <= 1:
            raise ValueError(
                f"friction is {self.friction} and a step lasts {self.dt}, but their product must lie in [0, 1]. "
                'Use more steps, or fixed="dt".'
            )
        if self.wall >= 0:
            raise ValueError(f"wall is {self.wall}, but must be below 0, where the ball starts.")

    @property
    def state_bounds(self) -> Bounds:
        """No bounds: a given state may put ball, wall and goal anywhere."""
        return ((-math.inf, math.inf),) * 4

    @property
    def control_bounds(self) -> Bounds:
        """Velocities of the throw."""
        return ((-30.0, -10.0),)

    def _start(self, noise: Columns) -> tuple[float, ...]:
        return (0.0, 0.0, self.wall, self.goal)

    def _following(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Columns:
        ball, velocity, wall, goal = x
        ahead = ball + velocity * self.dt
        bounces, throws = ahead <= wall, t == 0
        reached = torch.where(bounces, 2 * wall - ahead, ahead)
        slowed = torch.where(bounces, -velocity, velocity * (1 - self.friction * self.dt))
        return (torch.where(throws, 0.0, reached), torch.where(throws, u[0], slowed), wall, goal)

    def _reward(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Tensor:
        ball, _, _, goal = x
        return torch.where(t == self.horizon - 1, -((ball - goal) ** 2), 0.0)
