"""Real Atari games: their rules, alone and in batches, on the emulator."""

import sys
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

import learned_envs
from learned_envs.envs.real.atari import AtariRules, make_atari, make_atari_vec
from tests.contract.vector_checker import assert_same, check_equals_single_environments

pytest.importorskip("ale_py", reason="real Atari games need ale-py")

PLAIN = {"noop_max": 0, "fire": False}  # every game of Pong then begins with the same frame
NOOP, UP = 0, 2


def _native(game: str, num_envs: int, **keywords: Any) -> VectorEnv:
    """A batch in ALE's own vector environment."""
    from learned_envs.envs.real.atari_vector import NativeAtariVectorEnv

    env = make_atari_vec(game, num_envs, **keywords)
    assert isinstance(env, NativeAtariVectorEnv)
    return env


def _play_until_it_ends(env: gym.Env, action: int = NOOP) -> tuple[int, bool, bool, dict[str, Any]]:
    """Steps until the episode ends, its flags, and the last info."""
    for step in range(1, 3000):
        _, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return step, bool(terminated), bool(truncated), info
    raise AssertionError("the episode did not end")


# Alone and in batches


def test_single_and_native_batch_agree_bit_for_bit() -> None:
    actions = np.random.default_rng(0).integers(6, size=(400, 2))
    batch, singles = _native("Pong", 2, **PLAIN), [make_atari("Pong", **PLAIN) for _ in range(2)]
    observations, _ = batch.reset(seed=0)
    for index, single in enumerate(singles):
        assert_same(observations[index], single.reset(seed=index)[0], f"reset of game {index}")
    points = 0
    for step, action in enumerate(actions):
        observations, rewards, terminated, truncated, _ = batch.step(action)
        for index, single in enumerate(singles):
            expected = single.step(action[index])
            assert_same(observations[index], expected[0], f"game {index}, step {step}")
            assert (rewards[index], terminated[index], truncated[index]) == expected[1:4]
            points += rewards[index] != 0
    assert points >= 4, "the rollout was too short to show a reward"


class Pong:
    """Real Pong as a subject of the checks that learned environments go through."""

    def vector(self, num_envs: int, **keywords: Any) -> VectorEnv:
        return learned_envs.make_real_vec("LearnedPong-v0", num_envs, **PLAIN, **keywords)

    def single(self, **keywords: Any) -> gym.Env:
        return learned_envs.make_real("LearnedPong-v0", **PLAIN, **keywords)


@pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name.lower())
def test_batch_keeps_the_rules_of_its_autoreset_mode(mode: AutoresetMode) -> None:
    env = Pong().vector(2, autoreset_mode=mode)
    assert env.metadata["autoreset_mode"] is mode
    assert isinstance(env, SyncVectorEnv) == (mode is AutoresetMode.DISABLED)
    # ALE's own batch leaves the last emulator frames out of the picture at the time limit.
    check_equals_single_environments(Pong(), mode, compared=slice(0, 3))


def test_autoreset_mode_of_one_batch_does_not_show_up_in_another() -> None:
    modes = (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)
    envs = [_native("Pong", 1, autoreset_mode=mode) for mode in modes]
    assert [env.metadata["autoreset_mode"] for env in envs] == list(modes)


def test_spaces_are_those_of_the_recorded_frames() -> None:
    for env in (make_atari("Breakout"), make_atari("Pong")):
        assert env.observation_space == gym.spaces.Box(0, 255, (4, 64, 64), np.uint8)
    assert make_atari("Breakout").action_space == gym.spaces.Discrete(4)
    for game, batch in (("Breakout", make_atari_vec("Breakout", 2)), ("Pong", make_atari_vec("Pong", 2))):
        single = make_atari(game)
        assert batch.single_observation_space == single.observation_space
        assert batch.single_action_space == single.action_space


# Where episodes begin


def _single_start(game: str, seed: int) -> np.ndarray:
    return make_atari(game).reset(seed=seed)[0]


def _native_start(game: str, seed: int) -> np.ndarray:
    return _native(game, 1).reset(seed=seed)[0][0]


@pytest.mark.parametrize("start", [_single_start, _native_start])
def test_stack_repeats_the_first_frame(start: Callable[[str, int], np.ndarray]) -> None:
    observation = start("Pong", 3)
    assert observation.any()
    for older in observation[:-1]:
        assert np.array_equal(older, observation[-1])


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_stack_of_a_batch_fills_up_from_the_first_frame_after_every_reset(mode: AutoresetMode) -> None:
    env = _native("Pong", 1, autoreset_mode=mode, max_episode_steps=6)
    observations, _ = env.reset(seed=0)
    frames = [observations[0, -1]]
    resets = 0
    for _ in range(20):
        observations, _, _, truncated, infos = env.step(np.array([UP]))
        ended = bool(truncated[0])
        if mode is AutoresetMode.SAME_STEP and ended:
            assert_same(infos["final_obs"][0], np.stack([*frames[-3:], infos["final_obs"][0, -1]]), "final_obs")
            frames, resets = [], resets + 1
        frames.append(observations[0, -1])
        padded = [frames[0]] * 4 + frames[1:]
        assert_same(observations[0], np.stack(padded[-4:]), f"{len(frames) - 1} steps after a reset")
        if mode is AutoresetMode.NEXT_STEP and ended:
            observations, *_ = env.step(np.array([UP]))
            frames, resets = [observations[0, -1]], resets + 1
            assert_same(observations[0], np.stack(frames * 4), "first step of the next episode")
    assert resets >= 2


@pytest.mark.parametrize("batch", [False, True], ids=["single", "native"])
def test_seed_decides_how_long_a_game_waits(batch: bool) -> None:
    env: Any = _native("Pong", 1) if batch else make_atari("Pong")

    def later(seed: int) -> np.ndarray:
        env.reset(seed=seed)
        return [env.step(np.array([NOOP]) if batch else NOOP)[0] for _ in range(25)][-1]

    assert np.array_equal(later(1), later(1))
    assert len({later(seed).tobytes() for seed in range(5)}) > 1


def test_batch_takes_a_seed_for_each_game_also_where_a_mask_chooses_some() -> None:
    env, twin = _native("Pong", 3), _native("Pong", 3)
    step = np.full(3, NOOP)

    def after(env: VectorEnv, steps: int) -> np.ndarray:
        return [env.step(step)[0] for _ in range(steps)][-1]

    env.reset(seed=7)
    twin.reset(seed=[7, 8, 9])  # type: ignore[arg-type]
    before, same = after(env, 25), after(twin, 25)
    assert_same(before, same, "an integer and the list it stands for")
    mask = np.array([False, True, False])
    observations, _ = env.reset(seed=[1, 2, 3], options={"reset_mask": mask})  # type: ignore[arg-type]
    assert_same(observations[[0, 2]], before[[0, 2]], "outside the mask")
    lone = _native("Pong", 3)
    lone.reset(seed=1)
    mine, theirs, untouched = after(env, 25)[1], after(lone, 25)[1], after(twin, 25)
    assert_same(mine, theirs, "game 1 of seed 1")
    assert_same(after(env, 1)[[0, 2]], after(twin, 1)[[0, 2]], "outside the mask, later")
    assert not np.array_equal(mine, untouched[1])
    env.reset(seed=2**40)
    with pytest.raises(ValueError, match="seed has 2 entries, expected 3"):
        env.reset(seed=[1, 2])  # type: ignore[arg-type]


# What the rules do


def test_fire_sets_the_ball_going_again_after_every_lost_life() -> None:
    env = make_atari("Breakout", noop_max=0)
    _, info = env.reset(seed=0)
    assert info["lives"] == 5
    steps, terminated, _, info = _play_until_it_ends(env)
    assert terminated and info["lives"] == 0
    assert steps < 300
    waiting = make_atari("Breakout", noop_max=0, fire=False)
    waiting.reset(seed=0)
    assert {waiting.step(NOOP)[4]["lives"] for _ in range(300)} == {5}


def test_lost_life_ends_the_episode_and_the_same_game_goes_on() -> None:
    env = make_atari("Breakout", terminal_on_life_loss=True)
    _, info = env.reset(seed=0)
    for lives in (5, 4, 3, 2, 1):
        assert info["lives"] == lives
        played = info["episode_frame_number"]
        _, terminated, truncated, info = _play_until_it_ends(env)
        assert terminated and not truncated
        assert info["lives"] == lives - 1
        assert info["episode_frame_number"] > played, "another game"
        observation, info = env.reset()
        assert all(np.array_equal(frame, observation[-1]) for frame in observation), "a new episode has no past"
    assert info["lives"] == 5, "after the last life a new game begins"


def test_seeded_reset_begins_a_new_game_whatever_is_left_of_the_old() -> None:
    env = make_atari("Breakout", terminal_on_life_loss=True)
    env.reset(seed=0)
    _play_until_it_ends(env)
    assert env.reset(seed=0)[1]["lives"] == 5


@pytest.mark.parametrize("batch", [False, True], ids=["single", "native"])
def test_rewards_are_the_games_own(batch: bool) -> None:
    """A dot of Ms. Pac-Man is ten points."""
    rng, rewards = np.random.default_rng(0), set()
    env: Any = _native("MsPacman", 1, fire=False) if batch else make_atari("MsPacman", fire=False)
    env.reset(seed=0)
    for _ in range(150):
        action = int(rng.integers(9))
        rewards.add(float(np.squeeze(env.step(np.array([action]) if batch else action)[1])))
    assert 10.0 in rewards
    assert all(reward % 10 == 0 for reward in rewards)


@pytest.mark.parametrize("noop_max", [0, 30])
def test_time_limit_counts_the_agents_steps(noop_max: int) -> None:
    single = make_atari("Pong", max_episode_steps=7, noop_max=noop_max)
    for seed in range(3):
        single.reset(seed=seed)
        assert _play_until_it_ends(single)[:3] == (7, False, True)
    batch = _native("Pong", 3, max_episode_steps=7, noop_max=noop_max)
    batch.reset(seed=0)
    flags = [batch.step(np.full(3, NOOP))[2:4] for _ in range(7)]
    assert not any(terminated.any() for terminated, _ in flags)
    assert [truncated.tolist() for _, truncated in flags] == [[False] * 3] * 6 + [[True] * 3]


def test_every_action_is_held_for_four_emulator_frames() -> None:
    env = make_atari("Pong", **PLAIN)
    _, before = env.reset(seed=0)
    _, _, _, _, after = env.step(NOOP)
    assert after["episode_frame_number"] - before["episode_frame_number"] == 4


def test_real_twin_takes_the_rules_that_the_caller_changes() -> None:
    env = learned_envs.make_real("LearnedPong-v0", max_episode_steps=3, render_mode="rgb_array")
    env.reset(seed=0)
    assert np.asarray(env.render()).shape == (210, 160, 3)
    assert _play_until_it_ends(env)[0] == 3


@pytest.mark.parametrize(
    ("game", "rules", "native"),
    [
        ("Pong", {}, True),  # has no lives, and does not wait for FIRE
        ("Breakout", {}, False),
        ("Breakout", {"fire": False}, True),
        ("Breakout", {"fire": False, "terminal_on_life_loss": True}, False),
        ("Pong", {"render_mode": "rgb_array"}, False),
    ],
)
def test_ales_own_batch_is_used_only_where_it_keeps_the_rules(game: str, rules: dict[str, Any], native: bool) -> None:
    assert isinstance(make_atari_vec(game, 1, **rules), SyncVectorEnv) != native


# Mistakes


@pytest.mark.parametrize("make", [make_atari, lambda game: make_atari_vec(game, 2)])
def test_unknown_game_suggests_the_nearest(make: Callable[[str], Any]) -> None:
    with pytest.raises(gym.error.NameNotFound, match=r"no game 'Pnog'.*Pong"):
        make("Pnog")
    with pytest.raises(gym.error.NameNotFound, match=r'"MsPacman"'):
        make("???")


def test_unknown_id_suggests_the_nearest() -> None:
    with pytest.raises(gym.error.NameNotFound, match="LearnedPong-v0"):
        learned_envs.make_real("LearnedPogn-v0")
    with pytest.raises(gym.error.NameNotFound, match="LearnedPong-v0"):
        learned_envs.make_real_vec("LearnedPogn-v0", 2)


@pytest.mark.parametrize("package", ["ale_py", "cv2"])
def test_missing_package_is_named_with_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for make in (make_atari, lambda game: make_atari_vec(game, 2)):
        with pytest.raises(gym.error.DependencyNotInstalled) as raised:
            make("Pong")
        assert package in str(raised.value)
        assert 'pip install "learned-envs[atari]"' in str(raised.value)


@pytest.mark.parametrize(
    ("rules", "field"),
    [
        ({"noop_max": -1}, "noop_max"),
        ({"noop_max": 2.5}, r"noop_max is 2\.5, expected a whole number"),
        ({"fire": "no"}, "fire is 'no', expected True or False"),
        ({"terminal_on_life_loss": 1}, "terminal_on_life_loss is 1"),
        ({"repeat_action_probability": 1.5}, "repeat_action_probability"),
        ({"repeat_action_probability": "0.5"}, r"repeat_action_probability is '0\.5', expected a number"),
    ],
)
def test_rule_out_of_range_is_named(rules: dict[str, Any], field: str) -> None:
    for make in (
        AtariRules,
        lambda **rules: make_atari("Pong", **rules),
        lambda **rules: make_atari_vec("Pong", 1, **rules),
    ):
        with pytest.raises(ValueError, match=field):
            make(**rules)


@pytest.mark.parametrize("steps", [0, -1, 2.5])
def test_limit_that_no_episode_can_have_is_refused(steps: Any) -> None:
    makers: list[Any] = [learned_envs.make_real, lambda id, **rules: learned_envs.make_real_vec(id, 1, **rules)]
    for make in makers:
        with pytest.raises(ValueError, match=f"max_episode_steps is {steps}, expected a whole number of at least 1"):
            make("LearnedPong-v0", max_episode_steps=steps)


def test_seeds_of_ales_own_batch_are_checked() -> None:
    with pytest.raises(ValueError, match=r"A seed is 3\.7"):
        _native("Pong", 2).reset(seed=[1, 3.7])  # type: ignore[arg-type]


@pytest.mark.parametrize("actions", [[6, 0], [0, -1], [0.5, 1.0], [1], [None, 1], "ab"], ids=str)
def test_actions_of_ales_own_batch_are_checked(actions: Any) -> None:
    """It would wait for ever."""
    envs = _native("Pong", 2)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="actions"):
        envs.step(actions)
    envs.step(np.array([5, 0]))


def test_unknown_rule_is_not_swallowed() -> None:
    with pytest.raises(TypeError, match="colour"):
        make_atari("Pong", colour="red")
    with pytest.raises(TypeError, match="colour"):
        make_atari_vec("Pong", 1, colour="red")


def test_batch_of_none_is_refused() -> None:
    with pytest.raises(ValueError, match="num_envs is 0"):
        learned_envs.make_real_vec("LearnedPong-v0", 0)
