"""Every learned environment is what Stable-Baselines3 takes it for."""

import warnings
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, VecNormalize

from learned_envs.sb3 import make_vec_env
from tests.contract.vector_checker import Subject, assert_same, random_actions, rollout
from tests.contract.vector_checker import check_model_by_hand_equals_every_face as check_model_by_hand


def _make(
    subject: Subject, n_envs: int = 3, limit: int | None = 4
) -> Any:  # Stable-Baselines3 declares what it returns too widely
    return make_vec_env(subject.keywords.get("model", subject.id), n_envs, max_episode_steps=limit)


@pytest.mark.filterwarnings("ignore:.*observation.*infinite|.*Your observation")
def test_checker_of_stable_baselines_finds_nothing(subject: Subject) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="stable_baselines3")
        check_env(subject.single(), warn=True)


def test_all_four_faces_tell_the_same_episode_from_the_same_seed(subject: Subject) -> None:
    check_model_by_hand(subject, "initial")  # compares the model with the batch
    batch = subject.vector(1, max_episode_steps=4, autoreset_mode=AutoresetMode.SAME_STEP)
    single, theirs = subject.single(max_episode_steps=4), _make(subject, 1)
    theirs.seed(30)
    actions = random_actions(batch, 9)
    expected = rollout(batch, actions, {"seed": 30})
    assert_same(theirs.reset(), expected[0].observations, "SB3, reset")
    assert_same(single.reset(seed=30)[0], expected[0].observations[0], "single, reset")
    for number, (action, step) in enumerate(zip(actions, expected[1:], strict=True)):
        observations, rewards, dones, _ = theirs.step(action)
        assert_same(observations, step.observations, f"SB3, step {number}, observations")
        assert_same(rewards, step.rewards, f"SB3, step {number}, rewards")
        assert_same(dones, step.over, f"SB3, step {number}, dones")
        observation, reward, terminated, truncated, _ = single.step(action[0])
        if terminated or truncated:
            assert_same(observation, step.infos["final_obs"][0], f"single, step {number}, last observation")
            observation, _ = single.reset()
        assert_same(observation, step.observations[0], f"single, step {number}, observation")
        assert_same(reward, step.rewards[0], f"single, step {number}, reward")
        assert (terminated, truncated) == (step.terminated[0], step.truncated[0])


def test_end_of_an_episode_is_told_as_stable_baselines_reads_it(subject: Subject) -> None:
    core = subject.vector(3, max_episode_steps=4, autoreset_mode=AutoresetMode.SAME_STEP)
    envs = _make(subject)
    actions = random_actions(core, 13, seed=2)
    envs.seed(5)
    envs.reset()
    ends, returns, lengths = 0, np.zeros(3), np.zeros(3)
    for number, step in enumerate(rollout(core, actions, {"seed": 5})[1:]):
        _, rewards, dones, infos = envs.step(actions[number])
        returns, lengths = returns + step.rewards, lengths + 1
        assert_same(rewards, step.rewards, f"step {number}")
        for index, info in enumerate(infos):
            assert info["TimeLimit.truncated"] is bool(step.truncated[index] and not step.terminated[index])
            assert ("terminal_observation" in info) == ("episode" in info) == bool(dones[index]) == step.over[index]
            if dones[index]:
                ends += 1
                assert_same(info["terminal_observation"], step.infos["final_obs"][index], f"step {number}, last")
                episode = info["episode"]
                assert (episode["r"], episode["l"]) == (pytest.approx(returns[index]), lengths[index])
                assert episode["t"] >= 0
                returns[index] = lengths[index] = 0
    assert ends >= 9


def test_results_have_the_types_that_learners_count_on_and_belong_to_the_caller(subject: Subject) -> None:
    envs, untouched = _make(subject), _make(subject)
    for each in (envs, untouched):
        each.seed(3)
    observations, same = envs.reset(), untouched.reset()
    for action in random_actions(envs.envs, 9):
        assert observations.shape == (3, *envs.observation_space.shape) and envs.observation_space.contains(
            observations[0]
        )
        observations[:] = 0
        observations, rewards, dones, infos = envs.step(action)
        same, true_rewards, _, _ = untouched.step(action)
        assert_same(observations, same, "observations")
        assert_same(rewards, true_rewards, "rewards")
        assert rewards.dtype == np.float32 and rewards.shape == (3,) and rewards.flags.writeable
        assert dones.dtype == bool and dones.shape == (3,)
        assert len({id(info) for info in infos}) == 3
        rewards += 7
        dones[:] = True
        for info in infos:
            info.clear()


def test_wrappers_of_stable_baselines_work_on_top(subject: Subject) -> None:
    wrapped = VecFrameStack(
        VecNormalize(_make(subject), norm_obs=subject.single().observation_space.dtype != np.uint8), 2
    )
    with pytest.warns(UserWarning, match="already wrapped with a `Monitor`"):
        envs = VecMonitor(wrapped)
    observations: Any = envs.reset()
    assert observations.shape[0] == 3
    ends = []
    for action in random_actions(_make(subject).envs, 4):
        _, rewards, _, infos = envs.step(action)
        assert np.isfinite(rewards).all()
        ends += [info for info in infos if "episode" in info]
    assert len(ends) >= 3
    for info in ends:
        assert info["terminal_observation"].shape == envs.observation_space.shape
        assert info["episode"]["l"] <= 4


def test_seed_decides_everything_and_is_used_once(subject: Subject) -> None:
    envs, others = _make(subject), _make(subject)
    actions = random_actions(envs.envs, 3)

    def play(each: Any) -> np.ndarray:
        return np.stack([each.reset(), *(each.step(action)[0] for action in actions)]).astype(float)

    assert envs.seed(8) == others.seed(8) == [8, 9, 10]
    first = play(envs)
    assert np.array_equal(first, play(others))
    envs.reset()
    (state, *_), (other, *_) = envs.env_method("get_state"), others.env_method("get_state")
    assert state.keys.item() == other.keys.item() == 8
    assert state.draws > 1, "the seed was used twice"
    envs.seed(8)
    assert np.array_equal(first, play(envs))


def test_it_says_that_it_reports_episodes(subject: Subject) -> None:
    envs = _make(subject)
    assert envs.env_is_wrapped(Monitor) == [True] * 3
    assert envs.env_is_wrapped(VecNormalize) == [False] * 3  # type: ignore[arg-type]
