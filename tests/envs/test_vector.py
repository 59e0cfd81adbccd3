"""The vector environment over a model that counts: every expected number can be checked by eye."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from hypothesis import given, settings
from hypothesis import strategies as st

import learned_envs
from learned_envs.device import parse_device
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.pretrained import load_pretrained
from tests.counting import NEVER, counting_env
from tests.tiny import CONTROL_HORIZON, tiny_model

COUNT = 1  # column of the observation that shows the steps taken


def _play(env: Any, actions: list[list[int]]) -> dict[str, list[list[float]]]:
    columns: dict[str, list[list[float]]] = {"count": [], "action": [], "reward": [], "terminated": [], "truncated": []}
    for action in actions:
        observations, rewards, terminated, truncated, _ = env.step(np.array(action))
        columns["count"].append(observations[:, COUNT].tolist())
        columns["action"].append(observations[:, 2].tolist())
        columns["reward"].append(rewards.tolist())
        columns["terminated"].append(terminated.tolist())
        columns["truncated"].append(truncated.tolist())
    return columns


def test_next_step_mode_shows_the_last_observation_then_the_new_start() -> None:
    env = counting_env([2], 1)
    observations, _ = env.reset(seed=0)
    assert observations.tolist() == [[0, 0, 0, 2]]
    assert _play(env, [[1], [2], [2], [1], [0], [1]]) == {
        "count": [[1], [2], [0], [1], [2], [0]],
        "action": [[1], [2], [0], [1], [0], [0]],  # the third and the sixth are ignored
        "reward": [[11], [22], [0], [11], [2], [0]],
        "terminated": [[False], [True], [False], [False], [True], [False]],
        "truncated": [[False]] * 6,
    }


def test_same_step_mode_shows_the_new_start_and_keeps_the_last_observation() -> None:
    env = counting_env([2], 1, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    assert _play(env, [[1], [2]]) == {
        "count": [[1], [0]],
        "action": [[1], [0]],
        "reward": [[11], [22]],
        "terminated": [[False], [True]],
        "truncated": [[False]] * 2,
    }
    env.step(np.array([0]))
    _, _, terminated, _, infos = env.step(np.array([1]))
    assert terminated.tolist() == [True]
    assert infos["final_obs"].tolist() == [[0, 2, 1, 2]]
    assert infos["_final_obs"].tolist() == [True] and infos["_final_info"].tolist() == [True]


def test_disabled_mode_stays_at_the_last_observation_until_reset() -> None:
    env = counting_env([2], 2, autoreset_mode=AutoresetMode.DISABLED)
    env.reset(seed=0)
    env.step(np.array([0, 0]))
    env.reset(options={"reset_mask": np.array([True, False])})
    observations, _, terminated, _, _ = env.step(np.array([1, 2]))
    assert observations[:, COUNT].tolist() == [1, 2] and terminated.tolist() == [False, True]
    observations, _ = env.reset(options={"reset_mask": terminated})
    assert observations[:, COUNT].tolist() == [1, 0]
    assert _play(env, [[0, 1]])["count"] == [[2, 1]]


def test_time_limit_truncates_and_leaves_the_game_unfinished() -> None:
    env = counting_env([NEVER], 1, limit=3)
    env.reset(seed=0)
    played = _play(env, [[0]] * 8)
    assert played["count"] == [[1], [2], [3], [0], [1], [2], [3], [0]]
    assert not np.any(played["terminated"])
    assert np.flatnonzero(played["truncated"]).tolist() == [2, 6]


def test_end_at_the_time_limit_raises_both_flags_as_the_single_environments_do() -> None:
    env = counting_env([2], 1, limit=2)
    env.reset(seed=0)
    env.step(np.array([0]))
    _, _, terminated, truncated, _ = env.step(np.array([0]))
    assert terminated.all() and truncated.all()


def test_argument_overrides_the_limit_of_the_snapshot() -> None:
    env = counting_env([NEVER], 1, limit=5, max_episode_steps=2)
    env.reset(seed=0)
    assert np.flatnonzero(_play(env, [[0]] * 3)["truncated"]).tolist() == [1]


@pytest.mark.parametrize("limit", [3, 1000])
def test_limit_counts_from_the_start_and_the_horizon_by_the_clock(tiny_snapshots: dict[str, Path], limit: int) -> None:
    keywords: dict[str, Any] = {"starts": "anywhere", "max_episode_steps": limit}
    folder = tiny_snapshots["markov-mlp"]
    envs = LearnedVectorEnv(folder, 4, output="torch", autoreset_mode=AutoresetMode.SAME_STEP, **keywords)
    clocks = envs.reset(seed=0)[0][:, -1].int()
    assert (clocks > 3).all(), "they begin in the middle"
    expected = (CONTROL_HORIZON - clocks).clamp_max(limit).tolist()
    lengths = torch.zeros(4, dtype=torch.int64)
    while not lengths.all():
        infos = envs.step(torch.from_numpy(np.zeros_like(envs.action_space.sample())))[4]
        lengths = torch.where((lengths == 0) & infos["_episode"], infos["episode"]["l"], lengths)
    assert lengths.tolist() == expected
    single = gym.make("learned_envs:Learned-v0", model=str(folder), **keywords)
    for seed, length in enumerate(expected):
        single.reset(seed=seed)
        over = [single.step(np.zeros(single.action_space.shape or (), np.float32))[3] for _ in range(length)]
        assert over == [False] * (length - 1) + [True]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_tensors_bring_return_and_length_of_every_episode(mode: AutoresetMode) -> None:
    env = counting_env([3], 2, autoreset_mode=mode, output="torch")
    env.reset(seed=0)
    env.step(torch.tensor([0, 0]))
    env.reset(options={"reset_mask": torch.tensor([False, True])})
    told = []
    for _ in range(6):
        _, _, terminated, _, infos = env.step(torch.tensor([1, 0]))
        assert torch.equal(infos["_episode"], terminated)
        episode = infos["episode"]
        over = infos["_episode"].nonzero().flatten().tolist()
        told += [(index, float(episode["r"][index]), int(episode["l"][index])) for index in over]
    # The first environment has taken action 0 once, then 1; the second 0 alone: 1 + 12 + 13, and 1 + 2 + 3.
    assert told[:2] == [(0, 26.0, 3), (1, 6.0, 3)]
    assert told[2] == (0, 36.0, 3)


def test_arrays_bring_return_and_length_with_the_last_observation() -> None:
    env = counting_env([2], 1, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    env.step(np.array([0]))
    episode = env.step(np.array([1]))[4]["final_info"]["episode"]
    assert (episode["r"].tolist(), episode["l"].tolist()) == ([13.0], [2])


def test_every_start_of_the_bank_comes_up() -> None:
    env = counting_env([NEVER] * 5, 1000)
    observations, _ = env.reset(seed=0)
    counts = np.bincount(observations[:, 0], minlength=5)
    assert counts.sum() == 1000 and (np.abs(counts - 200) < 60).all(), counts


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_new_episodes_do_not_repeat_the_start_of_the_last(mode: AutoresetMode) -> None:
    env = counting_env([1] * 50, 1, autoreset_mode=mode)
    env.reset(seed=0)
    starts = [int(env.step(np.array([0]))[0][0, 0]) for _ in range(40)]
    assert len(set(starts)) > 10


@pytest.mark.parametrize("seed", [0, 2**31, 2**63 - 1, 2**63, 2**64 + 5, 10**30])
def test_seeds_of_any_size_are_honoured(seed: int) -> None:
    env = counting_env([NEVER] * 200, 4)
    first, second = env.reset(seed=seed)[0], env.reset(seed=seed + 1)[0]
    assert np.array_equal(first[1:], second[:-1]), "environment i of seed s is environment i - 1 of seed s + 1"
    assert not np.array_equal(first, second)


def test_action_of_an_ended_environment_does_not_matter() -> None:
    histories = []
    for ignored in (0, 2):
        env = counting_env([1, 2, 3], 1)
        env.reset(seed=4)
        ended, history = False, []
        for step in range(12):
            observations, rewards, terminated, _, _ = env.step(np.array([ignored if ended else step % 3]))
            history.append((observations.tolist(), rewards.tolist(), terminated.tolist()))
            ended = bool(terminated[0])
        histories.append(history)
    assert histories[0] == histories[1]


class Rules:
    """What Gymnasium says of autoreset modes, for one environment, in plain Python."""

    def __init__(self, lasts: int, limit: int, mode: AutoresetMode) -> None:
        self.lasts, self.limit, self.mode = lasts, limit, mode
        self.count, self.over = 0, False

    def reset(self) -> int:
        self.count, self.over = 0, False
        return 0

    def step(self, action: int) -> tuple[int, float, bool, bool]:
        if self.over:
            assert self.mode is AutoresetMode.NEXT_STEP
            return self.reset(), 0.0, False, False
        self.count += 1
        terminated, truncated, reward = self.count >= self.lasts, self.count >= self.limit, 10.0 * action + self.count
        self.over = terminated or truncated
        if self.over and self.mode is AutoresetMode.SAME_STEP:
            self.reset()
        return self.count, reward, terminated, truncated


@settings(max_examples=60, deadline=None)
@given(
    mode=st.sampled_from(AutoresetMode),
    lasts=st.integers(1, 4),
    limit=st.integers(1, 4),
    script=st.lists(
        st.tuples(st.lists(st.integers(0, 2), min_size=3, max_size=3), st.lists(st.booleans(), min_size=3, max_size=3)),
        max_size=12,
    ),
)
def test_any_history_of_steps_and_partial_resets_goes_by_the_rules(
    mode: AutoresetMode, lasts: int, limit: int, script: list[Any]
) -> None:
    env = counting_env([lasts], 3, limit=limit, autoreset_mode=mode)
    env.reset(seed=0)
    rules = [Rules(lasts, limit, mode) for _ in range(3)]
    for step, (actions, mask) in enumerate(script):
        if mode is AutoresetMode.DISABLED:
            mask = [wanted or rule.over for wanted, rule in zip(mask, rules, strict=True)]
        if any(mask):
            observations, _ = env.reset(options={"reset_mask": np.array(mask)})
            shown = [rule.reset() if reset else rule.count for rule, reset in zip(rules, mask, strict=True)]
            assert observations[:, COUNT].tolist() == shown, f"reset before step {step}"
        observations, rewards, terminated, truncated, _ = env.step(np.array(actions))
        expected = [rule.step(action) for rule, action in zip(rules, actions, strict=True)]
        found = zip(observations[:, COUNT].tolist(), rewards, terminated, truncated, strict=True)
        assert list(found) == expected, f"step {step}"


def test_model_that_is_loaded_already_is_played(tiny_snapshots: dict[str, Path]) -> None:
    folder = tiny_snapshots["compact"]
    mine, theirs = (LearnedVectorEnv(model, 2) for model in (learned_envs.load(folder), folder))
    assert np.array_equal(mine.reset(seed=0)[0], theirs.reset(seed=0)[0])
    with pytest.raises(ValueError, match="without an environment"):
        LearnedVectorEnv(tiny_model("compact"), 2)


def test_model_that_would_play_otherwise_is_refused(tiny_snapshots: dict[str, Path]) -> None:
    for change, told in (("train", r"training mode.*eval\(\)"), ("double", r"torch.float64 as .*float\(\)")):
        model = learned_envs.load(tiny_snapshots["awm-transformer"])
        getattr(model, change)()
        with pytest.raises(ValueError, match=told):
            LearnedVectorEnv(model, 2)
    with pytest.raises(ValueError, match="model is a Linear, expected an id"):
        LearnedVectorEnv(torch.nn.Linear(1, 1), 2)  # type: ignore[arg-type]


def test_any_array_of_actions_is_read(tiny_snapshots: dict[str, Path]) -> None:
    envs = LearnedVectorEnv(tiny_snapshots["compact"], 3)
    fixed = np.array([0, 1, 2])
    fixed.flags.writeable = False
    shown = []
    for actions in ([0, 1, 2], np.array([2, 1, 0])[::-1], np.array([0, 1, 2], ">i4"), fixed):
        envs.reset(seed=0)
        shown.append(envs.step(actions)[0])
    assert all(np.array_equal(each, shown[0]) for each in shown)
    for wrong in (None, "012", [None] * 3):
        with pytest.raises(ValueError, match="actions is"):
            envs.step(wrong)


def test_environments_on_two_devices_share_a_loaded_model(tiny_snapshots: dict[str, Path]) -> None:
    model = learned_envs.load(tiny_snapshots["compact"])
    here = LearnedVectorEnv(model, 2)
    LearnedVectorEnv(model, 2, device="meta")
    assert next(here.world_model.parameters()).device.type == "cpu"
    here.reset(seed=0)
    here.step(np.zeros(2, int))


def test_model_that_is_there_already_is_shared(tiny_snapshots: dict[str, Path]) -> None:
    """However its device is named: ``cpu:0`` is to ``cpu`` as ``cuda`` is to ``cuda:0``."""
    model = learned_envs.load(tiny_snapshots["compact"])
    assert LearnedVectorEnv(model, 2, device="cpu:0").world_model is model
    assert parse_device("cpu:0") == torch.device("cpu")


def test_context_with_a_reward_that_is_no_number_is_refused(tiny_snapshots: dict[str, Path]) -> None:
    model = load_pretrained(tiny_snapshots["compact"])
    envs = LearnedVectorEnv(model, 1)
    observations = np.zeros((1, 3, *model.model.observation_shape), np.uint8)
    given = {"observations": observations, "actions": np.zeros((1, 2), int), "rewards": np.array([[0.0, np.nan]])}
    with pytest.raises(ValueError, match="rewards holds NaN"):
        envs.reset(options=given)


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_probability_that_is_none_is_refused(tiny_snapshots: dict[str, Path], value: float) -> None:
    envs = LearnedVectorEnv(tiny_snapshots["compact"], 1, output="torch", differentiable=True)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=f"probability {value:g}, which is negative or not finite"):
        envs.step(torch.full((1, 3), value))
    with pytest.raises(ValueError, match=r"probabilities that sum to 0\.6, expected 1"):
        envs.step(torch.full((1, 3), 0.2))


@pytest.mark.parametrize("kind", ["compact", "faithful", "awm-transformer", "markov-mlp"])
def test_spaces_hold_whatever_the_default_dtype_of_torch(tiny_snapshots: dict[str, Path], kind: str) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        envs = LearnedVectorEnv(tiny_snapshots[kind], 2, output="torch", max_episode_steps=2)
        observations, _ = envs.reset(seed=0)
        actions = torch.from_numpy(np.stack([envs.single_action_space.sample()] * 2))
        following, rewards, *_, infos = envs.step(actions)
        envs.world_model.start(*envs.pretrained.starts.contexts("anywhere")[:2])
    finally:
        torch.set_default_dtype(torch.float32)
    assert observations.dtype == following.dtype == envs.world_model.observation_dtype
    assert rewards.dtype == infos["episode"]["r"].dtype == torch.float32
