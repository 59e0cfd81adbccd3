"""The bundled control problems against real episodes that nobody has seen."""

import json

import pytest
import torch

from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.catalog import BUNDLED, CATALOG
from learned_envs.pretrained import load_pretrained
from training.awm.episodes import record
from training.awm.gradient_fidelity import gradient_cosines
from training.awm.measure import measure_model
from training.awm.plans import mixed_plans
from training.experiments.myriad import SUITE

_IDS = sorted(id for id, item in CATALOG.items() if item.bundled and item.family == "awm")


def test_the_systems_that_are_worth_learning_are_bundled() -> None:
    wanted = {f"Learned{name}-v0" for name in (*SUITE, "OneBounce", "DoublePendulum", "CopyTask")}
    assert wanted <= set(_IDS)


@pytest.mark.parametrize("id", _IDS)
def test_states_returns_and_gradients_are_nearly_the_real_ones(id: str) -> None:
    pretrained = load_pretrained(id)
    model, system = pretrained.model, pretrained.system
    assert isinstance(model, ContinuousWorldModel) and system is not None
    torch.manual_seed(20261121)
    fresh = record(system, mixed_plans(system, 24, ("uniform", "steady", "ramp")))
    errors, cosines = measure_model(model, fresh), gradient_cosines(model, system, fresh)
    assert errors["state_error"] < 0.12 and errors["anywhere_error"] < 0.08
    assert errors["return_error"] < 0.15
    assert cosines.median() > 0.98


@pytest.mark.parametrize("id", _IDS)
def test_policy_trained_inside_earned_nearly_the_optimum_outside(id: str) -> None:
    fidelity = json.loads((BUNDLED / id / "fidelity.json").read_text())
    assert fidelity["transfer"]["normalized"] >= 0.9


def test_all_of_them_together_are_small() -> None:
    size = sum(path.stat().st_size for id in _IDS for path in (BUNDLED / id).iterdir())
    assert size < 8 * 2**20
