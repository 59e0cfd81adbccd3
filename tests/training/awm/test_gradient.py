"""The policy gradient: of the plan that the policy would choose, exact, and the same where theory says so."""

import math

import pytest
import torch
from torch import Tensor, nn

from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.envs.real.simulator import Simulator
from learned_envs.envs.real.systems import System, make_system
from learned_envs.world_model import WorldModel
from training.awm.episodes import record, uniform_plans
from training.awm.fit import make_model
from training.awm.gradient import follow, imagine
from training.awm.policy import Policy
from training.experiments.forms import FORMS, new_model, starts_of

HORIZON, BATCH = 6, 3


def policy_of(system: System) -> Policy:
    torch.manual_seed(0)
    policy = Policy(len(system.observation_bounds), system.action_dim).double()
    policy.normalizer.fit(record(system, uniform_plans(system, 8, torch.float64)).observations)
    return policy


def gradients(total: Tensor, policy: Policy) -> Tensor:
    return torch.cat([part.flatten() for part in torch.autograd.grad(total, list(policy.parameters()))])


def step_by_step(model: WorldModel, starts: Tensor, policy: Policy, steps: int) -> Tensor:
    """The definition: each action from the state of before, cut off; shape (B,)."""
    noise = torch.randn(len(starts), steps, policy.action_dim, dtype=starts.dtype)
    state, total = model.start(starts.unsqueeze(1)), torch.zeros(len(starts), dtype=starts.dtype)
    for t in range(steps):
        action = policy.act(model.observe(state).detach(), noise[:, t])
        state, prediction = model.step(state, action, starts.new_zeros(len(starts), model.noise_size))
        total = total + prediction.reward
    return total


@pytest.mark.parametrize("form", ["simulator", *FORMS])
def test_gradient_is_that_of_the_definition(form: str) -> None:
    system = make_system("HIVTreatment", horizon=HORIZON, fixed="dt")
    policy, starts = policy_of(system), starts_of(system, BATCH)
    model: WorldModel = Simulator(system)
    if form != "simulator":
        model = new_model(form, system, 0, record(system, uniform_plans(system, 8))).double()
    torch.manual_seed(3)
    expected = step_by_step(model, starts, policy, HORIZON)
    torch.manual_seed(3)
    imagined = imagine(model, starts, policy, HORIZON)
    assert torch.allclose(imagined.rewards.sum(1), expected, rtol=1e-9)
    assert torch.allclose(
        gradients(imagined.rewards.sum(), policy), gradients(expected.sum(), policy), rtol=1e-7, atol=1e-9
    )


class _Exact(nn.Module):
    """The true change of the state, in the place of a Markov model's network."""

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system

    def forward(self, read: Tensor) -> Tensor:
        size = self.system.state_dim
        state, clock, action = read[..., :size], read[..., size].detach().long(), read[..., size + 1 :]
        return self.system.step(state, action, clock)[0] - state


@pytest.mark.parametrize("name", ["CancerTreatment", "Bacteria", "Harvest", "InvasivePlant"])
def test_perfect_model_gives_the_true_return_and_the_true_gradient(name: str) -> None:
    """Terminal costs and costs that depend on time included: the clock is right."""
    system = make_system(name, horizon=HORIZON)
    policy, starts = policy_of(system), starts_of(system, BATCH)
    model = make_model(system, "markov").double()
    model.dynamics.network = _Exact(system)
    results = []
    for world in (model, Simulator(system)):
        torch.manual_seed(4)
        total = imagine(world, starts, policy, HORIZON).rewards.sum()
        results.append((total, gradients(total, policy)))
    assert torch.allclose(results[0][0], results[1][0], rtol=1e-12)
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-10, atol=1e-12)


def test_detached_history_model_has_only_the_direct_terms() -> None:
    system = make_system("CancerTreatment", horizon=HORIZON)
    episodes = record(system, uniform_plans(system, 8))
    model, plain = (new_model(form, system, 0, episodes).double() for form in ("hwm-detached", "hwm-transformer"))
    starts = starts_of(system, BATCH)
    plan = uniform_plans(system, BATCH, torch.float64).requires_grad_()
    noise = plan.new_zeros(BATCH, HORIZON, 0)

    def slope(model: ContinuousWorldModel) -> Tensor:
        return torch.autograd.grad(follow(model, starts, plan, noise)[0][..., 0].sum(), plan)[0]

    seen, _ = follow(model, starts, plan, noise)
    before = torch.cat([starts.unsqueeze(1), seen[:, :-1]], 1).detach()
    direct = torch.autograd.grad(model(before, plan)[..., 0].sum(), plan)[0]
    assert torch.allclose(slope(model), direct, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(slope(plain), direct, rtol=1e-3), "the circuitous paths carry nothing"


def test_policy_acts_within_bounds_and_knows_its_entropy() -> None:
    torch.manual_seed(0)
    policy = Policy(3, 2).double()
    observations, noise = torch.randn(5, 3).double(), torch.randn(5, 2).double()
    mean, deviation = policy(observations)
    assert torch.equal(policy.act(observations), mean.tanh())
    actions = policy.act(observations, noise)
    normal = torch.distributions.Normal(mean, deviation)
    stretch = torch.distributions.TanhTransform().log_abs_det_jacobian(mean + deviation * noise, actions)
    assert torch.allclose(policy.entropy(observations, noise), (normal.entropy() + stretch).sum(-1))
    assert actions.abs().max() < 1 and deviation.min() > 1e-3
    many = policy.entropy(observations[:1].expand(20_000, 3), torch.randn(20_000, 2).double()).mean()
    assert many < 2 * math.log(2), "more than the uniform distribution has"
