"""What the Gymnasium library does for vector environments, it does for learned ones."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from tests.contract.vector_checker import (
    Subject,
    assert_same,
    assert_same_rollout,
    random_actions,
    rollout,
    still,
)

wrappers = gym.wrappers.vector


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.name.lower())
def test_episode_statistics_are_those_of_the_episodes(subject: Subject, mode: AutoresetMode) -> None:
    plain = subject.vector(3, autoreset_mode=mode, max_episode_steps=4)
    env = wrappers.RecordEpisodeStatistics(subject.vector(3, autoreset_mode=mode, max_episode_steps=4))
    tensors = subject.vector(3, autoreset_mode=mode, max_episode_steps=4, output="torch")
    actions = random_actions(env, 12)
    expected = rollout(plain, actions, {"seed": 3})[1:]
    env.reset(seed=3)
    tensors.reset(seed=3)
    returns, lengths = np.zeros(3), np.zeros(3, int)
    over, reset = np.zeros(3, bool), np.zeros(3, bool)
    episodes = 0
    for index, (action, wanted) in enumerate(zip(actions, expected, strict=True)):
        _, rewards, terminated, truncated, infos = env.step(action)
        assert_same(rewards, wanted.rewards, f"step {index}, rewards")
        own = tensors.step(action)[4]
        reset = over if mode is AutoresetMode.NEXT_STEP else np.zeros(3, bool)
        returns, lengths = returns + wanted.rewards, lengths + ~reset
        over = terminated | truncated
        assert_same(own["_episode"], over, f"step {index}, own _episode")
        if over.any():
            for where, episode in (("wrapper", infos["episode"]), ("tensors", own["episode"])):
                assert_same(np.asarray(episode["r"])[over], returns[over], f"step {index}, {where}, return", 1e-4)
                assert_same(np.asarray(episode["l"])[over], lengths[over], f"step {index}, {where}, length")
            assert_same(infos["_episode"], over, f"step {index}, _episode")
        episodes += over.sum()
        returns, lengths = np.where(over, 0, returns), np.where(over, 0, lengths)
    assert episodes >= 6


def test_conversion_of_tensors_equals_numpy_output(subject: Subject) -> None:
    pytest.importorskip("array_api_compat", reason="Gymnasium's array conversion needs array-api-compat")
    for mode in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
        settings = {"autoreset_mode": mode, "max_episode_steps": 3}
        env = wrappers.ArrayConversion(subject.vector(2, output="torch", **settings), env_xp=torch, target_xp=np)
        plain = subject.vector(2, **settings)
        actions = random_actions(plain, 8)
        mine, theirs = env.reset(seed=0)[0], plain.reset(seed=0)[0]
        assert isinstance(mine, np.ndarray)
        assert_same(mine, theirs, "reset")
        for index, action in enumerate(actions):
            converted, expected = env.step(action), plain.step(action)
            for part in range(4):
                assert isinstance(converted[part], np.ndarray)
                assert_same(converted[part], expected[part], f"{mode.value}, step {index}, part {part}")
            if mode is AutoresetMode.SAME_STEP:
                assert_same(converted[4]["final_obs"], expected[4]["final_obs"], f"step {index}, final_obs")


def test_wrappers_of_observations_and_rewards_work(subject: Subject) -> None:
    env = wrappers.RecordEpisodeStatistics(subject.vector(2, max_episode_steps=4))
    env = wrappers.ClipReward(env, -0.5, 0.5)
    pictures = env.single_observation_space.dtype == np.uint8
    env = wrappers.RescaleObservation(env, 0.0, 1.0) if pictures else wrappers.NormalizeObservation(env)
    env = wrappers.NormalizeReward(env)
    observations, _ = env.reset(seed=0)
    for _ in range(9):
        observations, rewards, *_ = env.step(still(env))
        assert observations in env.observation_space
        assert np.isfinite(rewards).all()


@pytest.mark.parametrize(
    ("vectorization", "mode"),
    [
        ("sync", AutoresetMode.NEXT_STEP),
        ("sync", AutoresetMode.SAME_STEP),
        ("async", AutoresetMode.NEXT_STEP),  # starting processes takes long; one mode shows that they work
    ],
)
def test_gymnasiums_own_vectorisation_plays_the_same(subject: Subject, vectorization: str, mode: AutoresetMode) -> None:
    own = subject.vector(2, autoreset_mode=mode)
    actions = random_actions(own, 6)
    expected = rollout(own, actions, {"seed": 6})
    env = gym.make_vec(
        subject.id,
        num_envs=2,
        vectorization_mode=vectorization,
        vector_kwargs={"autoreset_mode": mode},
        **subject.keywords,
    )
    try:
        played = rollout(env, actions, {"seed": 6})
    finally:
        env.close()
    assert_same_rollout(played, expected, vectorization, exact=False)
