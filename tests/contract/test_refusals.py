"""A mistake gets a named error that tells what was wrong and what is expected."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from learned_envs.envs.vector import EnvState, LearnedVectorEnv
from tests.contract.vector_checker import Subject


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"num_envs": 0}, ["num_envs is 0", "at least 1"]),
        ({"num_envs": -3}, ["num_envs is -3", "at least 1"]),
        ({"device": "toaster"}, ["device 'toaster'", "cpu"]),
        ({"output": "jax"}, ["output is 'jax'", '"numpy"', '"torch"']),
        ({"starts": "middle"}, ["starts is 'middle'", '"initial"', '"anywhere"']),
        ({"render_mode": "human"}, ["render_mode is 'human'", '"rgb_array"']),
        ({"max_episode_steps": 0}, ["max_episode_steps is 0", "at least 1"]),
        ({"autoreset_mode": "same_step"}, ["autoreset_mode is 'same_step'", '"SameStep"', '"NextStep"', '"Disabled"']),
        ({"differentiable": True, "output": "numpy"}, ["differentiable", '"torch"']),
        ({"revision": "main"}, ["revision is 'main'", "Leave it out"]),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_wrong_argument_of_a_batch(subject: Subject, keywords: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        subject.vector(**{"num_envs": 2, **keywords})
    _expect_words(raised.value, words)


@pytest.mark.filterwarnings("ignore:.*render_mode.*")  # Gymnasium warns before we refuse
@pytest.mark.parametrize("keywords", [{"render_mode": "ansi"}, {"starts": "middle"}, {"device": "toaster"}])
def test_wrong_argument_of_a_single_environment(subject: Subject, keywords: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(keywords.values()))):
        subject.single(disable_env_checker=True, **keywords)


def test_unknown_argument_is_not_swallowed(subject: Subject) -> None:
    with pytest.raises(TypeError, match="colour"):
        subject.vector(2, colour="red")
    with pytest.raises(TypeError, match="colour"):
        subject.single(colour="red")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there, so asking for it is no mistake")
def test_absent_gpu_is_named_and_the_cpu_offered(subject: Subject) -> None:
    with pytest.raises(ValueError, match=r"device 'cuda' is not available.*device=\"cpu\""):
        subject.vector(1, device="cuda")


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.zeros(2, np.int64), ["shape (2,)", "(3,)", "one action for each environment"]),
        (np.zeros((3, 1), np.int64), ["shape (3, 1)", "(3,)"]),
        (np.int64(0), ["shape ()", "(3,)"]),
        (np.zeros(3, np.float32), ["float32", "3 integers"]),
        (np.array([0, 1, 1000]), ["1000", "from 0 to"]),
        (np.array([0, -1, 1]), ["-1", "from 0 to"]),
        (np.array([2**64 - 1, 0, 0], np.uint64), ["from 0 to"]),
    ],
    ids=["too-few", "a-column", "a-scalar", "floats", "too-large", "negative", "huge-unsigned"],
)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_wrong_actions(subject: Subject, actions: np.ndarray, words: list[str], kind: str) -> None:
    env = subject.vector(3)
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError) as raised:
        env.step(torch.from_numpy(np.asarray(actions)) if kind == "torch" else actions)
    _expect_words(raised.value, ["actions", *words])
    _expect_same_state(env, before)


def test_wrong_probabilities(subject: Subject) -> None:
    env = subject.vector(2, output="torch", differentiable=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions has dtype torch.float32 and shape \(2, 1\).*probabilities of shape"):
        env.step(torch.zeros(2, 1))


def test_wrong_action_of_a_single_environment(subject: Subject) -> None:
    env = subject.single(disable_env_checker=True)
    env.reset(seed=0)
    for action in (1000, -1, 0.5, np.zeros(2, np.int64)):
        with pytest.raises(ValueError, match="actions"):
            env.step(action)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observations": np.zeros((2, 4, 64, 64), np.uint8)}, ["observations has shape (2, 4, 64, 64)", "T >= 1"]),
        ({"observations": np.zeros((2, 3, 4, 32, 32), np.uint8)}, ["observations has shape", "64, 64"]),
        ({"observations": np.zeros(7, np.uint8)}, ["observations has shape (7,)"]),
        ({"observations": np.zeros((2, 0, 4, 64, 64), np.uint8)}, ["observations has shape", "T >= 1"]),
        ({"observations": np.zeros((3, 3, 4, 64, 64), np.uint8)}, ["observations has 3 rows", "expected 2"]),
        ({"observations": np.zeros((2, 3, 4, 64, 64), np.float32)}, ["observations has dtype", "float32", "uint8"]),
        ({"observations": None}, ["no observations"]),
        ({"actions": None}, ["3 observations", "no actions", "(2, 2)"]),
        ({"actions": np.zeros((2, 3), np.int64)}, ["actions has shape (2, 3)", "(2, 2)"]),
        ({"actions": np.zeros((2, 2), np.float32)}, ["actions has dtype", "float32", "integers"]),
        ({"actions": np.full((2, 2), 500)}, ["actions", "500"]),
        ({"actions": np.full((2, 2), -1)}, ["actions", "-1"]),
        ({"rewards": np.zeros((2, 3), np.float32)}, ["rewards has shape (2, 3)", "(2, 2)"]),
        ({"rewards": np.zeros(2, np.float32)}, ["rewards has shape (2,)", "(2, 2)"]),
        ({"frames": np.zeros(1)}, ["unknown key 'frames'", "observations", "reset_mask"]),
    ],
)
def test_wrong_context(subject: Subject, change: dict[str, Any], words: list[str]) -> None:
    env = subject.vector(2)
    env.reset(seed=0)
    before = env.get_state()
    options = {
        "observations": np.zeros((2, 3, 4, 64, 64), np.uint8),
        "actions": np.zeros((2, 2), np.int64),
        "rewards": np.zeros((2, 2), np.float32),
    }
    with pytest.raises(ValueError) as raised:
        env.reset(options=options | change)
    _expect_words(raised.value, words)
    _expect_same_state(env, before)


def test_rewards_of_a_context_may_be_left_out(subject: Subject) -> None:
    """Left out means zero, and integers of any width are actions."""
    given, left_out = subject.vector(1), subject.vector(1)
    context = {"observations": np.zeros((1, 3, 4, 64, 64), np.uint8), "actions": np.ones((1, 2), np.uint8)}
    given.reset(seed=0, options=context | {"rewards": np.zeros((1, 2), np.int64)})
    left_out.reset(seed=0, options=context)
    _expect_same_state(given, left_out.get_state())


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros(2, bool), ["False everywhere"]),
        (np.ones(3, bool), ["(3,)", "(2,)"]),
        (np.array([1, 0]), ["int64", "bool"]),
    ],
)
def test_wrong_reset_mask(subject: Subject, mask: np.ndarray, words: list[str]) -> None:
    env = subject.vector(2)
    env.reset(seed=0)
    with pytest.raises(ValueError) as raised:
        env.reset(options={"reset_mask": mask})
    _expect_words(raised.value, ["reset_mask", *words])


def test_partial_reset_before_the_first_whole_one(subject: Subject) -> None:
    with pytest.raises(ValueError, match="never reset"):
        subject.vector(2).reset(options={"reset_mask": np.array([True, False])})


@pytest.mark.parametrize("seed", [[1], [1, 2, 3], np.array([5])], ids=str)
def test_wrong_number_of_seeds(subject: Subject, seed: Any) -> None:
    with pytest.raises(ValueError, match=r"seed has . entries, expected 2"):
        subject.vector(2).reset(seed=seed)


def test_step_before_reset(subject: Subject) -> None:
    for env, action in ((subject.vector(2), np.zeros(2, np.int64)), (subject.bare(), 0)):
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            env.step(action)
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            env.get_state()


def test_stepping_ended_environments_without_autoreset(subject: Subject) -> None:
    env = subject.vector(2, autoreset_mode=AutoresetMode.DISABLED, max_episode_steps=1)
    env.reset(seed=0)
    env.step(np.zeros(2, np.int64))
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gym.error.ResetNeeded, match=r"Environments \[1\] have ended.*reset_mask"):
        env.step(np.zeros(2, np.int64))
    env.reset(options={"reset_mask": np.array([False, True])})
    env.step(np.zeros(2, np.int64))


def test_state_of_another_size(subject: Subject) -> None:
    small, large = subject.vector(2), subject.vector(3)
    small.reset(seed=0)
    with pytest.raises(ValueError, match="state holds 2 environments, expected 3"):
        large.set_state(small.get_state())


def _expect_words(error: Exception, words: list[str]) -> None:
    for word in words:
        assert word in str(error), f"the message {str(error)!r} does not say {word!r}"


def _expect_same_state(env: LearnedVectorEnv, expected: EnvState) -> None:
    """A refused call has changed nothing."""
    state = env.get_state()
    for (name, mine), (_, theirs) in zip(state.tensors(), expected.tensors(), strict=True):
        assert torch.equal(mine, theirs), f"{name} was changed"
