"""What the families are for: how states depend on earlier actions (Ma et al., ICML 2024)."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from learned_envs.awm.backbone import Backbone
from learned_envs.awm.config import AwmConfig, BackboneName, Family
from learned_envs.awm.dynamics import MarkovDynamics, SequenceDynamics
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.world_model import State
from tests.awm.models import BATCH, FORMS, HORIZON, NO_NOISE, SEQUENCES, every, make, plan, play, start_of, tiny

AWM: list[tuple[Family, BackboneName]] = [form for form in SEQUENCES if form[0] == "awm"]


@dataclass(frozen=True)
class _Hidden(State):
    value: Tensor


class _Recurrence(Backbone):
    """A backbone whose hidden state is its feature: h_0 = token 0, h_t = update(h_{t-1}, token t)."""

    def __init__(self, update: nn.Module) -> None:
        super().__init__()
        self.update = update

    def forward(self, tokens: Any) -> Tensor:
        raise NotImplementedError

    def empty(self, batch: int, like: Tensor) -> State:
        return _Hidden(torch.zeros(batch, 1, dtype=like.dtype))

    def step(self, token: Tensor, anchor: Tensor | None, position: Tensor, memory: _Hidden) -> tuple[Tensor, State]:
        before = memory.value if anchor is None else torch.where((position == 1).unsqueeze(1), anchor, memory.value)
        after = self.update(torch.cat([before, token], -1))
        return after, _Hidden(after)


class _Add(nn.Module):
    """The change that a network predicts, added to the state."""

    def __init__(self, network: nn.Module, state_dim: int) -> None:
        super().__init__()
        self.network = network
        self.state_dim = state_dim

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs[..., : self.state_dim] + self.network(inputs)


def _policy(observations: int, actions: int) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(observations, 8), nn.Tanh(), nn.Linear(8, actions), nn.Tanh()).double()


def _return(model: ContinuousWorldModel, policy: nn.Module, start: Tensor, steps: int) -> Tensor:
    """The return of a closed loop in which the policy's input is detached."""
    state, total = model.start(start.unsqueeze(1)), torch.zeros((), dtype=torch.float64)
    for _ in range(steps):
        state, prediction = model.step(state, policy(model.observe(state).detach()), NO_NOISE)
        total = total + prediction.reward.sum()
    return total


def _flat_gradient(value: Tensor, policy: nn.Module) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in torch.autograd.grad(value, list(policy.parameters()))])


def _cost(observation: Tensor, action: Tensor) -> Tensor:
    return -observation.square().sum(-1) - action.square().sum(-1)


def _unrolled(markov: ContinuousWorldModel) -> ContinuousWorldModel:
    """The action-conditioned model that a Markov model is, unrolled: its hidden state is the state."""
    assert isinstance(markov.dynamics, MarkovDynamics)
    config = AwmConfig("awm", 3, 2, 100, "rnn", clock=False, reward="known")
    model = ContinuousWorldModel(config, _cost).double()
    assert isinstance(model.dynamics, SequenceDynamics)
    model.dynamics.anchor_embedder = nn.Identity()  # type: ignore[assignment]
    model.dynamics.step_embedder = nn.Identity()  # type: ignore[assignment]
    model.dynamics.decoder = nn.Identity()  # type: ignore[assignment]
    model.dynamics.backbone = _Recurrence(_Add(markov.dynamics.network, 3))
    return model


def test_unrolled_markov_model_is_a_recurrent_action_conditioned_model() -> None:
    """Markov policy gradient = AWM-RNN policy gradient."""
    torch.manual_seed(0)
    config = tiny("markov", "mlp", clock=False, reward="known")
    markov = ContinuousWorldModel(config, _cost).double()
    awm = _unrolled(markov)
    policy, start = _policy(3, 2), torch.randn(BATCH, 3, dtype=torch.float64)
    returns = [_return(model, policy, start, 30) for model in (markov, awm)]
    assert (returns[0] - returns[1]).abs() < 1e-10 * returns[0].abs()
    gradients = [_flat_gradient(value, policy) for value in returns]
    assert gradients[0].norm() > 1e-3
    assert (gradients[0] - gradients[1]).norm() < 1e-10 * gradients[0].norm()


@every(FORMS)
def test_derivatives_are_those_of_finite_differences_past_the_horizon_too(
    family: Family, backbone: BackboneName
) -> None:
    model = make(tiny(family, backbone)).requires_grad_(False)
    start = start_of(model).requires_grad_()
    actions = plan(model, HORIZON + 3).requires_grad_()

    def rollout(start: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        return play(model, model.start(start.unsqueeze(1)), actions)[:2]

    assert torch.autograd.gradcheck(rollout, (start, actions), eps=1e-6, atol=1e-5, rtol=1e-4)


@every(FORMS)
def test_second_derivatives_exist(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone, horizon=2)).requires_grad_(False)
    start, actions = start_of(model), plan(model, 3).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda a: model.imagine(start, a)[1].sum(), actions, atol=1e-4, rtol=1e-3)
    stepped = play(model, model.start(start.unsqueeze(1)), actions)[1].sum()
    (first,) = torch.autograd.grad(stepped, actions, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), actions)
    assert second.isfinite().all()


def _jacobian(model: ContinuousWorldModel, start: Tensor, actions: Tensor, parallel: bool) -> Tensor:
    """ds_{t+1}/da_k of the first environment, without the clock: shape (L, state, L, m)."""

    def follow(plan: Tensor) -> Tensor:
        if parallel:
            return model(start[:1].unsqueeze(1), plan.unsqueeze(0))[0, :, :-1]
        state = model.start(start[:1].unsqueeze(1))
        return play(model, state, plan.unsqueeze(0))[0][0, :, :-1]

    result = torch.autograd.functional.jacobian(follow, actions[0])
    assert isinstance(result, Tensor)
    return result


@pytest.mark.parametrize("parallel", [True, False], ids=["at once", "step by step"])
@every(AWM)
def test_no_state_depends_on_a_later_action(family: Family, backbone: BackboneName, parallel: bool) -> None:
    model = make(tiny(family, backbone))
    steps = HORIZON if parallel else 2 * HORIZON
    found = _jacobian(model, start_of(model), plan(model, steps), parallel)
    for t in range(steps):
        assert (found[t, :, t + 1 :] == 0).all(), f"step {t} looks ahead"
        assert (found[t, :, : t + 1] != 0).any(2).any(0).all(), f"step {t} overlooks an action"


@every([form for form in FORMS if form[0] != "awm"])
def test_no_state_of_the_rivals_depends_on_a_later_action(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone))
    found = _jacobian(model, start_of(model), plan(model, 2 * HORIZON), parallel=False)
    for t in range(2 * HORIZON):
        assert (found[t, :, t + 1 :] == 0).all(), f"step {t} looks ahead"


@every(SEQUENCES)
def test_only_history_conditioned_models_read_the_states_they_predicted(family: Family, backbone: BackboneName) -> None:
    """Whatever is put in place of a predicted state, an action-conditioned model goes on as before, until it re-anchors."""
    model = make(tiny(family, backbone))
    _, _, state = play(model, model.start(start_of(model).unsqueeze(1)), plan(model, 2))
    leaf = state.observation.detach().clone().requires_grad_()
    state = replace(state, observation=leaf)
    later, _, _ = play(model, state, plan(model, HORIZON, seed=5))
    within, past = later[:, : HORIZON - 2, :-1], later[:, HORIZON - 2 :, :-1]
    (through,) = torch.autograd.grad(within.sum(), leaf, retain_graph=True, allow_unused=True)
    assert (through is None or bool((through == 0).all())) == (family == "awm")
    _, _, state = play(model, replace(state, observation=leaf + 1), plan(model, HORIZON - 2, seed=5))
    changed = torch.equal(state.observation[:, :-1], within[:, -1])
    assert changed == (family == "awm")
    assert past.requires_grad


def test_action_conditioned_models_pass_gradients_through_a_state_where_they_re_anchor() -> None:
    model = make(tiny("awm", "transformer"))
    start, actions = start_of(model), plan(model, HORIZON + 2).requires_grad_()
    seen, _ = model.imagine(start, actions)
    (gradient,) = torch.autograd.grad(seen[:, -1].sum(), actions)
    assert (gradient[:, :HORIZON] != 0).any(2).all()
    detached = make(tiny("awm", "transformer", feedback_gradient=0.0))
    for follow in (
        lambda a: detached.imagine(start, a)[0],
        lambda a: play(detached, detached.start(start.unsqueeze(1)), a)[0],
    ):
        (gradient,) = torch.autograd.grad(follow(actions)[:, -1].sum(), actions)
        assert (gradient[:, :HORIZON] == 0).all()
        assert (gradient[:, HORIZON:] != 0).any(2).all()


def _linear_history(b: float, c: float, feedback_gradient: float = 1.0) -> ContinuousWorldModel:
    """s_{t+1} = sum over i <= t of (b a_i + c s_i): every direct derivative is b or c."""
    config = AwmConfig(
        "hwm", 1, 1, 100, "rnn", clock=False, width=1, reward="known", feedback_gradient=feedback_gradient
    )
    model = ContinuousWorldModel(config, _cost).double()
    assert isinstance(model.dynamics, SequenceDynamics)
    with torch.no_grad():
        for parameter in model.dynamics.anchor_embedder.parameters():
            parameter.zero_()
        for parameter, value in zip(model.dynamics.step_embedder.parameters(), ([[c, b]], [0.0]), strict=True):
            parameter.copy_(torch.tensor(value, dtype=torch.float64))
    add = nn.Linear(2, 1, bias=False).double()
    nn.init.ones_(add.weight)
    model.dynamics.backbone = _Recurrence(add)
    model.dynamics.decoder = nn.Identity()  # type: ignore[assignment]
    return model


def _history_gradients(model: ContinuousWorldModel, steps: int) -> Tensor:
    """ds_{1+n}/da_1 for n = 1..steps."""
    actions = torch.full((1, steps, 1), 0.1, dtype=torch.float64, requires_grad=True)
    seen, _, _ = play(model, model.start(torch.ones(1, 1, 1, dtype=torch.float64)), actions)
    return torch.stack([torch.autograd.grad(s, actions, retain_graph=True)[0][0, 0, 0] for s in seen[0, :, 0]])


def test_total_derivative_of_a_history_model_grows_along_circuitous_paths() -> None:
    """D_n = b (1 + c)^(n - 1), and only b if the states fed back are detached."""
    b, c, steps = 0.7, 0.3, 20
    expected = b * (1 + c) ** torch.arange(steps, dtype=torch.float64)
    assert torch.allclose(_history_gradients(_linear_history(b, c), steps), expected, rtol=1e-12)
    direct = _history_gradients(_linear_history(b, c, feedback_gradient=0.0), steps)
    assert torch.allclose(direct, torch.full_like(direct, b), rtol=1e-12)


@pytest.mark.parametrize("backbone", ["rnn", "lstm", "transformer"])
def test_detached_history_model_has_only_the_direct_derivative(backbone: BackboneName) -> None:
    """The direct term: true states in, parallel, and gradients only to the actions."""
    model = make(tiny("hwm", backbone, feedback_gradient=0.0))
    start, actions = start_of(model), plan(model, HORIZON).requires_grad_()
    seen, _, _ = play(model, model.start(start.unsqueeze(1)), actions)
    told = torch.cat([start.unsqueeze(1), seen[:, :-1]], 1).detach()
    gradients = [torch.autograd.grad(states[:, -1].sum(), actions)[0] for states in (seen, model(told, actions))]
    assert (gradients[0] - gradients[1]).abs().max() < 1e-10
    whole = make(tiny("hwm", backbone))
    seen, _, _ = play(whole, whole.start(start.unsqueeze(1)), actions)
    (total,) = torch.autograd.grad(seen[:, -1].sum(), actions)
    assert (total - gradients[0]).abs().max() > 1e-4


def test_share_of_the_gradient_decays_with_every_state_on_the_way() -> None:
    """The released Markov rival: paths through n predicted states count 0.9^n."""
    share, steps = 0.9, 6
    jacobians = []
    for feedback in (1.0, share):
        model = make(tiny("markov", "mlp", feedback_gradient=feedback))
        jacobians.append(_jacobian(model, start_of(model), plan(model, steps), parallel=False))
    for t in range(steps):
        for k in range(t + 1):
            assert torch.allclose(jacobians[1][t, :, k], jacobians[0][t, :, k] * share ** (t - k), rtol=1e-10)


@every(AWM)
def test_policy_gradient_in_one_pass_equals_that_of_the_closed_loop(family: Family, backbone: BackboneName) -> None:
    """Roll out without gradients, evaluate the policy on those states, imagine its actions: the same gradient."""
    model = make(tiny(family, backbone))
    policy, start = _policy(4, 2), start_of(model)
    expected = _flat_gradient(_return(model, policy, start, HORIZON), policy)
    with torch.no_grad():
        state, states = model.start(start.unsqueeze(1)), []
        for _ in range(HORIZON):
            states.append(model.observe(state))
            state, _ = model.step(state, policy(states[-1]), NO_NOISE)
    _, rewards = model.imagine(start, policy(torch.stack(states, 1)))
    assert (_flat_gradient(rewards.sum(), policy) - expected).norm() < 1e-10 * expected.norm()


class _Growth(nn.Module):
    """The change in an Euler step of x' = x + u, from state, clock and action."""

    def forward(self, inputs: Tensor) -> Tensor:
        return 0.1 * (inputs[..., :1] + inputs[..., 2:])


def test_perfect_model_imagines_the_real_return_with_the_terminal_reward_in_time() -> None:
    """The terminal reward fires at the clock H - 1, on the state before the last step."""
    steps = 10

    def reward(observation: Tensor, action: Tensor) -> Tensor:
        terminal = torch.where(observation[..., 1] == steps - 1, 5 * observation[..., 0], 0.0)
        return -0.1 * action[..., 0] ** 2 + terminal

    model = ContinuousWorldModel(AwmConfig("markov", 1, 1, steps, "mlp", prediction="delta", reward="known"), reward)
    model = model.double()
    model.dynamics.network = _Growth()
    actions = torch.linspace(-1, 1, steps, dtype=torch.float64)
    x, real = 0.5, 0.0
    for clock, u in enumerate(actions.tolist()):
        real += -0.1 * u**2 + (5 * x if clock == steps - 1 else 0)
        x += 0.1 * (x + u)
    start = torch.tensor([[[0.5, 0.0]]], dtype=torch.float64)
    _, rewards, _ = play(model, model.start(start), actions.view(1, -1, 1))
    assert rewards.sum().item() == pytest.approx(real, rel=1e-12)


@every(FORMS)
def test_a_start_and_its_context_have_gradients(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone))
    context = torch.stack([start_of(model, seed) for seed in range(3)], 1).requires_grad_()
    actions = plan(model, 2).requires_grad_()
    seen, _, _ = play(model, model.start(context, actions), plan(model, 2, seed=8))
    state, action = torch.autograd.grad(seen[:, -1].sum(), [context, actions], allow_unused=True)
    assert (state[:, -1] != 0).any(1).all()
    assert (action is not None) == (family == "hwm")
    assert bool((state[:, 0] != 0).any()) == (family == "hwm")
