"""The truth behind the protocol of the world models."""

import pytest
import torch

from learned_envs.envs.real.simulator import Simulator
from learned_envs.envs.real.systems import SYSTEMS, make_system
from learned_envs.nn.noise import uniform


@pytest.mark.parametrize("name", SYSTEMS)
def test_simulator_tells_what_the_system_tells(name: str) -> None:
    system = make_system(name, horizon=6)
    simulator = Simulator(system)
    generator = torch.Generator().manual_seed(0)
    actions = torch.rand(2, 6, system.action_dim, dtype=torch.float64, generator=generator) * 2 - 1
    states, rewards = system.rollout(actions)
    noise = torch.zeros(2, 0)
    state = simulator.start(system.observe(states[:, 0], 0).unsqueeze(1))
    for t in range(6):
        assert torch.equal(simulator.observe(state), system.observe(states[:, t], t))
        state, prediction = simulator.step(state, actions[:, t], noise)
        assert torch.equal(prediction.reward, rewards[:, t])
        assert torch.equal(prediction.end_probability, torch.zeros(2, dtype=torch.float64))
    assert torch.equal(state.values, states[:, 6]) and state.t.tolist() == [6, 6]


def test_start_goes_on_from_the_last_observation() -> None:
    simulator = Simulator(make_system("CopyTask", show_phase=True))
    observations = torch.tensor([[[0.1, 0.0, 3.0, 1.0, 0.0], [0.2, 0.0, 4.0, 1.0, 0.0]]])
    state = simulator.start(observations)
    assert torch.equal(state.values, torch.tensor([[0.2, 0.0]])) and state.t.tolist() == [4]
    assert torch.equal(simulator.observe(state), observations[:, -1])


def test_state_does_not_change_with_the_observations_it_began_with() -> None:
    observations = torch.tensor([[[0.4, 5.0]]])
    state = Simulator(make_system("Harvest")).start(observations)
    observations.zero_()
    assert state.values.tolist() == [[pytest.approx(0.4)]] and state.t.tolist() == [5]


def test_gradients_reach_the_first_observation() -> None:
    simulator = Simulator(make_system("Harvest"))
    observations = torch.tensor([[[0.4, 5.0]]], requires_grad=True)
    state = simulator.start(observations)
    _, prediction = simulator.step(state, torch.zeros(1, 1), torch.zeros(1, 0))
    (gradient,) = torch.autograd.grad(prediction.reward.sum(), observations)
    value = 5 * 10 * 0.5 / 1.5 * 0.5 * 0.1  # A k time/(time + 1) u dt at time 0.5
    assert gradient.flatten().tolist() == pytest.approx([value, 0.0])


def test_noise_of_any_draw_is_finite() -> None:
    simulator = Simulator(make_system("Harvest", noise=1.0))
    extremes = torch.tensor([[0.0], [1 - 2.0**-24]])
    state = simulator.initial(extremes)
    following, _ = simulator.step(state, torch.zeros(2, 1), extremes)
    assert following.values.isfinite().all()
    assert following.values[0] < -4 and following.values[1] > 4
    assert simulator.noise_size == 1 == uniform(torch.zeros(1).long(), torch.zeros(1).long(), 1).shape[1]


@pytest.mark.parametrize(
    ("observations", "word"),
    [
        (torch.zeros(1, 2), r"shape \(1, 2\)"),
        (torch.zeros(1, 0, 2), r"shape \(1, 0, 2\)"),
        (torch.zeros(1, 1, 3), r"shape \(1, 1, 3\).*\(B, T, 2\)"),
        (torch.zeros(1, 1, 2, dtype=torch.int64), "int64"),
        (torch.full((1, 1, 2), torch.nan), "nan as number 0 of state 0"),
        (torch.full((1, 1, 2), torch.inf), "inf as number 0 of state 0"),
        (torch.tensor([[[0.4, -1.0]]]), "the step -1 in state 0"),
    ],
    ids=str,
)
def test_wrong_context(observations: torch.Tensor, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        Simulator(make_system("Harvest")).start(observations)
