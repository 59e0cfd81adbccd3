"""The equations: against returns that were computed independently, against known answers, and against finite differences."""

import json
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from learned_envs.envs.real.systems import SYSTEMS, System, make_system
from learned_envs.envs.real.systems.copy_task import CopyTask
from learned_envs.envs.real.systems.double_pendulum import DoublePendulum
from learned_envs.envs.real.systems.myriad import MyriadSystem
from learned_envs.envs.real.systems.one_bounce import OneBounce

# The reference returns of all Myriad systems. Renew the file only together with the definition of a system.
_REFERENCE: dict[str, Any] = json.loads((Path(__file__).parent / "myriad_reference.json").read_text())["tasks"]
_CONSTANT = {"low_u": -1.0, "mid": 0.0, "high_u": 1.0}
_FOUR_DIGITS = 5e-5

all_tasks = pytest.mark.parametrize("task", _REFERENCE)
both_horizons = pytest.mark.parametrize("horizon", [20, 100])
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
every_system = pytest.mark.parametrize("name", SYSTEMS)


def _reference_system(task: str, horizon: int) -> MyriadSystem:
    """The system of a reference task, some of which have Ma et al.'s parameters."""
    changed = {"PredatorPrey_T100": {"duration": 100.0}, "Glucose_l0.4": {"l": 0.4}}.get(task, {})
    system = make_system(task.split("_")[0], horizon=horizon, **changed)
    assert isinstance(system, MyriadSystem)
    return system


def _random_actions(system: System, batch: int, steps: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, steps, system.action_dim, dtype=torch.float64, generator=generator) * 2 - 1


@all_tasks
def test_definition_is_that_of_the_reference(task: str) -> None:
    expected, system = _REFERENCE[task], _reference_system(task, 100)
    own = {name: value for name, value in expected["parameters"].items() if hasattr(system, name)}
    assert {name: getattr(system, name) for name in own} == own
    # M is the bound of the control in two problems, and B an end condition that is not enforced.
    assert set(expected["parameters"]) - set(own) <= {"M", "B"}
    assert (system.duration, list(system.start)) == (expected["T"], expected["x0"])
    unbounded = [[-math.inf, math.inf]]
    assert [list(pair) for pair in system.control_bounds] == expected["control_bounds"]
    states = [pair if pair != [None, None] else unbounded[0] for pair in expected["state_bounds"]]
    assert [list(pair) for pair in system.state_bounds] == states


@all_tasks
@both_horizons
@both_dtypes
@pytest.mark.parametrize("column", _CONSTANT)
def test_constant_controls_return_the_reference(task: str, horizon: int, dtype: torch.dtype, column: str) -> None:
    system, expected = _reference_system(task, horizon), _REFERENCE[task]["returns"][str(horizon)]
    assert system.dt == pytest.approx(expected["dt"])
    actions = torch.full((1, horizon, system.action_dim), _CONSTANT[column], dtype=dtype)
    states, rewards = system.rollout(actions)
    assert states.dtype == rewards.dtype == dtype
    tolerance = _FOUR_DIGITS if dtype is torch.float32 else 1e-12
    assert rewards.sum().item() == pytest.approx(expected[column], rel=tolerance, abs=1e-12)


@all_tasks
@both_horizons
def test_random_controls_return_the_reference_on_average(task: str, horizon: int) -> None:
    system, expected = _reference_system(task, horizon), _REFERENCE[task]["returns"][str(horizon)]
    episodes = 2000
    returns = system.rollout(_random_actions(system, episodes, horizon))[1].sum(1)
    error = expected["random_std"] * math.sqrt(1 / 500 + 1 / episodes)  # the reference has 500 episodes of its own
    assert abs(returns.mean().item() - expected["random_mean"]) < 3 * error
    assert returns.std().item() == pytest.approx(expected["random_std"], rel=0.15)


def _optimum(system: System, iterations: int) -> float:
    """The best return that gradient ascent on open-loop plans finds from four constant ones."""
    start = torch.tensor([0.0, -0.9, 0.9, -1.0], dtype=torch.float64)
    plan = start[:, None, None].repeat(1, system.horizon, system.action_dim).requires_grad_()
    optimizer = torch.optim.Adam([plan], 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    best = -math.inf
    for _ in range(iterations):
        returns = system.rollout(plan)[1].sum(1)
        best = max(best, returns.max().item())
        optimizer.zero_grad()
        (-returns.sum()).backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            plan.clamp_(-1, 1)
    return best


@all_tasks
@pytest.mark.parametrize("horizon", [20, pytest.param(100, marks=pytest.mark.slow)])
def test_gradients_of_the_simulator_climb_to_the_reference_optimum(task: str, horizon: int) -> None:
    system, expected = _reference_system(task, horizon), _REFERENCE[task]["returns"][str(horizon)]
    best = _optimum(system, 100 if horizon == 20 else 400)
    assert best == pytest.approx(expected["optimum_found"], rel=_FOUR_DIGITS, abs=1e-12)
    span = expected["optimum_found"] - expected["random_mean"]
    assert abs(best - expected["optimum_found"]) < 2e-3 * span, "four digits say little where all returns are alike"


@every_system
def test_gradients_of_a_step_are_those_of_finite_differences(name: str) -> None:
    system = make_system(name, horizon=7)
    generator = torch.Generator().manual_seed(3)
    batch = 4
    drawn = torch.rand(batch, system.state_dim, dtype=torch.float64, generator=generator)
    # A tenth around the start: clear of the bounds, at which there is no derivative.
    state = system.initial_state(batch, dtype=torch.float64) * (0.9 + 0.1 * drawn) + 0.01 * (1 + drawn)
    action = _random_actions(system, batch, 1)[:, 0] * 0.1 - 0.8
    for t in (0, 3, 6):
        inputs = (state.clone().requires_grad_(), action.clone().requires_grad_())
        assert torch.autograd.gradcheck(lambda s, a, t=t: system.step(s, a, t), inputs)


@every_system
def test_gradients_of_a_return_are_those_of_finite_differences(name: str) -> None:
    system = make_system(name, horizon=6)
    actions = _random_actions(system, 2, 6, seed=1) * 0.2 - 0.7
    state = system.initial_state(2, dtype=torch.float64)
    start = state + 0.01 * (state == 0)  # off the lower bounds, at which there is no derivative

    def returns(actions: Tensor, start: Tensor) -> Tensor:
        return system.rollout(actions, start)[1].sum(1)

    assert torch.autograd.gradcheck(returns, (actions.requires_grad_(), start.requires_grad_()))


@every_system
def test_episodes_of_a_batch_do_not_touch_each_other(name: str) -> None:
    system = make_system(name, horizon=8)
    actions = _random_actions(system, 3, 8)
    states, rewards = system.rollout(actions)
    for index in range(3):
        alone = system.rollout(actions[index : index + 1])
        assert torch.allclose(states[index], alone[0][0], rtol=1e-12, atol=1e-12), f"states of episode {index}"
        assert torch.allclose(rewards[index], alone[1][0], rtol=1e-12, atol=1e-12), f"rewards of episode {index}"
    # Episodes at different steps of their own, as in a batch that was reset in part.
    t = torch.tensor([0, 3, 7])
    state = torch.stack([states[index, step] for index, step in enumerate(t)])
    action = torch.stack([actions[index, step] for index, step in enumerate(t)])
    following, reward = system.step(state, action, t)
    for index, step in enumerate(t):
        assert torch.allclose(following[index], states[index, step + 1], rtol=1e-12, atol=1e-12)
        assert torch.allclose(reward[index], rewards[index, step], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "CopyTask"])
def test_duration_or_dt_stays_when_the_horizon_changes(name: str) -> None:
    standard = SYSTEMS[name].standard_horizon
    for fixed in ("duration", "dt"):
        assert make_system(name, horizon=standard, fixed=fixed).dt == make_system(name, fixed="dt").dt
    long, short = (make_system(name, horizon=2 * standard, fixed=fixed) for fixed in ("dt", "duration"))
    assert long.dt == 2 * short.dt
    assert short.dt * short.horizon == pytest.approx(long.duration)
    assert long.dt * long.horizon == pytest.approx(2 * long.duration)


def test_time_of_costs_is_physical_time() -> None:
    """With a fixed step a longer episode goes on where the shorter one ends, but for its terminal cost."""
    for name in ("Harvest", "InvasivePlant"):
        short, long = (make_system(name, horizon=horizon, fixed="dt") for horizon in (10, 20))
        actions = _random_actions(short, 2, 20)
        head, whole = short.rollout(actions[:, :10])[1], long.rollout(actions)[1]
        assert torch.equal(head[:, :9], whole[:, :9])
    twice = make_system("Harvest", horizon=40)
    once = make_system("Harvest", horizon=20)
    for t in (0, 5, 19):  # the same moment is step t of 20 and step 2t of 40
        state, action = torch.full((1, 1), 0.3), torch.zeros(1, 1)
        assert 2 * twice.step(state, action, 2 * t)[1].item() == pytest.approx(once.step(state, action, t)[1].item())


def test_terminal_cost_is_read_before_the_last_transition() -> None:
    """As released, so that returns are comparable: the last action has no part in it."""
    system = make_system("Bacteria", horizon=5)
    actions = torch.full((1, 5, 1), -1.0, dtype=torch.float64)
    states, rewards = system.rollout(actions)
    assert rewards[0].tolist() == [0, 0, 0, 0, states[0, 4, 0].item()]
    changed = actions.clone()
    changed[0, 4] = -0.5
    moved = system.rollout(changed)
    assert moved[0][0, 5] != states[0, 5]
    running_cost = system.dt * 0.5**2  # of control 0.5
    assert moved[1][0, 4].item() == pytest.approx(states[0, 4, 0].item() - running_cost)


def test_noise_is_added_before_the_clip_and_distractors_stand_in_front() -> None:
    quiet = make_system("CancerTreatment")
    noisy = make_system("CancerTreatment", noise=0.1, distractors=2)
    assert (noisy.state_dim, noisy.noise_size) == (3, 3)
    noise = torch.tensor([[0.5, -2.0, 1.0], [0.1, 0.2, 100.0]], dtype=torch.float64)
    start = noisy.initial_state(2, noise, dtype=torch.float64)
    assert start.tolist() == [[0.5, -2.0, 0.975], [0.1, 0.2, 0.975]]
    action = torch.full((2, 1), 0.2, dtype=torch.float64)
    following, reward = noisy.step(start, action, 3, noise)
    expected, same = quiet.step(start[:, 2:], action, 3)
    assert torch.equal(reward, same)
    assert following[:, :2].tolist() == noise[:, :2].tolist()
    assert following[0, 2].item() == pytest.approx(expected[0, 0].item() + 0.1)
    assert following[1, 2] == 1.0, "clipped to the upper bound"


# One-bounce


def _throw(system: OneBounce, first: Tensor) -> tuple[Tensor, Tensor]:
    """Where the ball is when the reward is read, and the return, by first action."""
    actions = torch.zeros(len(first), system.horizon, 1, dtype=first.dtype)
    states, rewards = system.rollout(torch.cat([first[:, None, None], actions[:, 1:]], 1))
    return states[:, system.horizon - 1, 0], rewards.sum(1)


@pytest.mark.parametrize(
    ("horizon", "ends"), [(10, (-0.216, -0.850, -0.570)), (20, (0.718, -0.227, -0.850)), (100, (1.219, 0.106, -1.000))]
)
def test_ball_ends_where_it_must(horizon: int, ends: tuple[float, ...]) -> None:
    found, _ = _throw(OneBounce(horizon=horizon), torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx(ends, abs=5e-4)


def test_slope_of_the_throw_has_the_known_signs() -> None:
    grid = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    slopes = {horizon: _throw(OneBounce(horizon=horizon), grid)[0].diff() / 0.001 for horizon in (10, 20, 100)}
    for horizon in (10, 20):
        assert (slopes[horizon].sign().diff() != 0).sum() == 1, "the slope flips its sign once"
    turn = grid[:-1][slopes[10] > 0].min().item()
    assert turn == pytest.approx(0.244, abs=0.002)
    assert slopes[100].min() > -22.5 and slopes[100].max() < -1, "jumps, but always downwards"


def test_best_throw_is_about_the_negative_goal() -> None:
    grid = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    for goal in (-0.5, 0.0, 0.5):
        end, returns = _throw(OneBounce(goal=goal), grid)
        best = grid[returns.argmax()].item()
        assert 0 <= best + goal <= 0.22
        assert torch.equal(returns, -((end - goal) ** 2))


def test_gradient_of_a_throw_follows_its_branch() -> None:
    system = OneBounce(horizon=20)
    first = torch.tensor([-0.4, 0.1, 0.3], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(_throw(system, first)[0].sum(), first)
    step = 1e-7
    difference = (_throw(system, first + step)[0] - _throw(system, first - step)[0]) / (2 * step)
    assert torch.allclose(slope, difference, rtol=1e-5)


def test_later_actions_do_not_move_ball_or_pendulum() -> None:
    for system in (OneBounce(horizon=6), DoublePendulum(horizon=6)):
        actions = _random_actions(system, 2, 6)
        other = torch.cat([actions[:, :1], -actions[:, 1:]], 1)
        for mine, theirs in zip(system.rollout(actions), system.rollout(other), strict=True):
            assert torch.equal(mine, theirs)


# Double pendulum

_LANDSCAPES = [  # horizon, scale, local maxima of the return, and median and maximum of |d final state / d action|
    (10, math.pi, 3, 12.8, 38.0),
    (20, math.pi, 5, 14.4, 316.0),
    (10, 180.0, 42, 669.0, 3.10e3),
    pytest.param(20, 180.0, 268, 1.8e3, 1.50e4, marks=pytest.mark.slow),
    pytest.param(100, math.pi, 264, 103.0, 3.8e7, marks=pytest.mark.slow),
]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, inside jvp
@pytest.mark.parametrize(("horizon", "scale", "maxima", "median", "maximum"), _LANDSCAPES)
def test_landscape_of_the_pendulum_is_as_rough_as_known(
    horizon: int, scale: float, maxima: int, median: float, maximum: float
) -> None:
    system = DoublePendulum(horizon=horizon, angle_scale=scale)
    grid = torch.linspace(-1, 1, 4001, dtype=torch.float64)

    def play(first: Tensor) -> tuple[Tensor, Tensor]:
        later = torch.zeros(len(first), horizon - 1, 1, dtype=first.dtype)
        states, rewards = system.rollout(torch.cat([first[:, None, None], later], 1))
        return states[:, horizon - 1], rewards.sum(1)

    outputs, tangents, *_ = torch.func.jvp(play, (grid,), (torch.ones_like(grid),))
    returns, slope = outputs[1], tangents[0].norm(dim=1)
    peaks = (returns[1:-1] > returns[:-2]) & (returns[1:-1] > returns[2:])
    assert int(peaks.sum()) == maxima
    assert slope.median().item() == pytest.approx(median, rel=0.02)
    assert slope.max().item() == pytest.approx(maximum, rel=0.01)
    assert returns.argmax() == 3000 and returns[3000].abs() < 1e-20, "the goal action 0.5 reaches the goal"


@pytest.mark.parametrize(("substeps", "documented"), [(10, 1e-4), (40, 1e-6)])
def test_pendulum_keeps_its_energy(substeps: int, documented: float) -> None:
    system = DoublePendulum(horizon=100, substeps=substeps)
    first = torch.linspace(-1, 1, 9, dtype=torch.float64)
    actions = torch.cat([first[:, None, None], torch.zeros(9, 99, 1, dtype=torch.float64)], 1)
    with torch.no_grad():
        states, _ = system.rollout(actions)
    energy = torch.stack([system.energy(state) for state in states[:, 1:].unbind(1)], 1)
    assert (energy - energy[:, :1]).abs().max() < documented


def test_energy_and_motion_agree_for_other_rods_and_masses() -> None:
    system = DoublePendulum(horizon=20, length1=0.7, length2=1.3, mass1=2.0, mass2=0.5, substeps=20, fixed="dt")
    with torch.no_grad():
        states, _ = system.rollout(_random_actions(system, 8, 20))
    energy = torch.stack([system.energy(state) for state in states[:, 1:].unbind(1)], 1)
    assert (energy - energy[:, :1]).abs().max() < 1e-4


def test_pendulum_begins_by_showing_the_goal() -> None:
    for horizon in (1, 2, 10):
        system = DoublePendulum(horizon=horizon)
        actions = torch.zeros(1, horizon, 1)
        actions[0, 0] = 0.5
        states, rewards = system.rollout(actions)
        assert states[0, 0].tolist() == pytest.approx(system.goal)
        assert rewards.abs().max() < 1e-9
        assert states[0, 1].tolist() == pytest.approx([0.5 * math.pi, 0, 0.3 * math.pi, 0])


# Copy task


def test_first_action_of_the_copy_task_decides() -> None:
    system = CopyTask(horizon=5)
    for first, final in ((0.5, 10.0), (0.0, 5.0), (-0.4, -6.2), (-1.0, -10.0)):
        actions = torch.tensor([first, 0.0, 0.3, 0.0, 0.9], dtype=torch.float64).view(1, 5, 1)
        rewards = system.rollout(actions)[1][0].tolist()
        assert rewards == pytest.approx([0, 0, -(0.3**2) / 5, 0, final])


def test_copy_tasks_last_steps_share_the_reward() -> None:
    system = CopyTask(horizon=10, final_share=0.35, short_term=False, show_phase=True)
    assert system.final_steps == 3
    actions = torch.full((1, 10, 1), 0.5, dtype=torch.float64)
    assert system.rollout(actions)[1][0].tolist() == pytest.approx([0] * 7 + [10 / 3] * 3)
    shown = [system.observe(torch.zeros(1, 2), t)[0, 2:].tolist() for t in (0, 6, 7, 9)]
    assert shown == [[0, 1, 0], [6, 1, 0], [7, 0, 1], [9, 0, 1]]


def test_copy_tasks_jacobian_is_one_for_the_saved_action() -> None:
    system = CopyTask(target_deviation=0.5)
    noise = torch.randn(1, 21, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    actions = _random_actions(system, 1, 20).requires_grad_()
    states, _ = system.rollout(actions, noise=noise)
    for t in range(1, 21):
        for number, expected in ((0, 1.0), (1, 0.0)):
            (gradient,) = torch.autograd.grad(states[0, t, number], actions, retain_graph=True, allow_unused=True)
            found = [0.0] * 20 if gradient is None else gradient[0, :, 0].tolist()
            assert found == [expected] + [0.0] * 19, f"number {number} at step {t}"


def test_copy_tasks_noise_moves_target_and_rewards() -> None:
    system = CopyTask(horizon=4, target_deviation=0.5, reward_deviation=0.1)
    noise = torch.tensor([[[1.0, 9.0], [2.0, 9.0], [-1.0, 3.0], [0.0, 1.0], [0.0, 0.0]]], dtype=torch.float64)
    actions = torch.tensor([0.5, 0.2, 0.2, 0.2], dtype=torch.float64).view(1, 4, 1)
    states, rewards = system.rollout(actions, noise=noise)
    assert states[0, :, 1].tolist() == [0.5, 1.0, -0.5, 0.0, 0.0]
    between = [-((1.0 - 0.2) ** 2) / 4 + 0.3, -((-0.5 - 0.2) ** 2) / 4 + 0.1]
    assert rewards[0].tolist() == pytest.approx([0.0, *between, 10.0])


# Refusals


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("Harvest", {"horizon": 0}, ["horizon is 0", "at least 1"]),
        ("Harvest", {"horizon": 2.5}, ["horizon is 2.5", "whole number"]),
        ("Harvest", {"horizon": True}, ["horizon is True"]),
        ("Harvest", {"fixed": "time"}, ["fixed is 'time'", '"duration"', '"dt"']),
        ("Harvest", {"duration": 0.0}, ["duration is 0.0", "above 0"]),
        ("Harvest", {"k": math.nan}, ["k is nan", "finite"]),
        ("Harvest", {"k": "10"}, ["k is '10'", "finite number"]),
        ("Harvest", {"noise": -1.0}, ["noise is -1.0", "at least 0"]),
        ("Harvest", {"distractors": -1}, ["distractors is -1", "at least 0"]),
        ("OneBounce", {"friction": 200.0}, ["friction is 200.0", "[0, 1]"]),
        ("OneBounce", {"horizon": 5, "fixed": "duration"}, ["friction", 'fixed="dt"']),
        ("OneBounce", {"wall": 1.0}, ["wall is 1.0", "below 0"]),
        ("DoublePendulum", {"angle_scale": 0.0}, ["angle_scale is 0.0", "above 0"]),
        ("DoublePendulum", {"goal_action": 1.5}, ["goal_action is 1.5", "[-1, 1]"]),
        ("DoublePendulum", {"substeps": 0}, ["substeps is 0", "at least 1"]),
        ("CopyTask", {"target_deviation": -0.1}, ["target_deviation is -0.1"]),
        ("CopyTask", {"final_share": 1.0}, ["final_share is 1.0", "[0, 1)"]),
    ],
)
def test_wrong_parameter(name: str, parameters: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ValueError) as raised:
        make_system(name, **parameters)
    for word in words:
        assert word in str(raised.value)


def test_unknown_name_or_parameter_is_named_with_what_there_is() -> None:
    with pytest.raises(gym.error.NameNotFound, match=r"no system 'CancerTreatmnt'.*CancerTreatment"):
        make_system("CancerTreatmnt")
    with pytest.raises(gym.error.NameNotFound, match="There are Bacteria,"):
        make_system("qqq")
    with pytest.raises(TypeError, match=r"Harvest has no parameter 'colour'; it has horizon.*, A, k, m"):
        make_system("Harvest", colour="red")


def test_system_is_changed_by_a_copy() -> None:
    system = make_system("Glucose", l=0.4)
    changed = make_system(system, horizon=7)
    assert (changed.horizon, getattr(changed, "l", None), system.horizon) == (7, 0.4, 100)


@every_system
def test_rewards_follow_from_what_is_shown(name: str) -> None:
    system = make_system(name, horizon=6)
    actions = _random_actions(system, 4, 6)
    states, rewards = system.rollout(actions)
    shown = torch.stack([system.observe(states[:, t], t) for t in range(6)], 1)
    assert torch.equal(system.reward(shown, actions), rewards)
    assert torch.equal(system.reward(shown[:, 2], actions[:, 2]), rewards[:, 2]), "a single step"
    state, t = system.split(shown)
    assert torch.equal(state, states[:, :-1]) and t.tolist() == [list(range(6))] * 4


def test_known_reward_is_the_mean_of_a_noisy_one() -> None:
    noisy, calm = (make_system("CopyTask", reward_deviation=deviation) for deviation in (0.5, 0.0))
    shown, actions = torch.tensor([[0.2, 0.7, 3.0]]), torch.tensor([[0.1]])
    assert torch.equal(noisy.reward(shown, actions), calm.reward(shown, actions))


@every_system
def test_gradient_of_the_known_reward_is_that_of_the_step(name: str) -> None:
    system = make_system(name, horizon=3)
    (action,) = _random_actions(system, 1, 1).unbind(1)
    state = (system.initial_state(1, dtype=torch.float64) + 0.01).requires_grad_()
    action.requires_grad_()
    known = system.reward(system.observe(state, 2), action)
    _, told = system.step(state, action, 2)
    mine, theirs = (torch.autograd.grad(reward.sum(), (state, action), allow_unused=True) for reward in (known, told))
    for one, other in zip(mine, theirs, strict=True):
        assert (one is None and other is None) or torch.allclose(one, other)


@every_system
def test_spaces_are_those_of_the_bounds(name: str) -> None:
    system = make_system(name)
    low, high = torch.tensor(system.observation_bounds).T.numpy()
    assert (system.observation_space.low == low).all() and (system.observation_space.high == high).all()
    assert system.action_space == gym.spaces.Box(-1.0, 1.0, (system.action_dim,))


def test_wrong_tensors() -> None:
    system = make_system("BearPopulations", noise=0.1)
    right: dict[str, Any] = {
        "state": torch.zeros(2, 3),
        "action": torch.zeros(2, 2),
        "noise": torch.zeros(2, 3),
        "t": 0,
    }
    system.step(**right)
    for wrong, word in (
        ({"state": torch.zeros(2, 2)}, r"state has shape \(2, 2\).*\(B, 3\)"),
        ({"state": torch.zeros(2, 3).long()}, "state has .*int64.*float32"),
        ({"action": torch.zeros(1, 2)}, r"action has shape \(1, 2\).*\(2, 2\)"),
        ({"action": torch.zeros(2, 2).double()}, "action has .*float64.*float32"),
        ({"noise": None}, r"noise is missing.*3 standard normal"),
        ({"noise": torch.zeros(2, 1)}, r"noise has shape \(2, 1\), expected \(2, 3\)"),
    ):
        with pytest.raises(ValueError, match=word):
            system.step(**right | wrong)
    with pytest.raises(ValueError, match="1 <= T <= 100"):
        system.rollout(torch.zeros(1, 101, 2))
    with pytest.raises(ValueError, match=r"noise has shape \(1, 5, 3\), expected \(1, 6, 3\): for the start and"):
        system.rollout(torch.zeros(1, 5, 2), noise=torch.zeros(1, 5, 3))
