"""The faces of the real systems: what Gymnasium, and people who take gradients, rely on."""

import json
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from learned_envs.envs.real.control import SystemEnv, SystemVectorEnv
from learned_envs.envs.real.registration import SYSTEM_IDS, register_systems
from learned_envs.envs.real.systems import SYSTEMS
from tests.contract.vector_checker import Subject, assert_same, play_singles

_REFERENCE = json.loads((Path(__file__).parent / "myriad_reference.json").read_text())["tasks"]
_ROUNDING = 1e-5

all_modes = pytest.mark.parametrize("mode", AutoresetMode, ids=lambda mode: mode.name.lower())


def _batch(subject: Subject, num_envs: int, **keywords: Any) -> SystemVectorEnv:
    env = subject.vector(num_envs, **keywords).unwrapped
    assert isinstance(env, SystemVectorEnv)
    return env


def _single(subject: Subject, **keywords: Any) -> SystemEnv:
    env = subject.single(**keywords).unwrapped
    assert isinstance(env, SystemEnv)
    return env


def _plan(env: VectorEnv, steps: int, seed: int = 0) -> np.ndarray:
    shape = (steps, *(env.action_space.shape or ()))
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def _tolerance(values: Any) -> float:
    return _ROUNDING * max(1.0, float(np.abs(np.asarray(values)).max()))


# Gymnasium's rules


def test_every_system_has_an_id() -> None:
    assert sorted(SYSTEM_IDS.values()) == sorted(SYSTEMS)
    assert set(SYSTEM_IDS) <= set(gym.registry)
    assert SYSTEM_IDS["Myriad/CancerTreatment-v0"] == "CancerTreatment"
    assert SYSTEM_IDS["DoublePendulum-v0"] == "DoublePendulum"
    for id in SYSTEM_IDS:
        spec = gym.spec(id)
        assert EnvSpec.from_json(spec.to_json()).kwargs == spec.kwargs


def test_registering_is_light_and_twice_is_silent(recwarn: pytest.WarningsRecorder) -> None:
    code = (
        "import sys, gymnasium\n"
        "from learned_envs.envs.real.registration import register_systems\n"
        "register_systems()\n"
        "assert 'Myriad/CancerTreatment-v0' in gymnasium.registry\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False", "registering loaded torch"
    register_systems()
    assert not list(recwarn)


def test_gymnasium_checker_finds_nothing(subject: Subject) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Some states have no bounds, and an observation says so.
        warnings.filterwarnings("ignore", message=".*A Box observation space (minimum|maximum) value is -?infinity.*")
        check_env(_single(subject))


def test_observations_lie_in_their_space(subject: Subject) -> None:
    env = _batch(subject, 3, horizon=12)
    observations, infos = env.reset(seed=0)
    assert infos == {}
    for action in _plan(env, 26):
        assert observations.dtype == np.float32 and observations in env.observation_space
        observations, rewards, terminated, truncated, infos = env.step(action)
        assert rewards.shape == terminated.shape == truncated.shape == (3,)
        assert (rewards.dtype, terminated.dtype, truncated.dtype) == (np.float32, np.bool_, np.bool_)
        assert np.isfinite(rewards).all() and not terminated.any() and infos == {}


def test_horizon_truncates_the_episode(subject: Subject) -> None:
    env = _single(subject, horizon=3)
    for _ in range(2):
        env.reset(seed=1)
        results = [env.step(env.action_space.sample()) for _ in range(3)]
        assert [result[2] for result in results] == [False] * 3
        assert [result[3] for result in results] == [False, False, True]
        assert type(results[0][1]) is float
        with pytest.raises(gym.error.ResetNeeded, match="ended"):
            env.step(env.action_space.sample())


def test_shorter_limit_of_the_caller_holds_in_either_face(subject: Subject) -> None:
    env, batch = subject.single(horizon=9, max_episode_steps=2), _batch(subject, 2, horizon=9, max_episode_steps=2)
    env.reset(seed=0)
    batch.reset(seed=0)
    for action, over in zip(_plan(batch, 2), (False, True), strict=True):
        assert env.step(action[0])[3] is over
        assert batch.step(action)[3].tolist() == [over] * 2


@pytest.mark.parametrize("task", [name for name in _REFERENCE if name in SYSTEMS])
@pytest.mark.parametrize("horizon", [20, 100])
def test_made_environment_returns_the_reference(task: str, horizon: int) -> None:
    env = gym.make(f"Myriad/{task}-v0", horizon=horizon)
    expected = _REFERENCE[task]["returns"][str(horizon)]
    for column, action in (("low_u", -1.0), ("mid", 0.0), ("high_u", 1.0)):
        env.reset(seed=0)
        total, over = 0.0, False
        while not over:
            _, reward, _, over, _ = env.step(np.full(env.action_space.shape or (), action, np.float32))
            total += float(reward)
        assert total == pytest.approx(expected[column], rel=5e-5, abs=1e-6), column


@all_modes
def test_batch_equals_single_environments_over_several_episodes(subject: Subject, mode: AutoresetMode) -> None:
    steps, limit = 11, 4
    short = Subject(subject.name, subject.id, subject.folder, {"horizon": limit, **subject.keywords})
    env = _batch(short, 3, autoreset_mode=mode)
    actions = _plan(env, steps)
    expected = play_singles(short, mode, 40, actions, limit)
    assert_same(env.reset(seed=40)[0], next(expected).observations, "reset", _ROUNDING)
    over = np.zeros(3, bool)
    for index, (action, wanted) in enumerate(zip(actions, expected, strict=True)):
        if mode is AutoresetMode.DISABLED and over.any():
            env.reset(options={"reset_mask": over})
        observations, rewards, terminated, truncated, infos = env.step(action)
        over, where = truncated, f"step {index}"
        assert_same(observations, wanted.observations, f"{where}, observations", _tolerance(observations))
        assert_same(rewards, wanted.rewards, f"{where}, rewards", _tolerance(rewards))
        assert_same(terminated, wanted.terminated, f"{where}, terminated")
        assert_same(truncated, wanted.truncated, f"{where}, truncated")
        if mode is AutoresetMode.SAME_STEP:
            final = wanted.infos["final_obs"]
            assert_same(infos["final_obs"][over], final[over], f"{where}, final_obs", _tolerance(final))


def test_seeds_matter_where_there_is_noise(subject: Subject) -> None:
    env = _batch(subject, 3)
    actions = _plan(env, 3)

    def play(**reset: Any) -> np.ndarray:
        observations = [env.reset(**reset)[0]] + [env.step(action)[0] for action in actions]
        return np.stack(observations)

    first, second, again = play(seed=5), play(), play(seed=5)
    assert np.array_equal(first, again)
    if env.system.noise_size:
        assert not np.array_equal(first, second), "an unseeded reset repeated the episode"
        assert not np.array_equal(first[:, 0], first[:, 1]), "two environments have the same noise"
    else:
        assert np.array_equal(first, second), "there is nothing random in this system"


def test_noise_is_standard_normal() -> None:
    env = gym.make_vec("Myriad/CancerTreatment-v0", num_envs=4000, distractors=3)
    drawn = env.reset(seed=0)[0][:, :3]
    assert np.abs(drawn.mean(0)).max() < 0.06 and np.abs(drawn.std(0) - 1).max() < 0.04
    assert (np.abs(drawn) < 1).mean() == pytest.approx(0.683, abs=0.015)
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.06


def test_numpy_and_torch_tell_the_same_episodes(subject: Subject) -> None:
    arrays, tensors = (_batch(subject, 2, horizon=3, output=output) for output in ("numpy", "torch"))
    assert_same(arrays.reset(seed=3)[0], tensors.reset(seed=3)[0], "reset")
    for index, action in enumerate(_plan(arrays, 8)):
        mine, theirs = arrays.step(action), tensors.step(torch.from_numpy(action))
        for part in range(4):
            assert isinstance(mine[part], np.ndarray) and isinstance(theirs[part], Tensor)
            assert_same(mine[part], theirs[part], f"step {index}, part {part}")


def test_partial_reset_leaves_the_others_alone(subject: Subject) -> None:
    env, twin = _batch(subject, 3), _batch(subject, 3)
    for one in (env, twin):
        one.reset(seed=0)
        one.step(_plan(env, 1)[0])
    observations, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    clock = env.system.state_dim
    assert observations[:, clock].tolist() == [1, 0, 1]
    action = _plan(env, 1, seed=1)[0]
    mine, theirs = env.step(action)[0], twin.step(action)[0]
    assert_same(mine[[0, 2]], theirs[[0, 2]], "outside the mask")


def test_fork_repeats_the_identical_future(subject: Subject) -> None:
    env, other = _batch(subject, 3, horizon=4), _batch(subject, 3, horizon=4)
    actions = _plan(env, 8)
    env.reset(seed=2)
    env.step(actions[0])
    state = env.get_state()
    future = [env.step(action) for action in actions[1:]]
    for name, fork in (("same batch", env), ("other batch", other)):
        fork.set_state(state)
        for index, (action, wanted) in enumerate(zip(actions[1:], future, strict=True)):
            for part, (mine, theirs) in enumerate(zip(fork.step(action)[:4], wanted[:4], strict=True)):
                assert_same(mine, theirs, f"{name}, step {index}, part {part}")


def test_given_observation_is_gone_on_from(subject: Subject) -> None:
    env, fork = _batch(subject, 2, horizon=5), _batch(subject, 2, horizon=5)
    actions = _plan(env, 5)
    history = [env.reset(seed=0)[0]] + [env.step(action)[0] for action in actions[:2]]
    expected = [env.step(action) for action in actions[2:]]
    for first in (0, 2):  # the whole context, or its last observation alone: the last tells everything
        options = {
            "observations": np.stack(history[first:], 1),
            "actions": actions[:2].swapaxes(0, 1) if first < 2 else None,
        }
        assert_same(fork.reset(seed=0, options=options)[0], history[-1], "reset")
        over = [fork.step(action)[3].tolist() for action in actions[2:]]
        assert over == [[False] * 2, [False] * 2, [True] * 2]
    if env.system.noise_size:
        return
    fork.reset(options={"observations": history[2][:, None]})
    for index, (action, wanted) in enumerate(zip(actions[2:], expected, strict=True)):
        for part, (mine, theirs) in enumerate(zip(fork.step(action)[:4], wanted[:4], strict=True)):
            assert_same(mine, theirs, f"step {index}, part {part}", _tolerance(theirs))
    single = _single(subject, horizon=5)
    assert_same(single.reset(options={"observations": history[2][:1]})[0], history[2][0], "single")
    assert_same(single.step(actions[2][0])[0], expected[0][0][0], "single", _tolerance(expected[0][0]))


def test_episode_begun_in_the_middle_counts_the_steps_played() -> None:
    env = gym.make_vec("OneBounce-v0", num_envs=2, horizon=9, max_episode_steps=2, output="torch")
    observations, _ = env.reset(seed=0)
    observations[:, env.unwrapped.system.state_dim] = torch.tensor([5, 8])  # type: ignore[attr-defined]
    env.reset(options={"observations": observations[:, None]})
    for wanted in ([False, True], [True, False]):
        *_, truncated, infos = env.step(torch.zeros(2, 1))
        assert truncated.tolist() == wanted
        assert infos["episode"]["l"][truncated].tolist() == [2 if wanted[0] else 1]


def test_other_ways_to_make_a_batch_work() -> None:
    for mode in ("sync", "async"):
        env = gym.make_vec("Myriad/Harvest-v0", num_envs=2, vectorization_mode=mode, horizon=3)
        env.reset(seed=0)
        assert env.step(np.zeros((2, 1), np.float32))[1].shape == (2,)
        env.close()


def test_wrappers_of_observations_and_rewards_work() -> None:
    wrappers = gym.wrappers.vector
    env = wrappers.RecordEpisodeStatistics(gym.make_vec("Myriad/Bacteria-v0", num_envs=2, horizon=5))
    env = wrappers.NormalizeReward(wrappers.NormalizeObservation(env))
    env.reset(seed=0)
    infos = [env.step(np.full((2, 1), -1, np.float32))[4] for _ in range(5)]
    system = SYSTEMS["Bacteria"](horizon=5)
    returned = system.rollout(torch.full((2, 5, 1), -1.0))[1].sum(1)
    assert infos[-1]["episode"]["r"] == pytest.approx(returned.numpy())


# Gradients


def test_gradients_reach_all_actions_until_detached(subject: Subject) -> None:
    env = _batch(subject, 2, horizon=20, output="torch", differentiable=True)
    env.reset(seed=0)
    plan = [torch.from_numpy(action).mul(0.1).sub(0.5).requires_grad_() for action in _plan(env, 6)]
    total = torch.zeros(())
    observations = torch.zeros(())
    for action in plan[:3]:
        observations, reward, *_ = env.step(action)
        total = total + reward.sum()
    gradients = torch.autograd.grad(total + observations.sum(), plan[:3], retain_graph=True, allow_unused=True)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
    assert (gradients[0] != 0).all(), "the first action moves every system"
    env.detach()
    observations, reward, *_ = env.step(plan[3])
    cut = torch.autograd.grad(reward.sum() + observations.sum(), plan[:4], allow_unused=True, retain_graph=True)
    assert cut[:3] == (None, None, None), "detach() did not cut the graph"
    assert cut[3] is not None


@pytest.mark.parametrize("name", ["CancerTreatment", "HIVTreatment", "TimberHarvest"])
def test_gradient_of_an_episode_is_the_simulators(name: str) -> None:
    horizon = 20
    env = gym.make_vec(f"Myriad/{name}-v0", num_envs=3, horizon=horizon, output="torch", differentiable=True)
    plan = torch.from_numpy(_plan(env, horizon)).requires_grad_()
    env.reset(seed=0)
    rewards = torch.stack([env.step(action)[1] for action in plan])
    (mine,) = torch.autograd.grad(rewards.sum(), plan)
    system = SYSTEMS[name](horizon=horizon)
    (theirs,) = torch.autograd.grad(system.rollout(plan.transpose(0, 1).double())[1].sum(), plan)
    assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=lambda mode: mode.name.lower())
def test_no_gradient_leaks_through_a_reset(subject: Subject, mode: AutoresetMode) -> None:
    env = _batch(subject, 2, horizon=2, output="torch", differentiable=True, autoreset_mode=mode)
    env.reset(seed=0)
    plan = [torch.from_numpy(action).requires_grad_() for action in _plan(env, 5)]
    results = [env.step(action) for action in plan]
    told = results[3][0].sum() + results[3][1].sum()  # in the second episode in either mode
    gradients = torch.autograd.grad(told, plan[:2], allow_unused=True)
    assert all(gradient is None or (gradient == 0).all() for gradient in gradients)


def test_gradients_reach_a_given_start(subject: Subject) -> None:
    env = _batch(subject, 2, output="torch", differentiable=True)
    observations, _ = env.reset(seed=0)
    dim = env.system.state_dim
    low, high = torch.tensor(env.system.state_bounds).unbind(1)
    state = (observations[:, :dim] + 0.01).clamp(low + 1e-3, high - 1e-3).requires_grad_()
    given = torch.cat([state, torch.full((2, 1), 3.0), observations[:, dim + 1 :]], 1)
    env.reset(options={"observations": given[:, None]})
    following, reward, *_ = env.step(torch.full((2, env.system.action_dim), -0.5))
    (gradient,) = torch.autograd.grad(following.square().sum() + reward.sum(), state)
    assert gradient.isfinite().all() and (gradient != 0).any(1).all()


def test_no_graph_unless_asked(subject: Subject) -> None:
    env = _batch(subject, 2, output="torch")
    first, _ = env.reset(seed=0)
    first, _ = env.reset(options={"observations": first[:, None].requires_grad_()})
    action = torch.zeros(2, env.system.action_dim, requires_grad=True)
    assert not first.requires_grad
    assert not any(tensor.requires_grad for tensor in env.step(action)[:4])
    assert not any(tensor.requires_grad for _, tensor in env.get_state().tensors())


@pytest.mark.parametrize("name", SYSTEMS)
def test_graph_holds_no_more_than_documented(name: str) -> None:
    env = SystemVectorEnv(name, 1000, output="torch", differentiable=True)
    env.reset(seed=0)
    env.step(torch.zeros(1000, env.system.action_dim, requires_grad=True))
    held: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        env.step(torch.zeros(1000, env.system.action_dim, requires_grad=True))
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in held}
    assert sum(storages.values()) / 1000 <= (3000 if name == "DoublePendulum" else 200)


@pytest.mark.gpu
def test_gpu_tells_the_same_episodes_and_never_waits(subject: Subject) -> None:
    here, there = (_batch(subject, 3, horizon=4, output="torch", device=device) for device in ("cpu", "cuda"))
    mine, theirs = here.reset(seed=0)[0], there.reset(seed=0)[0]
    assert_same(mine, theirs, "reset", _ROUNDING)
    plan = torch.from_numpy(_plan(here, 9))
    told = [here.step(action) for action in plan]
    moved = plan.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [there.step(action) for action in moved]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for index, (result, wanted) in enumerate(zip(results, told, strict=True)):
        for part in range(4):
            assert_same(result[part], wanted[part], f"step {index}, part {part}", 10 * _tolerance(wanted[part]))


# Mistakes


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ([[1.5], [0.0]], ["actions contains 1.5", "[-1, 1]"]),
        ([[0.0], [-1.001]], ["actions contains -1.001"]),
        ([[np.nan], [0.0]], ["actions contains nan"]),
        ([[np.inf], [0.0]], ["actions contains inf"]),
        ([0.0, 0.0], ["actions has shape (2,)", "(2, 1)"]),
        ([[0.0]], ["actions has shape (1, 1)", "(2, 1)"]),
        ([[True], [False]], ["actions has dtype torch.bool"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_wrong_actions(action: list[Any], words: list[str], kind: str) -> None:
    env = gym.make_vec("Myriad/CancerTreatment-v0", num_envs=2)
    env.reset(seed=0)
    with pytest.raises(ValueError) as raised:
        env.step(torch.tensor(action) if kind == "torch" else np.array(action))
    for word in words:
        assert word in str(raised.value)
    assert_same(env.step(np.zeros((2, 1)))[0][:, 1], [1, 1], "the refused step was not taken")


@pytest.mark.parametrize(
    ("action", "word"),
    [
        (np.array([2.0]), "contains 2"),
        (np.array([np.nan]), "contains nan"),
        (0.0, r"action has shape \(\), expected \(1,\)"),
        (np.zeros((1, 1)), r"action has shape \(1, 1\), expected \(1,\)"),
    ],
)
def test_wrong_action_of_a_single_environment(action: Any, word: str) -> None:
    env = gym.make("Myriad/CancerTreatment-v0", disable_env_checker=True)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=word):
        env.step(action)


@pytest.mark.filterwarnings("ignore:.*render_mode.*")  # Gymnasium warns before we refuse
@pytest.mark.parametrize("face", ["single", "batch"])
@pytest.mark.parametrize(
    ("keywords", "error", "word"),
    [
        ({"horizon": 0}, ValueError, "horizon is 0"),
        ({"fixed": "time"}, ValueError, "fixed is 'time'"),
        ({"render_mode": "human"}, ValueError, "render_mode is 'human', expected None"),
        ({"device": "toaster"}, ValueError, "device 'toaster' is not available"),
        ({"colour": "red"}, TypeError, "no parameter 'colour'"),
        ({"system": "CancerTreatmnt"}, gym.error.NameNotFound, "CancerTreatment"),
    ],
    ids=str,
)
def test_wrong_argument(face: str, keywords: dict[str, Any], error: type[Exception], word: str) -> None:
    with pytest.raises(error, match=word):
        if face == "single":
            gym.make("Myriad/CancerTreatment-v0", **keywords)
        else:
            gym.make_vec("Myriad/CancerTreatment-v0", num_envs=2, **keywords)


@pytest.mark.parametrize(
    ("keywords", "word"),
    [
        ({"num_envs": 0}, "num_envs is 0"),
        ({"output": "jax"}, "output is 'jax'"),
        ({"autoreset_mode": "same_step"}, "autoreset_mode is 'same_step'"),
        ({"differentiable": True}, 'needs output="torch"'),
        ({"max_episode_steps": 0}, "max_episode_steps is 0"),
    ],
    ids=str,
)
def test_wrong_argument_of_a_batch(keywords: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        gym.make_vec("OneBounce-v0", **{"num_envs": 2, **keywords})


def test_mistyped_id_suggests_the_nearest() -> None:
    with pytest.raises(gym.error.NameNotFound, match="CancerTreatment"):
        gym.make("Myriad/CancerTreatmnt-v0")


@pytest.mark.parametrize(
    ("observation", "words"),
    [
        ([0.5, np.nan], ["step ", "nan", "0 to 99"]),
        ([np.nan, 0.0], ["nan as number 0 of state 0"]),
        ([0.5, 100.0], ["100", "0 to 99"]),
        ([0.5, 1.5], ["1.5", "whole"]),
        ([7.0, 0.0], ["7.0 as number 0 of state 0", "[0.001, 1]"]),
        ([0.5], ["observations has shape (2, 1, 1)", "2"]),
    ],
    ids=str,
)
def test_wrong_start(observation: list[float], words: list[str]) -> None:
    env = gym.make_vec("Myriad/CancerTreatment-v0", num_envs=2)
    env.reset(seed=0)
    env.step(np.zeros((2, 1)))
    with pytest.raises(ValueError) as raised:
        env.reset(options={"observations": np.array([[observation]] * 2, np.float32)})
    for word in words:
        assert word in str(raised.value)
    assert_same(env.step(np.zeros((2, 1)))[0][:, 1], [2, 2], "the refused reset changed nothing")


def test_wrong_state() -> None:
    env, other = (SystemVectorEnv(name, 2) for name in ("CancerTreatment", "BearPopulations"))
    env.reset(seed=0)
    state = env.get_state()
    with pytest.raises(ValueError, match=r"state has \(\(2, 1\), .* as model.values, expected \(\(2, 3\), "):
        other.set_state(state)
    with pytest.raises(ValueError, match="2 environments, expected 3"):
        SystemVectorEnv("CancerTreatment", 3).set_state(state)
    with pytest.raises(ValueError, match="state holds NaN"):
        env.set_state(state.map(lambda tensor: tensor * torch.nan if tensor.is_floating_point() else tensor))


def test_steps_that_need_a_reset() -> None:
    env = SystemVectorEnv("Harvest", 2, horizon=1, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(gym.error.ResetNeeded, match="before reset"):
        env.step(np.zeros((2, 1)))
    env.reset(seed=0)
    env.step(np.zeros((2, 1)))
    with pytest.raises(gym.error.ResetNeeded, match=r"\[0, 1\] have ended"):
        env.step(np.zeros((2, 1)))


def test_render_says_that_there_is_nothing_to_see() -> None:
    env = SystemVectorEnv("Harvest", 2)
    env.reset(seed=0)
    with pytest.warns(UserWarning, match="no pictures"):
        assert env.render() is None
