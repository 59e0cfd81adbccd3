"""Stable-Baselines3 over learned environments and their real twins: algorithms, attributes, options, refusals."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecVideoRecorder

import learned_envs
from learned_envs.envs.real.atari import make_atari_vec
from learned_envs.errors import MissingModelError
from learned_envs.sb3 import BatchedVecEnv, _pack, _unpack, make_real_vec_env, make_vec_env

ON_POLICY: dict[str, Any] = {"n_steps": 4}
OFF_POLICY: dict[str, Any] = {"learning_starts": 4, "buffer_size": 60, "batch_size": 4, "train_freq": 2}


def _small() -> dict[str, Any]:
    """A small agent, anew each time: Stable-Baselines3 writes into what it is given."""
    return {"policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 0}


@pytest.fixture
def game(tiny_snapshots: dict[str, Path]) -> str:
    return str(tiny_snapshots["compact"])


@pytest.fixture
def control(tiny_snapshots: dict[str, Path]) -> str:
    return str(tiny_snapshots["awm-transformer"])


@pytest.mark.parametrize(
    ("algorithm", "policy", "sizes"),
    [(PPO, "CnnPolicy", ON_POLICY | {"batch_size": 4}), (A2C, "CnnPolicy", ON_POLICY), (DQN, "CnnPolicy", OFF_POLICY)],
)
def test_algorithms_train_in_a_learned_game(game: str, algorithm: Any, policy: str, sizes: Any, tmp_path: Path) -> None:
    _train_and_keep(algorithm, policy, make_vec_env(game, 2, max_episode_steps=5), sizes, tmp_path)


@pytest.mark.parametrize(
    ("algorithm", "sizes"),
    [(PPO, ON_POLICY | {"batch_size": 4}), (A2C, ON_POLICY), (SAC, OFF_POLICY), (TD3, OFF_POLICY)],
)
def test_algorithms_train_in_a_learned_control_problem(
    control: str, algorithm: Any, sizes: Any, tmp_path: Path
) -> None:
    _train_and_keep(algorithm, "MlpPolicy", make_vec_env(control, 2, max_episode_steps=5), sizes, tmp_path)


@pytest.mark.filterwarnings("ignore:.*no pictures")
@pytest.mark.parametrize("id", ["LearnedBearPopulations-v0", "OneBounce-v0", "Myriad/BearPopulations-v0"])
def test_algorithms_take_ids(id: str) -> None:
    PPO("MlpPolicy", id, n_steps=4, batch_size=4, **_small()).learn(8)


def _train_and_keep(algorithm: Any, policy: str, envs: BatchedVecEnv, sizes: dict[str, Any], tmp_path: Path) -> None:
    agent = algorithm(policy, envs, **_small(), **sizes)
    before = [parameter.clone() for parameter in agent.policy.parameters()]
    agent.learn(24)
    assert any(not torch.equal(mine, its) for mine, its in zip(agent.policy.parameters(), before, strict=True))
    assert agent.ep_info_buffer and agent.ep_info_buffer[0]["l"] <= 5
    agent.save(tmp_path / "agent")
    again = algorithm.load(tmp_path / "agent", envs, device="cpu")
    observations = envs.reset()
    assert np.array_equal(*(each.predict(observations, deterministic=True)[0] for each in (agent, again)))
    again.learn(8, reset_num_timesteps=False)


@pytest.mark.parametrize("which", ["control", "LearnedPong-v0"])
def test_agent_is_evaluated_on_the_real_twin_while_it_trains(
    which: str, control: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    id = control if which == "control" else which
    limit: dict[str, Any] = {} if which == "control" else {"max_episode_steps": 12}
    envs, twin = make_vec_env(id, 2, **limit), make_real_vec_env(id, 2, **limit)
    policy = "MlpPolicy" if which == "control" else "CnnPolicy"
    judge = EvalCallback(twin, n_eval_episodes=3, eval_freq=4, log_path=str(tmp_path), verbose=0)
    PPO(policy, envs, n_steps=4, batch_size=4, **_small()).learn(16, judge)
    found = np.load(tmp_path / "evaluations.npz")
    length = 30 if which == "control" else 12
    assert found["timesteps"].tolist() == [8, 16]
    assert found["ep_lengths"].tolist() == [[length] * 3] * 2
    assert not [str(warning.message) for warning in recwarn if "stable_baselines3" in warning.filename]


@pytest.mark.parametrize(
    "rules", [{}, {"fire": False}, {"render_mode": "rgb_array"}], ids=["native", "bare", "rendered"]
)
def test_real_game_tells_ends_of_episodes_the_same_way(rules: dict[str, Any]) -> None:
    envs: Any = make_real_vec_env("LearnedPong-v0", 2, max_episode_steps=5, seed=1, **rules)
    same = make_atari_vec("Pong", 2, max_episode_steps=5, autoreset_mode=AutoresetMode.NEXT_STEP, **rules)
    first, (expected, _) = envs.reset(), same.reset(seed=1)
    assert np.array_equal(first, expected)
    observations, infos = first, []
    for step in range(1, 6):
        observations, rewards, dones, infos = envs.step(np.array([2, 3]))
        expected, *_ = same.step(np.array([2, 3]))
        assert rewards.dtype == np.float32 and rewards.flags.writeable
        assert dones.tolist() == [step == 5] * 2
        assert "lives" in infos[0]
    for index, info in enumerate(infos):
        assert info["TimeLimit.truncated"] and info["episode"]["l"] == 5
        assert np.array_equal(info["terminal_observation"], expected[index])
        assert not np.array_equal(observations[index], expected[index])


def test_evaluation_counts_whole_episodes_of_the_real_system(control: str) -> None:
    agent = PPO("MlpPolicy", make_vec_env(control, 2), n_steps=4, batch_size=4, **_small())
    returns, lengths = evaluate_policy(agent, make_real_vec_env(control, 2, seed=0), 5, return_episode_rewards=True)
    assert lengths == [30] * 5 and isinstance(returns, list) and np.isfinite(returns).all()


def test_attributes_are_read_for_each_and_set_for_all(game: str) -> None:
    envs: Any = make_vec_env(game, 3, starts="anywhere")
    assert envs.get_attr("starts") == ["anywhere"] * 3 and envs.get_attr("starts", 1) == ["anywhere"]
    assert envs.get_attr("action_space", [0, 2]) == [gym.spaces.Discrete(3)] * 2
    assert envs.has_attr("max_episode_steps") and not envs.has_attr("no_such_thing")
    envs.set_attr("max_episode_steps", 1)
    envs.reset()
    assert envs.step(np.zeros(3, int))[2].all()
    with pytest.raises(ValueError, match=r"environments \[1\] of 3, but one batch plays them all"):
        envs.set_attr("max_episode_steps", 9, indices=1)
    for call in (envs.get_attr, partial(envs.env_method, indices=[3]), partial(envs.set_attr, value=9, indices=[3])):
        with pytest.raises(IndexError):
            call("render", **({} if isinstance(call, partial) else {"indices": -4}))


def test_state_of_one_environment_is_taken_to_another(game: str) -> None:
    envs: Any = make_vec_env(game, 3, seed=0)
    envs.reset()
    envs.step(np.array([0, 1, 2]))
    (state,) = envs.env_method("get_state", indices=2)
    envs.env_method("set_state", state, indices=[0])
    observations, rewards, *_ = envs.step(np.array([1, 1, 1]))
    assert np.abs(observations[0].astype(int) - observations[2]).max() <= 1 and rewards[0] == rewards[2]
    assert not np.array_equal(observations[0], observations[1])
    with pytest.raises(AttributeError, match="no method 'jump', only render, get_state"):
        envs.env_method("jump")
    with pytest.raises(ValueError, match="holds 3 environments, expected 1"):
        envs.env_method("set_state", envs.get_attr("_state")[0], indices=0)


def test_what_was_refused_does_not_stand_in_the_way_of_the_next_reset(game: str) -> None:
    envs = make_vec_env(game, 2)
    for spoil in (lambda: envs.set_options({"foo": 1}), lambda: envs.seed(-5)):
        spoil()
        with pytest.raises(ValueError):
            envs.reset()
        envs.reset()


def test_starts_can_be_set_between_episodes() -> None:
    envs, other = (make_vec_env("LearnedHarvest-v0", 4, starts=starts) for starts in ("initial", "anywhere"))
    for each in (envs, other):
        each.reset()
    envs.set_attr("starts", "anywhere")
    assert envs.get_attr("starts") == ["anywhere"] * 4
    for each in (envs, other):
        each.seed(0)
    assert np.array_equal(envs.reset(), other.reset())
    with pytest.raises(ValueError, match="starts is 'nowhere'"):
        envs.set_attr("starts", "nowhere")


def test_real_games_have_no_methods_of_learned_ones() -> None:
    with pytest.raises(AttributeError, match=r"no method 'get_state', only render\."):
        make_real_vec_env("LearnedPong-v0", 2).env_method("get_state")


def test_state_of_another_kind_is_refused(game: str) -> None:
    envs, strangers = make_vec_env(game, 2), make_vec_env("LearnedHarvest-v0", 1)
    envs.reset()
    strangers.reset()
    (state,) = strangers.env_method("get_state")
    with pytest.raises(ValueError, match="not made by get_state"):
        envs.env_method("set_state", state, indices=1)


@pytest.mark.parametrize("make", [make_vec_env, make_real_vec_env])
def test_episodes_are_those_of_the_batch_whatever_was_done_to_it(control: str, make: Any) -> None:
    envs, same = make(control, 2, seed=0), make(control, 2, seed=0)

    def play(each: Any, steps: int) -> list[dict[str, Any]]:
        infos = [each.step(np.zeros((2, 1), np.float32))[3] for _ in range(steps)][-1]
        return [{key: info["episode"][key] for key in "rl"} for info in infos if "episode" in info]

    same.reset()
    expected = play(same, 30)
    assert [each["l"] for each in expected] == [30] * 2
    envs.reset()
    play(envs, 4)
    envs.envs.reset(seed=0)
    play(envs, 2)
    state = envs.envs.get_state()
    play(envs, 3)
    envs.envs.set_state(state)
    assert play(envs, 28) == expected


def test_options_continue_from_real_contexts(control: str) -> None:
    envs: Any = make_vec_env(control, 2)
    twin: Any = make_real_vec_env(control, 2, seed=4)
    twin.reset()
    given = twin.step(np.zeros((2, 1)))[0]
    envs.set_options([{"observations": each[None]} for each in given])
    assert np.array_equal(envs.reset(), given)
    assert not np.array_equal(envs.reset(), given), "options are used once"
    envs.set_options({"observations": given[0][None], "actions": None, "rewards": None})
    assert np.array_equal(envs.reset(), given[[0, 0]])
    envs.set_options([{"observations": given[0][None]}, {}])
    with pytest.raises(ValueError, match="options of environment 1 lacks"):
        envs.reset()
    twin = make_real_vec_env("LearnedPong-v0", 1)
    twin.set_options({"observations": given})
    with pytest.raises(ValueError, match="take none"):
        twin.reset()


class _Nested(gym.Wrapper):
    """Infos within infos, as physics engines give them."""

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(**kwargs)
        return observation, info | {"forces": {"left": 1.0}}


def test_infos_within_infos_are_told_for_each() -> None:
    batch = gym.vector.SyncVectorEnv([lambda: _Nested(gym.make("CartPole-v1"))] * 2, autoreset_mode="SameStep")
    envs = BatchedVecEnv(batch)
    envs.reset()
    assert [info["forces"] for info in envs.reset_infos] == [{"left": 1.0}] * 2


def test_pictures_of_each_environment_are_tiled(game: str) -> None:
    envs: Any = make_vec_env(game, 4, render_mode="rgb_array")
    envs.reset()
    images = envs.get_images()
    assert len(images) == 4 and all(image is not None and image.shape == (256, 256, 3) for image in images)
    tiled = envs.render()
    assert tiled is not None and tiled.shape == (512, 512, 3)
    assert np.array_equal(envs.env_method("render", indices=1)[0], images[1])
    assert make_vec_env(game, 2).get_images() == [None, None]


def test_video_is_recorded(game: str, tmp_path: Path) -> None:
    pytest.importorskip("moviepy", reason="VecVideoRecorder needs moviepy: pip install moviepy")
    envs = VecVideoRecorder(make_vec_env(game, 2, render_mode="rgb_array"), str(tmp_path), lambda step: step == 0, 5)
    envs.reset()
    for _ in range(6):
        envs.step(np.zeros(2, int))
    envs.close()
    (film,) = tmp_path.glob("*.mp4")
    assert film.stat().st_size > 1000


def test_packed_results_come_back_as_they_were() -> None:
    results = [
        torch.randint(256, (3, 4, 5), dtype=torch.uint8),
        torch.randn(3),
        torch.tensor([True, False, True]),
        torch.randn(3, 7).t(),
        torch.arange(3),
    ]
    packed = _pack(results)
    assert packed.dtype == torch.uint8 and packed.ndim == 1
    for back, result in zip(_unpack(packed, results), results, strict=True):
        assert back.dtype == result.dtype and torch.equal(back, result)


@pytest.mark.gpu
def test_one_transfer_a_step_brings_everything_from_the_gpu(game: str) -> None:
    envs, same = make_vec_env(game, 3, device="cuda", max_episode_steps=4), make_vec_env(game, 3, max_episode_steps=4)
    for each in (envs, same):
        each.seed(0)
    assert np.abs(envs.reset().astype(int) - same.reset()).max() <= 1
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        _, rewards, dones, infos = envs.step(np.zeros(3, int))
    events: Any = profile.events()
    copies = [event for event in events if "Memcpy DtoH" in event.name]
    assert len(copies) == 1
    for _ in range(3):
        _, rewards, dones, infos = envs.step(np.zeros(3, int))
    assert rewards.flags.writeable and dones.all() and infos[0]["terminal_observation"].shape == (4, 64, 64)


def test_wrong_arguments_are_refused(game: str) -> None:
    makers: list[Any] = [make_vec_env, make_real_vec_env]
    for make in makers:
        with pytest.raises(ValueError, match="n_envs is 0"):
            make(game, 0)
        for count in ("4", None, 2.5, True):
            with pytest.raises(ValueError, match=r"n_envs is .*, expected a whole number"):
                make(game, count)
        for seed in ("a", -1, 0.5):
            with pytest.raises(ValueError, match=r"seed is .*, expected a whole number"):
                make(game, 1, seed=seed)
        for nothing in ("", "LearnedPing"):
            with pytest.raises((MissingModelError, gym.error.NameNotFound)):
                make(nothing)
        with pytest.raises(ValueError, match="expected an id"):
            make(None)
    with pytest.raises(ValueError, match="max_episode_steps is 'x', expected a whole number"):
        make_vec_env("LearnedHarvest-v0", max_episode_steps="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"autoreset_mode is 'NextStep'.* Leave it out"):
        make_real_vec_env("LearnedHarvest-v0", autoreset_mode="NextStep")
    with pytest.raises(MissingModelError, match=r"'Pong'.*did you mean LearnedPong-v0"):
        make_vec_env("Pong")
    with pytest.raises(MissingModelError, match=r"LearnedPing-v0.*did you mean LearnedPong-v0"):
        make_vec_env("LearnedPing-v0")
    with pytest.raises(gym.error.NameNotFound, match=r"LearnedPing-v0.*Did you mean LearnedPong-v0"):
        make_real_vec_env("LearnedPing-v0")
    with pytest.raises(ValueError, match="'nowhere' is not available"):
        make_vec_env(game, device="nowhere")
    with pytest.raises(ValueError, match=r"expected AutoresetMode\.SAME_STEP"):
        BatchedVecEnv(gym.make_vec("learned_envs:Learned-v0", model=game))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r'pip install "learned-envs\[atari\]"'):
        make_real_vec_env("LearnedPong-v0")
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.monitor", None)
    monkeypatch.delitem(sys.modules, "learned_envs.sb3")
    with pytest.raises(gym.error.DependencyNotInstalled, match=r'pip install "learned-envs\[sb3\]"'):
        __import__("learned_envs.sb3")


def test_importing_the_package_imports_no_stable_baselines() -> None:
    code = "import sys, learned_envs; assert not {'torch', 'stable_baselines3'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "learned_envs" in learned_envs.__name__
