"""Plans of every kind: within bounds, as different as they say."""

import pytest
import torch

from learned_envs.envs.real.systems import make_system
from training.awm.plans import PLANS, PlanKind, mixed_plans

SYSTEM = make_system("BearPopulations", horizon=40)
every_kind = pytest.mark.parametrize("kind", PLANS)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@every_kind
def test_plans_have_the_shape_and_bounds_of_actions(kind: PlanKind) -> None:
    plans = PLANS[kind](SYSTEM, 30)
    assert plans.shape == (30, 40, 2) and bool((plans.abs() <= 1).all())
    assert len(plans.flatten(1).unique(dim=0)) == 30, "each is another"


def test_held_levels_change_about_five_times_an_episode() -> None:
    plans = PLANS["held"](SYSTEM, 300)
    changes = (plans.diff(dim=1) != 0).sum(1).float()
    assert 4 < changes.mean() < 6
    assert not torch.equal(plans[..., 0], plans[..., 1]), "each control at its own times"


def test_extreme_plans_know_only_the_bounds() -> None:
    assert PLANS["extreme"](SYSTEM, 50).unique().tolist() == [-1, 1]


def test_steady_plans_reach_every_level_and_stay_near_it() -> None:
    plans = PLANS["steady"](SYSTEM, 300)
    assert plans.mean(1).std() > 0.5 and plans.std(1).max() < 0.4


def test_ramps_are_even() -> None:
    plans = PLANS["ramp"](SYSTEM, 20)
    assert torch.allclose(plans.diff(dim=1).diff(dim=1), torch.zeros(()), atol=1e-5)
    assert plans.diff(dim=1).sum(1).abs().max() > 0.5


def test_mixtures_have_equal_shares() -> None:
    plans = mixed_plans(SYSTEM, 10, ("extreme", "ramp"))
    bang = (plans.abs() == 1).all(-1).all(-1)
    assert bang.tolist() == [True] * 5 + [False] * 5
    assert len(mixed_plans(SYSTEM, 7, ("uniform", "ramp"))) == 7
