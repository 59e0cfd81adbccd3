"""Continuous-state world models with random weights, in double precision.

The weights are scaled so that actions matter for long and attention is not uniform: a test that compares two rollouts can
then tell them apart.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from learned_envs.awm.config import AwmConfig, BackboneName, Family, faithful
from learned_envs.awm.transformer import Transformer
from learned_envs.awm.world_model import AwmState, ContinuousWorldModel

__all__ = ["BATCH", "FORMS", "HORIZON", "NO_NOISE", "SEQUENCES", "every", "make", "plan", "play", "start_of", "tiny"]

BATCH, HORIZON = 3, 6
NO_NOISE = torch.zeros(BATCH, 0)
SEQUENCES: list[tuple[Family, BackboneName]] = [
    ("hwm", "rnn"),
    ("hwm", "lstm"),
    ("hwm", "transformer"),
    ("awm", "rnn"),
    ("awm", "lstm"),
    ("awm", "transformer"),
]
FORMS: list[tuple[Family, BackboneName]] = [("markov", "mlp"), *SEQUENCES]


def every(forms: list[tuple[Family, BackboneName]]) -> pytest.MarkDecorator:
    """Run a test for each of some families and backbones."""
    return pytest.mark.parametrize(("family", "backbone"), forms, ids=["-".join(form) for form in forms])


def tiny(family: Family, backbone: BackboneName, **changes) -> AwmConfig:
    """The released form in a size for tests: 3 numbers and a clock, 2 actions."""
    small = {"width": 12, "hidden": (16,), "reward_hidden": (8,)}
    return replace(faithful(family, 3, 2, HORIZON, backbone, reward="learned"), **small | changes)


def make(config: AwmConfig, reward: Callable[[Tensor, Tensor], Tensor] | None = None) -> ContinuousWorldModel:
    """A model with random weights and some scaling of its states, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ContinuousWorldModel(config, reward).double()
        for module in model.modules():
            if isinstance(module, Transformer):
                _sharpen(module)
        windows = torch.randn(50, 2, config.observation_dim).double() * 2 + 3
        model.fit_normalization(windows, torch.randn(50).double() * 5)
    return model.eval()


def _sharpen(transformer: Transformer) -> None:
    with torch.no_grad():
        for module in transformer.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight.mul_(20)


def start_of(model: ContinuousWorldModel, seed: int = 1) -> Tensor:
    """Start observations, shape (BATCH, n)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, model.config.observation_dim, generator=generator, dtype=torch.float64) + 3


def plan(model: ContinuousWorldModel, steps: int, seed: int = 2) -> Tensor:
    """Actions, shape (BATCH, steps, m); a shorter plan is the beginning of a longer one."""
    generator = torch.Generator().manual_seed(seed)
    actions = torch.rand(steps, BATCH, model.config.action_dim, generator=generator, dtype=torch.float64) * 2 - 1
    return actions.transpose(0, 1)


def play(model: ContinuousWorldModel, state: AwmState, actions: Tensor) -> tuple[Tensor, Tensor, AwmState]:
    """Go step by step: observations (B, L, n), rewards (B, L) and the last state."""
    observations, rewards = [], []
    for action in actions.unbind(1):
        state, prediction = model.step(state, action, NO_NOISE)
        observations.append(model.observe(state))
        rewards.append(prediction.reward)
    return torch.stack(observations, 1), torch.stack(rewards, 1), state
