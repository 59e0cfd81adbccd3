"""Sizes: the presets, what is refused, and the way through JSON."""

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from learned_envs.awm.config import AwmConfig, BackboneName, Family, compact, faithful
from learned_envs.awm.world_model import ContinuousWorldModel
from tests.awm.models import FORMS, every


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "mdp"}, "family is 'mdp'.*'markov', 'hwm', 'awm'"),
        ({"backbone": "s4"}, "backbone is 's4'.*'transformer'"),
        ({"backbone": "mlp"}, 'use "rnn", "lstm" or "transformer"'),
        ({"family": "markov"}, "a Markov model is"),
        ({"horizon": 0}, "horizon is 0, but must be at least 1"),
        ({"state_dim": 0}, "state_dim is 0"),
        ({"action_dim": -1}, "action_dim is -1"),
        ({"width": 50}, "width is 50, but must be a multiple of heads, 3"),
        ({"layers": 0}, "layers is 0"),
        ({"hidden": (64, 0)}, "hidden is"),
        ({"prediction": "ratio"}, "prediction is 'ratio'"),
        ({"reward": "none"}, "reward is 'none'"),
        ({"feedback_gradient": 1.5}, "feedback_gradient is 1.5"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(faithful("awm", 3, 1, 20), **changes)


@pytest.mark.parametrize("preset", [faithful, compact])
@every(FORMS)
def test_presets_survive_json_in_strict_mode(preset: Any, family: Family, backbone: BackboneName) -> None:
    config = preset(family, 3, 1, 20, backbone)
    adapter = TypeAdapter(AwmConfig)
    text = json.dumps(adapter.dump_python(config, mode="json"))
    assert adapter.validate_json(text, strict=True) == config
    with pytest.raises(ValidationError, match="horizon is -1"):
        adapter.validate_json(text.replace('"horizon": 20', '"horizon": -1'), strict=True)
    with pytest.raises(ValidationError):
        adapter.validate_json(text.replace('"horizon": 20', '"horizon": "20"'), strict=True)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _perceptron(*sizes: int) -> int:
    return sum(_linear(*pair) for pair in pairwise(sizes))


_D, _H = 48, 100
_GPT2 = 2 * (_linear(_D, 3 * _D) + _linear(_D, _D) + _perceptron(_D, 4 * _D, _D) + 2 * 2 * _D) + 2 * _D + (_H + 1) * _D


@pytest.mark.parametrize(
    ("family", "backbone", "expected"),
    [
        ("markov", "mlp", _perceptron(4 + 2, 64, 64, 3)),
        ("awm", "transformer", _linear(4, _D) + _linear(2, _D) + _GPT2 + _perceptron(_D, 64, 64, 3)),
        ("hwm", "transformer", _linear(4, _D) + _linear(4 + 2, _D) + _GPT2 + _perceptron(_D, 64, 64, 3)),
        (
            "awm",
            "rnn",
            _perceptron(4, 64, 64, _D) + _perceptron(2, 64, 64, _D) + _linear(2 * _D, _D) + _perceptron(_D, 64, 64, 3),
        ),
        (
            "hwm",
            "lstm",
            _perceptron(4, 64, 64, _D)
            + _perceptron(6, 64, 64, _D)
            + 4 * _linear(2 * _D, _D)
            + _perceptron(_D, 64, 64, 3),
        ),
    ],
)
def test_released_sizes_have_as_many_parameters_as_their_table_adds_up_to(
    family: Family, backbone: BackboneName, expected: int
) -> None:
    """States of 3 numbers and a clock, 2 actions."""
    model = ContinuousWorldModel(faithful(family, 3, 2, _H, backbone))
    assert sum(parameter.numel() for parameter in model.parameters()) == expected


def test_markov_models_are_networks_and_the_others_transformers_unless_told() -> None:
    assert faithful("markov", 3, 1, 20).backbone == "mlp"
    assert faithful("hwm", 3, 1, 20).backbone == compact("awm", 3, 1, 20).backbone == "transformer"
    assert faithful("awm", 3, 1, 20).reward == "known"
    assert compact("awm", 3, 1, 20).reward == "learned"
