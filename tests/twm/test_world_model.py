"""The transformer world model behind the common protocol: what a step draws, feeds back and shows."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from learned_envs.twm.world_model import TransformerWorldModel, TwmState
from tests.tiny import KINDS, NUM_ACTIONS, TinyKind, last_bias, last_layer, tiny_config, tiny_model, tiny_starts

both = pytest.mark.parametrize("kind", KINDS)


def _state(model: TransformerWorldModel, batch: int = 4) -> TwmState:
    observations, actions, rewards = tiny_starts(model.config).contexts("anywhere")
    return model.start(observations[:batch], actions[:batch], rewards[:batch])


def _noise(model: TransformerWorldModel, batch: int = 4, seed: int = 0) -> Tensor:
    return torch.rand(batch, model.noise_size, generator=torch.Generator().manual_seed(seed))


def _actions(batch: int = 4) -> Tensor:
    return torch.arange(batch) % NUM_ACTIONS


def _fix_output(head: torch.nn.Sequential, bias: Tensor) -> None:
    """Make a head say the same, whatever its input."""
    with torch.no_grad():
        last_layer(head).weight.zero_()
        last_bias(head).copy_(bias)


@both
def test_longer_context_is_a_shorter_one_continued_by_what_was_recorded(kind: TinyKind) -> None:
    model = tiny_model(kind)
    observations, actions, rewards = tiny_starts(model.config).contexts("anywhere")
    whole = model.start(observations, actions, rewards)
    shorter = model.start(observations[:, :-1], actions[:, :-1], rewards[:, :-1])
    _, memory = model.dynamics.step(shorter.latent.flatten(1), actions[:, -1], shorter.reward, shorter.memory)
    assert torch.equal(memory.valid, whole.memory.valid)
    valid = memory.valid[:, None, :, None]
    for mine, theirs in ((memory.keys, whole.memory.keys), (memory.values, whole.memory.values)):
        assert torch.allclose(mine * valid, theirs * valid, atol=1e-5)
    assert torch.equal(whole.reward, rewards[:, -1].tanh())


@both
def test_only_the_end_of_a_long_context_is_looked_at(kind: TinyKind) -> None:
    """As much of it as layers can reach, each of which looks back by ``context`` steps."""
    model = tiny_model(kind)
    reach = model.config.transformer.layers * model.config.context + 1
    draws = np.random.default_rng(0)
    steps = reach + 30
    observations = torch.from_numpy(draws.integers(256, size=(2, steps, *model.observation_shape), dtype=np.uint8))
    if model.config.observation.frames_per_code == 1:  # stacks share their frames
        for step in range(1, steps):
            observations[:, step, :-1] = observations[:, step - 1, 1:]
    actions, rewards = torch.from_numpy(draws.integers(NUM_ACTIONS, size=(2, steps - 1))), torch.ones(2, steps - 1)
    seen: list[int] = []
    remember = model.dynamics.remember

    def count(latents: Tensor, *others: Tensor) -> Any:
        seen.append(latents.shape[1])
        return remember(latents, *others)

    model.dynamics.remember = count  # type: ignore[method-assign]
    whole = model.start(observations, actions, rewards)
    cut = model.start(observations[:, -reach:], actions[:, 1 - reach :], rewards[:, 1 - reach :])
    assert seen[0] == seen[1] < steps - 1
    assert all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in zip(whole.tensors(), cut.tensors(), strict=True))
    model.config = replace(model.config, context=10 * steps)  # nothing is cut
    longest = model.start(observations, actions, rewards)
    valid = whole.memory.valid[:, None, :, None]
    for mine, theirs in ((whole.memory.keys, longest.memory.keys), (whole.memory.values, longest.memory.values)):
        assert torch.allclose(mine * valid, theirs * valid, atol=1e-5)


@both
def test_start_shows_the_last_observation_of_the_context(kind: TinyKind) -> None:
    model = tiny_model(kind)
    observations, actions, rewards = tiny_starts(model.config).contexts("anywhere")
    assert torch.equal(model.observe(model.start(observations, actions, rewards)), observations[:, -1])
    assert torch.equal(model.observe(model.start(observations[:, :1])), observations[:, 0])


@both
def test_rewards_that_are_left_out_are_zero(kind: TinyKind) -> None:
    model = tiny_model(kind)
    observations, actions, rewards = tiny_starts(model.config).contexts("anywhere")
    given, left_out = (
        model.start(observations, actions, torch.zeros_like(rewards)),
        model.start(observations, actions),
    )
    assert all(
        torch.equal(mine, theirs) for (_, mine), (_, theirs) in zip(given.tensors(), left_out.tensors(), strict=True)
    )


@both
def test_rewards_and_actions_of_the_context_matter(kind: TinyKind) -> None:
    model = tiny_model(kind)
    observations, actions, rewards = tiny_starts(model.config).contexts("anywhere")
    changes = {
        "nothing": (actions, rewards),
        "actions": ((actions + 1) % NUM_ACTIONS, rewards),
        "rewards": (actions, rewards + 1),
    }
    noise = _noise(model, len(observations))
    predicted = {
        name: model.step(model.start(observations, *change), actions[:, 0], noise)[1].end_probability
        for name, change in changes.items()
    }
    for name in ("actions", "rewards"):
        assert not torch.allclose(predicted[name], predicted["nothing"], atol=1e-7), f"{name} were not used"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"observations": torch.zeros(2, 4, 64, 64, dtype=torch.uint8)}, "observations"),
        ({"observations": torch.zeros(2, 0, 4, 64, 64, dtype=torch.uint8)}, "observations"),
        ({"observations": torch.zeros(2, 3, 1, 64, 64, dtype=torch.uint8)}, "observations"),
        ({"observations": torch.zeros(2, 3, 4, 64, 64)}, "observations has dtype torch.float32"),
        ({"actions": torch.zeros(2, 2)}, "actions has dtype torch.float32"),
        ({"actions": torch.zeros(2, 2, dtype=torch.uint8)}, "actions has dtype torch.uint8, expected torch.int64"),
        ({"actions": torch.zeros(2, 2, dtype=torch.bool)}, "actions has dtype torch.bool"),
        ({"actions": torch.full((2, 2), NUM_ACTIONS)}, "actions contains 3, expected integers from 0 to 2"),
        ({"actions": torch.full((2, 2), -1)}, "actions contains -1"),
        ({"actions": None}, "actions"),
        ({"actions": torch.zeros(2, 3, dtype=torch.int64)}, "actions"),
        ({"rewards": torch.zeros(2, 1)}, "rewards"),
    ],
)
def test_context_that_does_not_fit_is_named(change: dict[str, Tensor], word: str) -> None:
    context = {
        "observations": torch.zeros(2, 3, 4, 64, 64, dtype=torch.uint8),
        "actions": torch.zeros(2, 2, dtype=torch.int64),
        "rewards": torch.zeros(2, 2),
    }
    with pytest.raises(ValueError, match=word):
        tiny_model("compact").start(**(context | change))


@both
@pytest.mark.parametrize(
    ("action", "words"),
    [
        (torch.tensor([0, 1, 2, NUM_ACTIONS]), "action contains 3, expected integers from 0 to 2"),
        (torch.tensor([0, 1, 2, -1]), "action contains -1"),
        (torch.zeros(4, dtype=torch.bool), "action has dtype torch.bool, expected torch.int64"),
    ],
)
def test_action_that_there_is_not_is_refused(kind: TinyKind, action: Tensor, words: str) -> None:
    model = tiny_model(kind)
    with pytest.raises(ValueError, match=words):
        model.step(_state(model), action, _noise(model))


@both
def test_step_leaves_the_given_state_as_it_is(kind: TinyKind) -> None:
    model = tiny_model(kind)
    state = _state(model)
    before = state.clone()
    model.step(state, _actions(), _noise(model))
    for (name, mine), (_, theirs) in zip(state.tensors(), before.tensors(), strict=True):
        assert torch.equal(mine, theirs), f"{name} was changed"


@both
def test_same_noise_gives_the_same_step(kind: TinyKind) -> None:
    model = tiny_model(kind)
    state = _state(model)
    for (name, mine), (_, theirs) in zip(
        model.step(state, _actions(), _noise(model))[0].tensors(),
        model.step(state, _actions(), _noise(model))[0].tensors(),
        strict=True,
    ):
        assert torch.equal(mine, theirs), f"{name} differs"


def test_planning_without_pictures_changes_nothing_else() -> None:
    model = tiny_model("compact")
    state = _state(model)
    seen, told = model.step(state, _actions(), _noise(model))
    unseen, again = model.step(state, _actions(), _noise(model), decode=False)
    assert torch.equal(model.observe(unseen), state.frames)
    assert torch.equal(unseen.latent, seen.latent) and torch.equal(unseen.memory.keys, seen.memory.keys)
    assert torch.equal(told.reward, again.reward) and torch.equal(told.end_probability, again.end_probability)


@both
def test_new_frames_push_out_the_oldest(kind: TinyKind) -> None:
    model = tiny_model(kind)
    state = _state(model)
    after, _ = model.step(state, _actions(), _noise(model))
    new = (model.decode(after.latent) * 255).round().to(torch.uint8)
    kept = model.config.observation.stack - model.config.observation.frames_per_code
    assert torch.equal(after.frames[:, kept:], new)
    assert torch.equal(after.frames[:, :kept], state.frames[:, -kept:] if kept else state.frames[:, :0])


def test_latents_are_drawn_from_the_forecast() -> None:
    model = tiny_model("faithful")
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    _fix_output(model.dynamics.latent_head, probabilities.log().repeat(model.config.observation.latent.variables))
    state = _state(model).take(torch.zeros(2000, dtype=torch.int64))
    after, _ = model.step(state, torch.zeros(2000, dtype=torch.int64), _noise(model, 2000), decode=False)
    assert torch.equal(after.latent.sum(-1), torch.ones(2000, 4)) and set(after.latent.unique().tolist()) == {0.0, 1.0}
    frequencies = after.latent.mean(0)
    assert torch.allclose(frequencies, probabilities.expand(4, 4), atol=4 * (0.25 / 2000) ** 0.5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_sharpens_or_blurs_the_draw(temperature: float) -> None:
    model = TransformerWorldModel(replace(tiny_config("faithful"), temperature=temperature)).eval()
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    _fix_output(model.dynamics.latent_head, probabilities.log().repeat(model.config.observation.latent.variables))
    state = _state(model).take(torch.zeros(2000, dtype=torch.int64))
    after, _ = model.step(state, torch.zeros(2000, dtype=torch.int64), _noise(model, 2000), decode=False)
    expected = probabilities ** (1 / temperature)
    assert torch.allclose(after.latent.mean((0, 1)), expected / expected.sum(), atol=4 * (0.25 / 8000) ** 0.5)


def test_temperature_zero_takes_the_most_likely_class_whatever_the_noise() -> None:
    model = tiny_model("compact")
    assert model.config.temperature == 0
    state = _state(model)
    first, second = (model.step(state, _actions(), _noise(model, seed=seed))[0] for seed in (1, 2))
    assert torch.equal(first.latent, second.latent)
    forecast, _ = model.dynamics.step(state.latent.flatten(1), _actions(), state.reward, state.memory)
    assert torch.equal(first.latent.argmax(-1), forecast.latent[:, 0].argmax(-1))


def test_rewards_are_drawn_from_the_values_that_exist() -> None:
    model = tiny_model("compact", config=replace(tiny_config("compact"), temperature=1.0))
    probabilities = torch.tensor([0.2, 0.7, 0.1])
    _fix_output(model.dynamics.reward_head, probabilities.log())
    state = _state(model).take(torch.zeros(5000, dtype=torch.int64))
    after, prediction = model.step(state, torch.zeros(5000, dtype=torch.int64), _noise(model, 5000), decode=False)
    found = torch.stack([(prediction.reward == value).float().mean() for value in (-1.0, 0.0, 1.0)])
    assert torch.allclose(found, probabilities, atol=4 * (0.25 / 5000) ** 0.5)
    assert torch.equal(after.reward, prediction.reward.tanh()), "the model is told squashed rewards"


def test_temperature_zero_takes_the_most_likely_reward_whatever_the_noise() -> None:
    model = tiny_model("compact")
    _fix_output(model.dynamics.reward_head, torch.tensor([0.2, 0.3, 0.5]).log())
    for seed in range(3):
        assert model.step(_state(model), _actions(), _noise(model, seed=seed))[1].reward.tolist() == [1.0] * 4


def test_mean_of_a_normal_reward_is_fed_back_as_it_was_predicted() -> None:
    """It was fitted to squashed rewards, and so is squashed already."""
    model = tiny_model("faithful")
    _fix_output(model.dynamics.reward_head, torch.tensor([0.75]))
    after, prediction = model.step(_state(model), _actions(), _noise(model))
    assert prediction.reward.tolist() == [0.75] * 4
    assert after.reward.tolist() == [0.75] * 4


@pytest.mark.parametrize(
    ("kind", "discount", "end"),
    [
        ("faithful", 0.99, 0.0),  # the target while the game goes on
        ("faithful", 0.495, 0.5),
        ("faithful", 0.999, 0.0),
        ("faithful", 1e-6, 1.0),
        ("compact", 0.75, 0.25),
        ("compact", 1 - 1e-6, 0.0),
    ],
)
def test_end_is_what_the_discount_lacks(kind: TinyKind, discount: float, end: float) -> None:
    model = tiny_model(kind)
    _fix_output(model.dynamics.discount_head, torch.tensor([discount]).logit())
    prediction = model.step(_state(model), _actions(), _noise(model))[1]
    assert prediction.end_probability.tolist() == pytest.approx([end] * 4, abs=1e-5)


def _uniform_actions(batch: int = 4) -> Tensor:
    return torch.full((batch, NUM_ACTIONS), 1 / NUM_ACTIONS, requires_grad=True)


@both
def test_gradients_reach_probabilities_of_actions_through_straight_through_latents(kind: TinyKind) -> None:
    model = tiny_model(kind)
    plan = [_uniform_actions() for _ in range(3)]
    state = _state(model)
    for action in plan[:-1]:
        state, _ = model.step(state, action, _noise(model))
    state, prediction = model.step(state, plan[-1], _noise(model))
    for outcome in (prediction.reward, prediction.end_probability, model.decode(state.latent).flatten(1).mean(1)):
        gradients = torch.autograd.grad(outcome.sum(), plan, retain_graph=True)
        for step, gradient in enumerate(gradients):
            assert gradient.isfinite().all()
            assert (gradient != 0).any(1).float().mean() >= 0.5, f"action {step} is not reached"


def test_gradient_of_a_drawn_latent_is_that_of_its_probabilities() -> None:
    model = tiny_model("faithful")
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().repeat(model.config.observation.latent.variables)
    _fix_output(model.dynamics.latent_head, logits)
    latent = model.step(_state(model), _actions(), _noise(model))[0].latent
    (gradient,) = torch.autograd.grad(latent[0, 0, 2], last_bias(model.dynamics.latent_head))
    # Of a softmax: p_2 (1 - p_2) for the class itself, -p_2 p_k for the others, nothing for other variables.
    assert torch.allclose(gradient[:4], torch.tensor([-0.03, -0.06, 0.21, -0.12]), atol=1e-6)
    assert not gradient[4:].any()


def test_gradient_of_a_drawn_reward_is_that_of_its_mean() -> None:
    model = tiny_model("compact")
    _fix_output(model.dynamics.reward_head, torch.tensor([0.2, 0.7, 0.1]).log())
    reward = model.step(_state(model), _actions(), _noise(model))[1].reward
    (gradient,) = torch.autograd.grad(reward[0], last_bias(model.dynamics.reward_head))
    # p_k (v_k - mean), with mean -0.1.
    assert torch.allclose(gradient, torch.tensor([0.2 * -0.9, 0.7 * 0.1, 0.1 * 1.1]), atol=1e-6)
