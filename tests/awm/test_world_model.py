"""Continuous-state models behind the protocol: rollouts, windows, contexts, rewards, and what is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from learned_envs.awm.config import BackboneName, Family
from learned_envs.awm.world_model import ContinuousWorldModel
from tests.awm.models import BATCH, FORMS, HORIZON, NO_NOISE, SEQUENCES, every, make, plan, play, start_of, tiny


@pytest.fixture
def awm() -> ContinuousWorldModel:
    return make(tiny("awm", "transformer"))


@pytest.mark.parametrize("prediction", ["absolute", "delta"])
@every(FORMS)
def test_step_by_step_equals_the_whole_window_at_once(family: Family, backbone: BackboneName, prediction: str) -> None:
    model = make(tiny(family, backbone, prediction=prediction))
    start, actions = start_of(model), plan(model, HORIZON)
    stepped, _, _ = play(model, model.start(start.unsqueeze(1)), actions)
    told = torch.cat([start.unsqueeze(1), stepped[:, :-1]], 1)  # its own predictions, as in imagination
    whole = model(told, actions)
    assert (whole - stepped).abs().max() < 1e-10
    assert (stepped[:, 1:] - stepped[:, :-1])[..., :-1].abs().min() > 1e-6, "nothing moves: the test shows nothing"


@every(FORMS)
def test_imagining_a_plan_equals_stepping_far_past_the_horizon(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone))
    start, actions = start_of(model), plan(model, 3 * HORIZON + 2).requires_grad_()
    stepped = play(model, model.start(start.unsqueeze(1)), actions)[:2]
    imagined = model.imagine(start, actions)
    for mine, theirs in zip(imagined, stepped, strict=True):
        assert (mine - theirs).abs().max() < 1e-10
    gradients = [
        torch.autograd.grad((seen**2).sum() + rewards.sum(), actions)[0] for seen, rewards in (imagined, stepped)
    ]
    assert (gradients[0] - gradients[1]).abs().max() < 1e-10 * gradients[0].abs().max()


@every(FORMS)
def test_predictions_are_shown_within_the_bounds_and_go_on_beyond_them(family: Family, backbone: BackboneName) -> None:
    free, bounded = make(tiny(family, backbone)), make(tiny(family, backbone))
    start, actions = start_of(free), plan(free, HORIZON + 2).requires_grad_()
    expected, rewards, state = play(free, free.start(start.unsqueeze(1)), actions)
    first, second, third = expected.detach()[..., :3].mean((0, 1)).tolist()
    bounds = [(-torch.inf, first), (second, torch.inf), (third - 99, third + 99), (0.0, 99.0)]
    bounded.use_bounds(bounds)
    assert bounded.state_dict().keys() == free.state_dict().keys()
    wanted = expected.clamp(bounded.lowest, bounded.highest)
    assert [bool((wanted != expected)[..., number].any()) for number in range(4)] == [True, True, False, False]
    shown, gained, hidden = play(bounded, bounded.start(start.unsqueeze(1)), actions)
    assert torch.equal(shown, wanted) and torch.equal(gained, rewards)
    assert torch.equal(hidden.observation, state.observation)
    for mine, theirs in zip(bounded.imagine(start, actions), (shown, gained), strict=True):
        assert (mine - theirs).abs().max() < 1e-10
    beyond = expected[0, -1] != wanted[0, -1]
    for number in range(3):
        (gradient,) = torch.autograd.grad(shown[0, -1, number], actions, retain_graph=True)
        assert bool((gradient == 0).all()) == bool(beyond[number])


def test_bounds_of_another_observation_are_refused(awm: ContinuousWorldModel) -> None:
    with pytest.raises(ValueError, match="bounds has 3 pairs, expected 4"):
        awm.use_bounds([(0.0, 1.0)] * 3)


@every(SEQUENCES)
def test_past_the_horizon_a_window_begins_at_the_state_predicted_last(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone))
    start, actions = start_of(model), plan(model, 2 * HORIZON + 1)
    whole, _, _ = play(model, model.start(start.unsqueeze(1)), actions)
    for turn in (HORIZON, 2 * HORIZON):
        state = model.start(whole[:, turn - 1].unsqueeze(1))
        rest, _, _ = play(model, state, actions[:, turn:])
        assert torch.equal(rest, whole[:, turn:]), "the rollout does not go on as from a fresh start"
    early = model.start(whole[:, HORIZON - 2].unsqueeze(1))
    rest, _, _ = play(model, early, actions[:, HORIZON - 1 :])
    assert not torch.allclose(rest[:, 0], whole[:, HORIZON - 1]), "the model forgets before the horizon"


@every(FORMS)
def test_memory_has_one_size_however_long_the_rollout(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone))
    state, sizes = model.start(start_of(model).unsqueeze(1)), set()
    with torch.no_grad():
        for action in plan(model, 5 * HORIZON).unbind(1):
            state, _ = model.step(state, action, NO_NOISE)
            sizes.add(tuple((name, tuple(x.shape), x.untyped_storage().nbytes()) for name, x in state.tensors()))
    assert len(sizes) == 1


@every(FORMS)
def test_environments_at_different_steps_do_not_disturb_each_other(family: Family, backbone: BackboneName) -> None:
    """A batch of which one was reset on the way equals environments that are alone."""
    model = make(tiny(family, backbone))
    actions = plan(model, 2 * HORIZON)
    state = model.start(start_of(model).unsqueeze(1))
    _, _, state = play(model, state, actions[:, :4])
    other = model.start(start_of(model, 7).unsqueeze(1))
    mixed = other.where(torch.tensor([False, True, False]), state)
    seen, rewards, _ = play(model, mixed, actions[:, 4:])
    for row, alone in enumerate((state, other, state)):
        expected, gained, _ = play(model, alone, actions[:, 4:])
        assert (seen[row] - expected[row]).abs().max() < 1e-12
        assert (rewards[row] - gained[row]).abs().max() < 1e-12


@every(FORMS)
def test_states_can_be_forked_and_are_not_changed(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone))
    _, _, state = play(model, model.start(start_of(model).unsqueeze(1)), plan(model, 3))
    before = state.clone()
    first, _, _ = play(model, state, plan(model, 5))
    for (name, mine), (_, kept) in zip(state.tensors(), before.tensors(), strict=True):
        assert torch.equal(mine, kept), name
    again, _, _ = play(model, state.take(torch.tensor([2, 0, 0])), plan(model, 5)[[2, 0, 0]])
    assert torch.allclose(again, first[[2, 0, 0]], rtol=0, atol=1e-12)


def test_clock_counts_from_the_start_and_through_every_window(awm: ContinuousWorldModel) -> None:
    """The released code labelled imagined steps 0, 2, 3, ..."""
    start = start_of(awm)
    start[:, -1] = torch.tensor([0.0, 0.0, 40.0])
    seen, _, _ = play(awm, awm.start(start.unsqueeze(1)), plan(awm, 2 * HORIZON))
    steps = torch.arange(1, 2 * HORIZON + 1)
    assert torch.equal(seen[0, :, -1], steps.double())
    assert torch.equal(seen[2, :, -1], steps.double() + 40)
    whole = awm(start.unsqueeze(1), plan(awm, HORIZON))
    assert torch.equal(whole[..., -1], seen[:, :HORIZON, -1])


@every(FORMS)
def test_without_a_clock_every_number_is_predicted(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone, clock=False))
    assert model.observation_shape == (3,)
    seen, _, _ = play(model, model.start(start_of(model).unsqueeze(1)), plan(model, HORIZON + 2))
    assert seen.shape == (BATCH, HORIZON + 2, 3)
    assert (seen[:, 1:, -1] - seen[:, :-1, -1] - 1).abs().min() > 1e-6


@every(FORMS)
def test_imagination_begins_at_the_last_observation_of_a_context(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone))
    context = torch.stack([start_of(model, seed) for seed in range(4)], 1)
    actions = plan(model, 3)
    state = model.start(context, actions, torch.zeros(BATCH, 3))
    assert torch.equal(model.observe(state), context[:, -1])
    went_on, _, _ = play(model, state, plan(model, 2, seed=9))
    alone, _, _ = play(model, model.start(context[:, -1:]), plan(model, 2, seed=9))
    # Only a history-conditioned model looks back.
    assert torch.equal(went_on, alone) == (family != "hwm")
    if family == "hwm":
        whole = model(context, torch.cat([actions, plan(model, 1, seed=9)], 1))
        assert (whole[:, -1] - went_on[:, 0]).abs().max() < 1e-10


@every(FORMS)
def test_state_does_not_change_with_the_context_it_began_with(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone))
    observations = torch.stack([start_of(model)] * 3, 1)
    for steps in (1, 3):
        given = observations[:, :steps].clone()
        state = model.start(given, plan(model, steps - 1))
        given.zero_()
        assert torch.equal(state.observation, observations[:, 0]) and (state.anchor != 0).all()


def test_of_a_context_longer_than_the_horizon_the_newest_steps_are_remembered() -> None:
    model = make(tiny("hwm", "transformer"))
    context = torch.stack([start_of(model, seed) for seed in range(2 * HORIZON)], 1)
    actions = plan(model, 2 * HORIZON - 1)
    state = model.start(context, actions)
    newest = model.start(context[:, -HORIZON:], actions[:, 1 - HORIZON :])
    for (name, mine), (_, theirs) in zip(state.tensors(), newest.tensors(), strict=True):
        assert torch.equal(mine, theirs), name
    assert (state.position == HORIZON - 1).all()


def test_horizon_of_one_step_works() -> None:
    model = make(tiny("awm", "transformer", horizon=1))
    start, actions = start_of(model), plan(model, 4)
    seen, _, _ = play(model, model.start(start.unsqueeze(1)), actions)
    assert (model.imagine(start, actions)[0] - seen).abs().max() < 1e-10


@every(FORMS)
def test_episodes_never_end_by_themselves_and_noise_is_not_asked_for(family: Family, backbone: BackboneName) -> None:
    model = make(tiny(family, backbone))
    _, prediction = model.step(model.start(start_of(model).unsqueeze(1)), plan(model, 1)[:, 0], NO_NOISE)
    assert model.noise_size == 0
    assert prediction.end_probability.tolist() == [0.0] * BATCH
    assert prediction.reward.shape == (BATCH,)


def _cost(observation: Tensor, action: Tensor) -> Tensor:
    return -(observation[..., 0] ** 2) - action.square().sum(-1)


def test_known_reward_is_that_of_the_state_in_which_the_action_is_taken() -> None:
    model = make(tiny("awm", "transformer", reward="known"), _cost)
    start, actions = start_of(model), plan(model, HORIZON)
    seen, rewards, _ = play(model, model.start(start.unsqueeze(1)), actions)
    before = torch.cat([start.unsqueeze(1), seen[:, :-1]], 1)
    assert torch.allclose(rewards, _cost(before, actions), rtol=1e-12)


class _Reward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        return observation[..., :3] @ self.weight


def test_known_reward_never_becomes_part_of_the_weights() -> None:
    without = make(tiny("awm", "rnn", reward="known"))
    model = make(tiny("awm", "rnn", reward="known"), _Reward())
    assert model.state_dict().keys() == without.state_dict().keys()
    assert len(list(model.parameters())) == len(list(without.parameters()))
    model.step(model.start(start_of(model).unsqueeze(1)), plan(model, 1)[:, 0], NO_NOISE)


def test_known_reward_that_nobody_told_or_of_a_wrong_shape_is_an_error() -> None:
    model = make(tiny("awm", "rnn", reward="known"))
    state, action = model.start(start_of(model).unsqueeze(1)), plan(model, 1)[:, 0]
    with pytest.raises(ValueError, match="call use_reward"):
        model.step(state, action, NO_NOISE)
    model.use_reward(lambda observation, action: _cost(observation, action).unsqueeze(-1))
    with pytest.raises(ValueError, match=r"returned shape \(3, 1\), expected \(3,\)"):
        model.step(state, action, NO_NOISE)
    with pytest.raises(ValueError, match='reward is "learned"'):
        ContinuousWorldModel(tiny("awm", "rnn"), _cost)


@every(FORMS)
def test_scales_are_part_of_the_weights_and_predictions_are_in_the_users_units(
    family: Family, backbone: BackboneName
) -> None:
    """Measured in other units, the same network predicts the same thing."""
    model = make(tiny(family, backbone))
    other = make(tiny(family, backbone))
    assert "observation_normalizer.scale" in model.state_dict()
    factor = torch.tensor([1000.0, 0.01, -1.0, 1.0], dtype=torch.float64)
    for normalizer, units in ((other.observation_normalizer, factor), (other.target_normalizer, factor[:3])):
        normalizer.mean.mul_(units)
        normalizer.scale.mul_(units)
    start, actions = start_of(model), plan(model, HORIZON)
    expected, rewards, _ = play(model, model.start(start.unsqueeze(1)), actions)
    found, same, _ = play(other, other.start((start * factor).unsqueeze(1)), actions)
    assert torch.allclose(found, expected * factor, rtol=1e-9)
    assert torch.allclose(same, rewards, rtol=1e-9)


@pytest.mark.parametrize("prediction", ["absolute", "delta"])
def test_targets_of_the_network_have_unit_size(prediction: str) -> None:
    config = tiny("awm", "transformer", prediction=prediction)
    model = ContinuousWorldModel(config).double()
    torch.manual_seed(0)
    windows = torch.randn(40, HORIZON + 1, 4, dtype=torch.float64).cumsum(1) * 300
    model.fit_normalization(windows, torch.randn(40, HORIZON))
    base = windows[:, :1, :3] if prediction == "delta" else 0
    target = model.target_normalizer(windows[:, 1:, :3] - base).flatten(0, 1)
    assert target.mean(0).abs().max() < 1e-10
    assert (target.std(0, correction=0) - 1).abs().max() < 1e-10


def test_scales_cannot_be_fitted_to_what_does_not_fit(awm: ContinuousWorldModel) -> None:
    with pytest.raises(ValueError, match=r"expected \(B, L \+ 1, 4\)"):
        awm.fit_normalization(torch.zeros(5, 4), torch.zeros(5))
    with pytest.raises(ValueError, match="rewards is missing"):
        awm.fit_normalization(torch.zeros(5, 2, 4))


_GOOD = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ((torch.zeros(2, 4),), r"observations has shape \(2, 4\), expected \(B, T, 4\)"),
        ((torch.zeros(2, 1, 3),), r"expected \(B, T, 4\)"),
        ((torch.zeros(2, 0, 4),), "T >= 1"),
        ((torch.zeros(2, 1, 4, dtype=torch.int64),), "observations has dtype torch.int64"),
        ((torch.full((2, 1, 4), torch.nan),), "observations has NaN"),
        ((torch.full((2, 1, 4), torch.inf),), "infinite"),
        ((_GOOD,), "actions is missing: 3 context steps need the 2 actions"),
        ((_GOOD, torch.zeros(2, 3, 2)), r"actions has shape \(2, 3, 2\), expected \(2, 2, 2\)"),
        ((_GOOD, torch.zeros(2, 2)), r"actions has shape \(2, 2\)"),
        ((_GOOD, torch.full((2, 2, 2), torch.nan)), "actions has NaN"),
        ((_GOOD, torch.zeros(2, 2, 2), torch.zeros(2, 3)), r"rewards has shape \(2, 3\), expected \(2, 2\)"),
        ((_GOOD, torch.zeros(2, 2, 2), torch.full((2, 2), torch.nan)), "rewards has NaN"),
    ],
)
def test_contexts_that_do_not_fit_are_refused(
    awm: ContinuousWorldModel, context: tuple[Tensor, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        awm.start(*context)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.zeros(BATCH), r"action has shape \(3,\), expected \(3, 2\)"),
        (torch.zeros(BATCH, 1), r"expected \(3, 2\)"),
        (torch.zeros(BATCH + 1, 2), r"expected \(3, 2\)"),
        (torch.zeros(BATCH, 2, dtype=torch.int64), "action has dtype torch.int64"),
    ],
)
def test_actions_that_do_not_fit_are_refused(awm: ContinuousWorldModel, action: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        awm.step(awm.start(start_of(awm).unsqueeze(1)), action, NO_NOISE)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m(torch.zeros(2, 5, 4), torch.zeros(2, 4, 2)), r"expected \(2, 4, 4\)"),
        (lambda m: m(torch.zeros(2, 4, 4), torch.zeros(2, 4, 3)), r"expected \(B, L, 2\)"),
        (lambda m: m(torch.zeros(2, 0, 4), torch.zeros(2, 0, 2)), "L >= 1"),
        (lambda m: m(torch.zeros(2, 7, 4), torch.zeros(2, 7, 2)), "the horizon is 6: split the episode"),
    ],
)
def test_windows_that_do_not_fit_are_refused(
    awm: ContinuousWorldModel, call: Callable[[ContinuousWorldModel], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call(awm)


@pytest.mark.parametrize("form", [("markov", "mlp"), ("hwm", "rnn"), ("awm", "transformer")])
@pytest.mark.parametrize(
    ("observation", "actions", "message"),
    [
        ((2, 4), (2, 2), r"actions has shape \(2, 2\), expected \(2, L, 2\) with L >= 1"),
        ((2, 4), (2, 0, 2), "L >= 1"),
        ((2, 4), (2, 5, 3), r"expected \(2, L, 2\)"),
        ((2, 4), (3, 5, 2), r"expected \(2, L, 2\)"),
        ((4,), (2, 5, 2), r"observation has shape \(4,\), expected \(B, 4\)"),
        ((2, 1, 4), (2, 5, 2), r"observation has shape \(2, 1, 4\)"),
    ],
)
def test_plans_that_do_not_fit_are_refused(
    form: tuple[Family, BackboneName], observation: tuple[int, ...], actions: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make(tiny(*form)).imagine(torch.zeros(observation), torch.zeros(actions))


def test_single_precision_goes_the_same_way() -> None:
    model = make(tiny("awm", "transformer"))
    start, actions = start_of(model), plan(model, 3 * HORIZON)
    exact, _ = model.imagine(start, actions)
    rounded, _, _ = play(model.float(), model.start(start.unsqueeze(1)), actions)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().max() < 1e-3


def test_share_of_gradients_does_not_change_predictions() -> None:
    config = tiny("hwm", "lstm")
    models = [make(replace(config, feedback_gradient=share)) for share in (1.0, 0.9, 0.0)]
    start, actions = start_of(models[0]), plan(models[0], 2 * HORIZON)
    exact, *others = (play(model, model.start(start.unsqueeze(1)), actions)[0] for model in models)
    assert all(torch.equal(other, exact) for other in others)
