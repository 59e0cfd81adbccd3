"""The smallest task in which a plan made in advance earns nothing."""

import math
from dataclasses import dataclass

from torch import Tensor

from learned_envs.envs.real.systems.system import Bounds, Columns, System

__all__ = ["FuzzyBear"]


@dataclass(frozen=True, kw_only=True)
class FuzzyBear(System):
    """See which way the bear comes from, then run the other way (a counter-example in the authors' released code).

    State: one number. Action: one in [-1, 1]. Step t = 0 draws the state from a normal distribution; step t = 1 multiplies it by
    the action; the reward of step t = 2 is the state. The best second action is the sign of the state. A model that knows only
    actions predicts the mean of the state, 0, and from it no action earns anything.

    Args:
        deviation: Standard deviation of the state that is drawn; above 0.

    Raises:
        ValueError: If a parameter lies outside its range.
    """

    standard_horizon = 3

    horizon: int = 3
    duration: float = 3.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.horizon != 3 or self.deviation <= 0:
            raise ValueError(
                f"horizon is {self.horizon} and deviation is {self.deviation}, expected 3 and a number above 0."
            )

    @property
    def state_bounds(self) -> Bounds:
        """No bounds."""
        return ((-math.inf, math.inf),)

    @property
    def control_bounds(self) -> Bounds:
        """An action stands for itself."""
        return ((-1.0, 1.0),)

    @property
    def noise_size(self) -> int:
        """One draw a step; only the first counts."""
        return 1

    @property
    def optimum(self) -> float:
        """Mean return of the best policy: the mean size of the state that is drawn."""
        return self.deviation * math.sqrt(2 / math.pi)

    def _start(self, noise: Columns) -> tuple[float, ...]:
        return (0.0,)

    def _following(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Columns:
        drawn = (t == 0).to(x[0].dtype)
        return (drawn * self.deviation * noise[0] + (1 - drawn) * x[0] * u[0],)

    def _reward(self, x: Columns, u: Columns, t: Tensor, noise: Columns) -> Tensor:
        return (t == 2).to(x[0].dtype) * x[0]
