"""Every learned environment keeps the promises of a single Gymnasium environment."""

import json

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env

from tests.contract.vector_checker import Subject, assert_same, count_actions, single_context, steady_action


@pytest.mark.filterwarnings("ignore:.*A Box observation space (minimum|maximum) value is -?infinity")  # and truly so
@pytest.mark.filterwarnings("error")
def test_gymnasium_checker_finds_nothing(subject: Subject) -> None:
    check_env(subject.single().unwrapped)


@pytest.mark.filterwarnings("error")
def test_playing_prints_no_warning(subject: Subject) -> None:
    pictures = bool(subject.single().metadata["render_modes"])
    env = subject.single(render_mode="rgb_array" if pictures else None)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    if pictures:
        env.render()
    env.close()
    env.close()


def test_returns_plain_python_flags_and_rewards(subject: Subject) -> None:
    env = subject.single()
    observation, info = env.reset(seed=1)
    assert observation in env.observation_space and info == {}
    observation, reward, terminated, truncated, info = env.step(steady_action(env, 1))
    assert observation in env.observation_space and info == {}
    assert type(reward) is float and type(terminated) is bool and type(truncated) is bool


def test_render_shows_the_newest_frame(game: Subject) -> None:
    env = game.single(render_mode="rgb_array")
    env.reset(seed=0)
    observation = env.step(1)[0]
    picture = np.asarray(env.render())
    assert picture.shape == (256, 256, 3) and picture.dtype == np.uint8
    assert_same(picture[::4, ::4, 1], observation[-1], "picture")


def test_fork_repeats_the_identical_future(subject: Subject) -> None:
    env, other = subject.bare(), subject.bare()
    env.reset(seed=2)
    env.step(steady_action(env, 1))
    state = env.get_state()
    last = steady_action(env, 2)
    future = env.step(last)
    env.set_state(state)
    other.set_state(state)
    for name, again in (("same", env.step(last)), ("other", other.step(last))):
        assert_same(again[0], future[0], f"{name} environment")
        assert again[1:] == future[1:]


def test_given_options_stay_as_they_were(subject: Subject) -> None:
    env = subject.bare()
    observations = single_context(subject, 1)["observations"]
    options = {"observations": observations}
    env.reset(seed=0, options=options)
    assert options.keys() == {"observations"} and options["observations"] is observations
    first, _ = env.reset(seed=0, options={"observations": torch.from_numpy(observations)})
    assert_same(first, observations[-1], "a context of tensors")


def test_time_limit_of_the_caller_holds(subject: Subject) -> None:
    env = subject.single(max_episode_steps=3)
    for seed in range(20):
        env.reset(seed=seed)
        flags = [env.step(steady_action(env, 0))[2:4]]
        while not any(flags[-1]):
            flags.append(env.step(steady_action(env, 0))[2:4])
        assert len(flags) <= 3
        assert flags[-1] == (flags[-1][0], len(flags) == 3)


def test_spec_survives_json(subject: Subject) -> None:
    spec = subject.single().spec
    assert spec is not None
    again = gym.make(EnvSpec.from_json(spec.to_json()))
    assert again.spec is not None and again.spec.id == spec.id
    assert_same(again.reset(seed=3)[0], subject.single().reset(seed=3)[0], "made from JSON")
    spec = subject.vector(2).spec
    assert spec is not None
    json.loads(spec.to_json())


def test_model_knows_its_spaces(subject: Subject) -> None:
    model, env = subject.model(), subject.single()
    assert model.observation_space == env.observation_space
    assert model.action_space == env.action_space
    if isinstance(env.action_space, gym.spaces.Discrete):
        assert model.snapshot.environment.num_actions == count_actions(env)
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.gpu
def test_plays_on_the_gpu(subject: Subject) -> None:
    env = subject.single(device="cuda")
    assert isinstance(env.reset(seed=0)[0], np.ndarray)
    assert isinstance(env.step(steady_action(env, 1))[1], float)


def test_state_that_is_set_again_has_its_own_time_left(subject: Subject) -> None:
    env = subject.bare()
    env.reset(seed=0)
    beginning = env.get_state()
    for _ in range(3):
        if any(env.step(steady_action(env, 0))[2:4]):
            break
    env.set_state(beginning)
    assert int(env.get_state().elapsed[0]) == int(beginning.elapsed[0])
    made = subject.single()
    assert made.spec is not None and made.spec.max_episode_steps is None, "a TimeLimit would not be turned back"
