"""A mistake gets a named error that tells what was wrong and what is expected."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from learned_envs.envs.batched import BatchedEnv, EnvState
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.errors import MissingModelError
from learned_envs.pretrained import load_pretrained
from tests.contract.vector_checker import Subject, random_context, steady_action, still


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"num_envs": 0}, ["num_envs is 0", "at least 1"]),
        ({"num_envs": -3}, ["num_envs is -3", "at least 1"]),
        ({"device": "toaster"}, ["device 'toaster'", "cpu"]),
        ({"output": "jax"}, ["output is 'jax'", '"numpy"', '"torch"']),
        ({"starts": "middle"}, ["starts is 'middle'", '"initial"', '"anywhere"']),
        ({"render_mode": "human"}, ["render_mode is 'human'", "expected None"]),
        ({"max_episode_steps": 0}, ["max_episode_steps is 0", "at least 1"]),
        ({"max_episode_steps": 2.5}, ["max_episode_steps is 2.5", "whole number"]),
        ({"autoreset_mode": "same_step"}, ["autoreset_mode is 'same_step'", '"SameStep"', '"NextStep"', '"Disabled"']),
        ({"differentiable": True, "output": "numpy"}, ["differentiable", '"torch"']),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_wrong_argument_of_a_batch(subject: Subject, keywords: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        subject.vector(**{"num_envs": 2, **keywords})
    _expect_words(raised.value, words)


def test_revision_of_what_the_hub_cannot_have(subject: Subject) -> None:
    of_folder = bool(subject.keywords)  # by its id, a bundled model has revisions on the Hub, which tests do not reach
    words = ["revision is 'main'", "Leave it out"] if of_folder else ["at revision main is not in the cache"]
    with pytest.raises(ValueError if of_folder else MissingModelError) as raised:
        subject.vector(2, revision="main")
    _expect_words(raised.value, words)


def test_revision_of_a_model_that_is_loaded_already() -> None:
    loaded = load_pretrained("LearnedCopyTask-v0")
    with pytest.raises(ValueError, match="revision is 'v1', but the model is loaded already"):
        LearnedVectorEnv(loaded, 2, revision="v1")


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
def test_wrong_actions(game: Subject, actions: np.ndarray, words: list[str], kind: str) -> None:
    _expect_refused_actions(game, actions, words, kind)


def _with(value: float) -> Callable[[np.ndarray], np.ndarray]:
    """Puts a value among others."""

    def change(actions: np.ndarray) -> np.ndarray:
        actions = actions.copy()
        actions.flat[1] = value
        return actions

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda actions: actions[:2], ["actions has shape (2, ", "one action for each environment"]),
        (lambda actions: actions[:, :, None], ["actions has shape (3, "]),
        (lambda actions: actions[:, 0], ["actions has shape (3,)"]),
        (lambda actions: actions.astype(bool), ["actions has dtype torch.bool", "float32"]),
        (lambda actions: actions.astype(np.complex64), ["actions has dtype torch.complex64", "float32"]),
        (_with(1.5), ["actions contains 1.5", "[-1, 1]", "Clip"]),
        (_with(-1.001), ["actions contains -1.001", "[-1, 1]"]),
        (_with(np.nan), ["actions contains nan", "[-1, 1]"]),
        (_with(-np.inf), ["actions contains -inf", "[-1, 1]"]),
    ],
    ids=["too-few", "a-dimension-more", "a-dimension-less", "bool", "complex", "above", "below", "nan", "infinite"],
)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_wrong_numbers_as_actions(
    control: Subject, change: Callable[[np.ndarray], np.ndarray], words: list[str], kind: str
) -> None:
    _expect_refused_actions(control, change(still(control.vector(3))), words, kind)


def _expect_refused_actions(subject: Subject, actions: np.ndarray, words: list[str], kind: str) -> None:
    env = subject.vector(3)
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError) as raised:
        env.step(torch.from_numpy(np.asarray(actions)) if kind == "torch" else actions)
    _expect_words(raised.value, ["actions", *words])
    _expect_same_state(env, before)


def test_wrong_probabilities(game: Subject) -> None:
    env = game.vector(2, output="torch", differentiable=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"actions has dtype torch.float32 and shape \(2, 1\).*probabilities of shape"):
        env.step(torch.zeros(2, 1))


def test_wrong_action_of_a_single_environment(subject: Subject) -> None:
    env = subject.single(disable_env_checker=True)
    env.reset(seed=0)
    shape = env.action_space.shape or ()
    wrong = (1000, -1, 0.5) if shape == () else (np.full(shape, 2.0), np.full(shape, np.nan), 0.0)
    for action in (*wrong, np.zeros((7, *shape), np.int64)):
        with pytest.raises(ValueError, match="action"):
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
def test_wrong_context(game: Subject, change: dict[str, Any], words: list[str]) -> None:
    options = {
        "observations": np.zeros((2, 3, 4, 64, 64), np.uint8),
        "actions": np.zeros((2, 2), np.int64),
        "rewards": np.zeros((2, 2), np.float32),
    }
    _expect_refused_context(game, options | change, words)


def _spoil(column: int, value: float, step: int = -1) -> Callable[[np.ndarray], np.ndarray]:
    """Puts a value into a number of the second environment's observation."""

    def change(observations: np.ndarray) -> np.ndarray:
        observations = observations.copy()
        observations[1, step, column] = value
        return observations

    return change


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("observations", lambda given: given[:, 0], ["observations has shape", "T >= 1"]),
        ("observations", lambda given: given[:, :, 1:], ["observations has shape"]),
        ("observations", lambda given: given[:, :0], ["observations has shape", "T >= 1"]),
        ("observations", lambda given: given[:1], ["observations has 1 rows", "expected 2"]),
        ("observations", lambda given: given.astype(np.float64), ["observations has dtype torch.float64", "float32"]),
        ("observations", lambda given: given.astype(np.uint8), ["observations has dtype torch.uint8", "float32"]),
        ("observations", _spoil(0, np.nan), ["observations has nan as number 0 of state 1"]),
        ("observations", _spoil(0, np.inf), ["observations has inf as number 0 of state 1"]),
        ("observations", _spoil(0, np.nan, step=1), ["NaN"]),
        ("actions", lambda given: None, ["3 observations", "no actions"]),
        ("actions", lambda given: given[:, :1], ["actions has shape"]),
        ("actions", lambda given: given[:, :, 0], ["actions has shape (2, 2)"]),
        ("actions", lambda given: given > 0, ["actions has dtype torch.bool"]),
        ("actions", lambda given: given + 3, ["actions contains", "[-1, 1]"]),
        ("actions", lambda given: given * np.nan, ["actions contains nan"]),
        ("rewards", lambda given: given[:, :1], ["rewards has shape (2, 1)", "(2, 2)"]),
        ("rewards", lambda given: given * np.nan, ["NaN"]),
    ],
)
def test_wrong_context_of_numbers(control: Subject, name: str, change: Callable[..., Any], words: list[str]) -> None:
    options = random_context(control.vector(2), 3)
    _expect_refused_context(control, options | {name: change(options[name])}, words)


@pytest.mark.parametrize("clock", [-1.0, 4.5, None, np.nan], ids=["before", "between", "end", "nan"])
def test_context_at_no_step_of_an_episode(control: Subject, clock: float | None) -> None:
    env = control.vector(2)
    horizon = env.max_episode_steps
    options = random_context(env, 2)
    place = env.pretrained.system.state_dim  # type: ignore[attr-defined]
    options["observations"] = _spoil(place, float(horizon) if clock is None else clock)(options["observations"])
    _expect_refused_context(control, options, ["observations has the step ", f"from 0 to {horizon - 1}"])


def test_context_of_those_that_stay_is_not_looked_at(control: Subject) -> None:
    env = control.vector(2)
    env.reset(seed=0)
    before, options = env.get_state(), random_context(env, 2)
    for name in ("observations", "actions", "rewards"):
        options[name][0] = np.nan
    env.reset(options=options | {"reset_mask": np.array([False, True])})
    after = env.get_state()
    stayed = torch.tensor([0])
    for (name, mine), (_, theirs) in zip(after.take(stayed).tensors(), before.take(stayed).tensors(), strict=True):
        assert torch.equal(mine, theirs), name
    assert all(bool(tensor.isfinite().all()) for _, tensor in after.tensors())


def _expect_refused_context(subject: Subject, options: dict[str, Any], words: list[str]) -> None:
    env = subject.vector(2)
    env.reset(seed=0)
    before = env.get_state()
    with pytest.raises(ValueError) as raised:
        env.reset(options=options)
    _expect_words(raised.value, words)
    _expect_same_state(env, before)


def test_rewards_of_a_context_may_be_left_out(subject: Subject) -> None:
    """Left out means zero, and numbers of any width are actions."""
    given, left_out = subject.vector(1), subject.vector(1)
    context = random_context(given, 3)
    other = np.uint8 if context["actions"].dtype == np.int64 else np.float64
    given.reset(seed=0, options=context | {"rewards": np.zeros((1, 2), np.int64)})
    left_out.reset(
        seed=0, options={"observations": context["observations"], "actions": context["actions"].astype(other)}
    )
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


def test_seed_that_is_no_whole_number(subject: Subject) -> None:
    env = subject.vector(2)
    env.reset(seed=0)
    state = env.get_state()
    seeds: list[Any] = [3.5, -1, [1, 3.7], [-1, 2], np.array([1.0, 2.0]), "12"]
    for seed in seeds:
        with pytest.raises(ValueError, match=r"A seed is .*, expected a whole number of at least 0"):
            env.reset(seed=seed)
        _expect_same_state(env, state)


def test_seed_may_be_an_array_of_one_number(subject: Subject) -> None:
    env = subject.vector(2)
    assert np.array_equal(env.reset(seed=np.array(3))[0], env.reset(seed=[3, 4])[0])


def test_step_before_reset(subject: Subject) -> None:
    batch, single = subject.vector(2), subject.bare()
    for env, action in ((batch, still(batch)), (single, steady_action(single, 0))):
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            env.step(action)
        with pytest.raises(gym.error.ResetNeeded, match="reset"):
            env.get_state()


def test_stepping_ended_environments_without_autoreset(subject: Subject) -> None:
    env = subject.vector(2, autoreset_mode=AutoresetMode.DISABLED, max_episode_steps=1)
    env.reset(seed=0)
    env.step(still(env))
    env.reset(options={"reset_mask": np.array([True, False])})
    with pytest.raises(gym.error.ResetNeeded, match=r"Environments \[1\] have ended.*reset_mask"):
        env.step(still(env))
    env.reset(options={"reset_mask": np.array([False, True])})
    env.step(still(env))


def test_state_of_another_size(subject: Subject) -> None:
    small, large = subject.vector(2), subject.vector(3)
    small.reset(seed=0)
    with pytest.raises(ValueError, match="state holds 2 environments, expected 3"):
        large.set_state(small.get_state())


def test_state_of_another_model(subject: Subject, tiny_snapshots: dict[str, Path]) -> None:
    other = "awm-transformer" if "compact" in subject.name else "compact"
    stranger = gym.make_vec("learned_envs:Learned-v0", num_envs=2, model=str(tiny_snapshots[other]))
    assert isinstance(stranger, BatchedEnv)
    stranger.reset(seed=0)
    for begun in (False, True):
        env = subject.vector(2)
        if begun:
            env.reset(seed=0)
        with pytest.raises(ValueError, match="not made by get_state"):
            env.set_state(stranger.get_state())


def test_state_that_is_not_finite(subject: Subject) -> None:
    env = subject.vector(2)
    env.reset(seed=0)
    state = env.get_state()
    with pytest.raises(ValueError, match="state holds NaN or infinite values in"):
        env.set_state(state.map(lambda tensor: tensor * torch.nan if tensor.is_floating_point() else tensor))
    _expect_same_state(env, state)


def test_pictures_of_a_control_problem(control: Subject) -> None:
    """Libraries ask for them unasked, Stable-Baselines3 among them."""
    with pytest.raises(ValueError, match=r"render_mode is 'human'.*no pictures"):
        control.vector(2, render_mode="human")
    with pytest.warns(UserWarning, match="no pictures"):
        single = control.single(render_mode="rgb_array")
    with pytest.warns(UserWarning, match="no pictures"):
        env = control.vector(2, render_mode="rgb_array")
    assert single.unwrapped.render_mode is None and env.render_mode is None
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="no pictures"):
        assert env.render() is None


def _expect_words(error: Exception, words: list[str]) -> None:
    for word in words:
        assert word in str(error), f"the message {str(error)!r} does not say {word!r}"


def test_state_of_an_ended_episode_where_the_next_begins_at_once(subject: Subject) -> None:
    ended, env = (subject.vector(2, autoreset_mode=mode, max_episode_steps=1) for mode in ("Disabled", "SameStep"))
    for each in (ended, env):
        each.reset(seed=0)
        each.step(still(each))
    state = env.get_state()
    with pytest.raises(ValueError, match=r"episodes that have ended, at \[0, 1\].*SAME_STEP"):
        env.set_state(ended.get_state())
    _expect_same_state(env, state)


def _expect_same_state(env: BatchedEnv, expected: EnvState) -> None:
    """A refused call has changed nothing."""
    state = env.get_state()
    for (name, mine), (_, theirs) in zip(state.tensors(), expected.tensors(), strict=True):
        assert torch.equal(mine, theirs), f"{name} was changed"
