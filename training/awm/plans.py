"""Ways to act without looking, so that what is recorded of a system is varied: plans of each kind reach other states.

All randomness comes from the global generator. Letters: N plans, H steps, m numbers in an action.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from learned_envs.envs.real.systems import System
from training.awm.episodes import uniform_plans

__all__ = ["PLANS", "PlanKind", "mixed_plans"]

PlanKind = Literal["uniform", "held", "extreme", "steady", "ramp"]
_HOLDS = 5  # levels in an episode, on average
_MOST_WOBBLE = 0.3  # deviation around a steady level, at most


def mixed_plans(system: System, count: int, kinds: tuple[PlanKind, ...]) -> Tensor:
    """Plans of several kinds in equal shares, in [-1, 1], shape (count, H, m)."""
    shares = [len(range(place, count, len(kinds))) for place in range(len(kinds))]
    return torch.cat([PLANS[kind](system, share) for kind, share in zip(kinds, shares, strict=True)])


def _held(system: System, count: int) -> Tensor:
    """Uniform levels, each held for a random time."""
    return _hold(uniform_plans(system, count))


def _extreme(system: System, count: int) -> Tensor:
    """The lower and the upper bound, each held for a random time: bang-bang control."""
    return _hold(uniform_plans(system, count).sign())


def _steady(system: System, count: int) -> Tensor:
    """One uniform level with noise of a size of its own."""
    plans = uniform_plans(system, count)
    wobble = torch.rand(count, 1, 1) * _MOST_WOBBLE
    return (plans[:, :1] + wobble * torch.randn_like(plans)).clamp(-1, 1)


def _ramp(system: System, count: int) -> Tensor:
    """An even way from one uniform level to another."""
    plans = uniform_plans(system, count)
    return plans[:, :1].lerp(plans[:, -1:], torch.linspace(0, 1, system.horizon).view(1, -1, 1))


def _hold(plans: Tensor) -> Tensor:
    """The same plans, in which most actions repeat the one before."""
    horizon = plans.shape[1]
    changes = torch.rand_like(plans) < _HOLDS / horizon
    changes[:, 0] = True
    newest = torch.where(changes, torch.arange(horizon).view(1, -1, 1), 0).cummax(1).values
    return plans.gather(1, newest)


PLANS: dict[PlanKind, Callable[[System, int], Tensor]] = {
    "uniform": uniform_plans,
    "held": _held,
    "extreme": _extreme,
    "steady": _steady,
    "ramp": _ramp,
}
"""Functions of a system and a number of plans, by the names that recipes give them."""
