"""The faithful model has as many parameters as the authors' own, part by part, with 18 actions."""

from functools import cache

import pytest
import torch
from torch import nn

from learned_envs.twm.config import faithful
from learned_envs.twm.world_model import TransformerWorldModel

EXPECTED = {
    "observation_model.encoder": 3_126_992,
    "observation_model.decoder": 5_107_540,
    "observation_model": 8_234_532,
    "dynamics.transformer": 8_543_232,
    "dynamics.latent_embedding": 262_400,
    "dynamics.action_embedding": 4_608,
    "dynamics.reward_embedding": 512,
    "dynamics.latent_head": 1_444_864,
    "dynamics.reward_head": 263_425,
    "dynamics.discount_head": 263_425,
    "dynamics": 10_782_466,
    "": 19_016_998,
}


@cache
def _model() -> nn.Module:
    with torch.device("meta"):
        return TransformerWorldModel(faithful(18))


@pytest.mark.parametrize("part", EXPECTED, ids=lambda part: part or "whole")
def test_part_has_as_many_parameters_as_the_authors(part: str) -> None:
    assert sum(parameter.numel() for parameter in _model().get_submodule(part).parameters()) == EXPECTED[part]
