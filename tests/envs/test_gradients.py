"""Gradients through the environment of a control problem: those of the model, to actions and to the start."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

import learned_envs
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.envs.vector import LearnedVectorEnv
from tests.tiny import CONTROL_HORIZON, CONTROLS

BATCH, STEPS = 3, 12  # past two windows of the models


@pytest.fixture(params=CONTROLS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each form of model in turn."""
    return request.param


@pytest.fixture
def folder(kind: str, tiny_snapshots: dict[str, Path]) -> Path:
    """Its snapshot."""
    return tiny_snapshots[kind]


def _make(folder: Path, **keywords: Any) -> LearnedVectorEnv:
    settings = {"num_envs": BATCH, "output": "torch", "differentiable": True, **keywords}
    env = gym.make_vec("learned_envs:Learned-v0", model=str(folder), **settings)
    assert isinstance(env, LearnedVectorEnv)
    return env


def _plan(env: LearnedVectorEnv, steps: int = STEPS) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(steps, BATCH, *(env.single_action_space.shape or ()), generator=generator) * 2 - 1


def _start(env: LearnedVectorEnv) -> Tensor:
    """Recorded observations, one for each environment, none of them at a bound."""
    return env.pretrained.starts.contexts("anywhere")[0][:BATCH, 0].clone()


def _score(observations: Tensor, rewards: Tensor) -> Tensor:
    """Something in which every reward and every observation counts, as much as any other."""
    unit = observations.detach().abs().amax((0, 1)).clamp_min(1)
    return (rewards / rewards.detach().abs().max()).sum() + (observations / unit).sin().sum()


def _through_env(env: LearnedVectorEnv, start: Tensor, plan: Tensor) -> tuple[Tensor, Tensor]:
    env.reset(options={"observations": start.unsqueeze(1)})
    steps = [env.step(action) for action in plan]
    return torch.stack([step[0] for step in steps], 1), torch.stack([step[1] for step in steps], 1)


def test_gradients_are_those_of_the_model(kind: str, folder: Path) -> None:
    """The model is differentiated in double precision, and in one pass a window."""
    env, model = _make(folder), learned_envs.load(folder)
    assert isinstance(model, ContinuousWorldModel)
    start, plan = _start(env).requires_grad_(), _plan(env).requires_grad_()
    told = _through_env(env, start, plan)
    mine = torch.autograd.grad(_score(*told), (start, plan))
    again, actions = start.detach().double().requires_grad_(), plan.detach().double().requires_grad_()
    imagined = model.double().imagine(again, actions.transpose(0, 1))
    theirs = torch.autograd.grad(_score(*imagined), (again, actions))
    for name, seen, wanted in zip(("observations", "rewards"), told, imagined, strict=True):
        assert (seen - wanted).abs().max() <= 1e-4 * wanted.abs().max(), name
    for name, seen, wanted in zip(("start", "actions"), mine, theirs, strict=True):
        assert (seen - wanted).abs().max() <= 1e-3 * wanted.abs().max(), name
        assert (wanted != 0).any(), f"{name}: nothing to compare"


def test_first_action_counts_until_the_last_step(kind: str, folder: Path) -> None:
    env = _make(folder)
    first, *others = (action.requires_grad_() for action in _plan(env, 5))
    env.reset(seed=0)
    env.step(first)
    observations = torch.zeros(())
    for action in others:
        observations = env.step(action)[0]
    (gradient,) = torch.autograd.grad(observations.sum(), first)
    assert gradient.isfinite().all()
    if kind != "markov-mlp":  # three of its populations may all lie at a bound
        assert (gradient != 0).any()


def test_start_is_cut_off_in_a_plain_environment(folder: Path) -> None:
    env = _make(folder, differentiable=False)
    start, plan = _start(env).requires_grad_(), _plan(env, 2).requires_grad_()
    observations, rewards = _through_env(env, start, plan)
    assert not observations.requires_grad and not rewards.requires_grad
    assert not any(tensor.requires_grad for _, tensor in env.get_state().tensors())


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.name.lower())
def test_no_gradient_leaks_through_a_reset(folder: Path, mode: AutoresetMode) -> None:
    env = _make(folder, autoreset_mode=mode, max_episode_steps=2)
    env.reset(seed=0)
    plan = [action.requires_grad_() for action in _plan(env, 5)]
    steps = [env.step(action) for action in plan]
    told = steps[4][0].sum() + steps[4][1].sum()  # in a later episode in either mode
    for gradient in torch.autograd.grad(told, plan[:2], allow_unused=True):
        assert gradient is None or (gradient == 0).all()


def test_state_of_a_differentiable_environment_brings_no_graph_into_a_plain_one(folder: Path) -> None:
    env, plain = _make(folder), _make(folder, differentiable=False)
    env.reset(seed=0)
    env.step(_plan(env, 1)[0].requires_grad_())
    assert any(tensor.requires_grad for _, tensor in env.get_state().tensors())
    plain.set_state(env.get_state())
    assert not any(tensor.requires_grad for _, tensor in plain.get_state().tensors())


def test_episode_that_is_begun_later_ends_at_the_horizon(folder: Path) -> None:
    env = _make(folder, autoreset_mode=AutoresetMode.SAME_STEP)
    system = env.pretrained.system
    assert system is not None
    start = _start(env)
    start[:, system.state_dim] = torch.tensor([0.0, 10.0, CONTROL_HORIZON - 2])
    env.reset(seed=0, options={"observations": start.unsqueeze(1)})
    ends: list[list[int]] = [[], [], []]
    for step in range(1, CONTROL_HORIZON + 1):
        _, _, terminated, truncated, infos = env.step(_plan(env, 1)[0])
        assert not terminated.any()
        for index in truncated.nonzero().flatten().tolist():
            ends[index].append(step)
            assert int(infos["episode"]["l"][index]) == step, "the steps played"
    assert [end[0] for end in ends] == [CONTROL_HORIZON, CONTROL_HORIZON - 10, 2]


def test_observations_stay_in_the_space_of_the_real_environment(folder: Path) -> None:
    env = _make(folder, differentiable=False, output="numpy")
    assert isinstance(env.world_model, ContinuousWorldModel)
    env.world_model.target_normalizer.scale.mul_(5)
    observations, _ = env.reset(seed=0)
    predicted = []
    for action in _plan(env, 10).numpy():
        assert observations in env.observation_space
        observations = env.step(action)[0]
        predicted.append(env.get_state().model.observation.numpy())  # type: ignore[attr-defined]
    assert np.isfinite(predicted).all()
    if np.isfinite(env.pretrained.observation_space.high).all():
        assert any(step not in env.observation_space for step in predicted), "no bound was reached"


def test_real_twin_has_the_same_spaces_and_horizon(kind: str, folder: Path) -> None:
    env, real = gym.make("learned_envs:Learned-v0", model=str(folder)), learned_envs.make_real(folder)
    assert real.observation_space == env.observation_space and real.action_space == env.action_space
    reals = learned_envs.make_real_vec(folder, 2, output="torch")
    assert reals.single_observation_space == env.observation_space
    for face in (env, real):
        face.reset(seed=0)
        over = [face.step(np.zeros(face.action_space.shape or (), np.float32))[3] for _ in range(CONTROL_HORIZON)]
        assert over.index(True) == CONTROL_HORIZON - 1
    reals.reset(seed=0)
    assert [bool(reals.step(torch.zeros(2, *(env.action_space.shape or ())))[3].any()) for _ in range(2)] == [False] * 2


def test_real_twin_without_a_snapshot_is_as_the_catalogue_says() -> None:
    real = learned_envs.make_real("LearnedDoublePendulum-v0")
    assert real.spec is not None and real.spec.id == "DoublePendulum-v0"
    real.reset(seed=0)
    assert [real.step(np.zeros(1, np.float32))[3] for _ in range(10)].index(True) == 9
    short = learned_envs.make_real("LearnedDoublePendulum-v0", horizon=3, max_episode_steps=2)
    short.reset(seed=0)
    assert [short.step(np.zeros(1, np.float32))[3] for _ in range(2)] == [False, True]
    assert learned_envs.make_real_vec("LearnedHIVTreatment-v0", 2).num_envs == 2
    with pytest.raises(ValueError, match="num_envs is 0"):
        learned_envs.make_real_vec("LearnedHIVTreatment-v0", 0)
    with pytest.raises(gym.error.NameNotFound, match="LearnedHIVTreatment"):
        learned_envs.make_real("LearnedHIVTreatmnt-v0")
