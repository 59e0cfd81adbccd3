"""The dynamics of both token layouts: what a forecast depends on, and that a memory changes nothing."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from learned_envs.twm.config import TwmConfig, compact, faithful
from learned_envs.twm.dynamics import Dynamics, Forecast, LocalHead
from tests.tiny import KINDS, TinyKind, tiny_config

BATCH, STEPS = 2, 13  # three times as long as the context of the small models

both_layouts = pytest.mark.parametrize("kind", KINDS)


@dataclass(frozen=True)
class Steps:
    """Recorded steps, of noise."""

    latents: Tensor
    actions: Tensor
    rewards: Tensor

    def part(self, of: slice) -> "Steps":
        return Steps(self.latents[:, of], self.actions[:, of], self.rewards[:, of])


def _steps(config: TwmConfig, steps: int = STEPS, seed: int = 0) -> Steps:
    generator = torch.Generator().manual_seed(seed)
    latent = config.observation.latent
    classes = torch.randint(latent.classes, (BATCH, steps, latent.variables), generator=generator)
    return Steps(
        functional.one_hot(classes, latent.classes).flatten(2).double(),
        torch.randint(config.num_actions, (BATCH, steps), generator=generator),
        torch.rand(BATCH, steps, generator=generator).double() * 2 - 1,
    )


def _dynamics(config: TwmConfig) -> Dynamics:
    torch.manual_seed(0)
    return Dynamics(config).double().eval()


def _forward(dynamics: Dynamics, steps: Steps, episodes: Tensor | None = None) -> Forecast:
    episodes = torch.zeros_like(steps.actions) if episodes is None else episodes.expand_as(steps.actions)
    return dynamics(steps.latents, steps.actions, steps.rewards, episodes)


def _outputs(forecast: Forecast, of: slice = slice(None)) -> Tensor:
    """All outputs at some steps, shape (B, steps, features)."""
    return torch.cat([forecast.latent.flatten(2), forecast.reward, forecast.discount.unsqueeze(-1)], -1)[:, of]


@both_layouts
@pytest.mark.parametrize("given", [0, 1, 2, 4, 9])
def test_cached_rollout_equals_the_full_forward_pass(kind: TinyKind, given: int) -> None:
    config = tiny_config(kind)
    dynamics, steps = _dynamics(config), _steps(config)
    full = _outputs(_forward(dynamics, steps))
    past = steps.part(slice(given))
    memory = dynamics.remember(past.latents, past.actions, past.rewards, torch.ones(BATCH, given, dtype=torch.bool))
    for step in range(given, STEPS):
        forecast, memory = dynamics.step(steps.latents[:, step], steps.actions[:, step], steps.rewards[:, step], memory)
        difference = (_outputs(forecast)[:, 0] - full[:, step]).abs().max()
        assert difference < 1e-12, f"step {step} differs by {difference}"


@both_layouts
def test_memory_is_a_ring_that_never_grows(kind: TinyKind) -> None:
    config = tiny_config(kind)
    dynamics, steps = _dynamics(config), _steps(config)
    nothing = steps.part(slice(0))
    memory = dynamics.remember(
        nothing.latents, nothing.actions, nothing.rewards, torch.ones(BATCH, 0, dtype=torch.bool)
    )
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in memory.tensors()}
    new = config.tokens_per_step
    for step in range(STEPS):
        before = memory
        _, memory = dynamics.step(steps.latents[:, step], steps.actions[:, step], steps.rewards[:, step], memory)
        assert {name: (tensor.shape, tensor.dtype) for name, tensor in memory.tensors()} == shapes
        assert torch.equal(memory.keys[:, :, :-new], before.keys[:, :, new:]), "remembered tokens were changed"
        assert torch.equal(memory.valid[:, :-new], before.valid[:, new:])
    assert memory.valid.all()


def test_faithful_memory_holds_fifty_tokens() -> None:
    with torch.device("meta"):
        assert Dynamics(faithful(18)).memory_size == 50
        assert Dynamics(compact(18)).memory_size == compact(18).context - 1


@both_layouts
def test_one_layer_sees_exactly_its_window_and_nothing_of_the_future(kind: TinyKind) -> None:
    config = tiny_config(kind)
    config = replace(config, transformer=replace(config.transformer, layers=1))
    dynamics, steps = _dynamics(config), _steps(config)
    inputs = {
        "latents": steps.latents.requires_grad_(),
        "actions": functional.one_hot(steps.actions, config.num_actions).double().requires_grad_(),
        "rewards": steps.rewards.requires_grad_(),
    }
    forecast = dynamics(*inputs.values(), torch.zeros_like(steps.actions))
    step = 9
    gradients = torch.autograd.grad(_outputs(forecast)[:, step].square().sum(), list(inputs.values()))
    for name, gradient in zip(inputs, gradients, strict=True):
        seen = (gradient.flatten(2) if gradient.ndim > 2 else gradient.unsqueeze(2)).abs().sum((0, 2)) > 0
        # With separate tokens an action looks back to its like of step t - context, and not to the latent before that.
        oldest = step - config.context + (config.tokens == "fused" or name != "actions")
        assert seen.nonzero().flatten().tolist() == list(range(oldest, step + 1)), name


@both_layouts
def test_forecast_depends_on_every_input_of_its_step(kind: TinyKind) -> None:
    config = tiny_config(kind)
    dynamics, steps = _dynamics(config), _steps(config)
    other = _steps(config, seed=1)
    before = _outputs(_forward(dynamics, steps))
    step = 6
    for name in ("latents", "actions", "rewards"):
        value = getattr(steps, name).clone()
        value[:, step] = (
            (value[:, step] + 1) % config.num_actions if name == "actions" else getattr(other, name)[:, step]
        )
        after = _outputs(_forward(dynamics, replace(steps, **{name: value})))
        assert torch.equal(after[:, :step], before[:, :step]), f"{name} of step {step} changed the forecasts before"
        for part in (slice(0, -2), slice(-2, -1), slice(-1, None)):
            assert (after[:, step, part] != before[:, step, part]).any(1).all(), f"{name} do not reach output {part}"


@both_layouts
def test_nothing_attends_across_an_episode_boundary(kind: TinyKind) -> None:
    config = tiny_config(kind)
    dynamics, steps, other = _dynamics(config), _steps(config), _steps(config, seed=1)
    episodes = (torch.arange(STEPS) >= 6).long()
    before = _outputs(_forward(dynamics, steps, episodes))
    changed = Steps(
        *(
            torch.cat([theirs[:, :6], mine[:, 6:]], 1)
            for mine, theirs in zip(vars(steps).values(), vars(other).values(), strict=True)
        )
    )
    after = _outputs(_forward(dynamics, changed, episodes))
    assert torch.equal(after[:, 6:], before[:, 6:]), "the episode before was seen"
    assert (after[:, :6] != before[:, :6]).any()
    assert not torch.equal(_outputs(_forward(dynamics, changed), slice(6, None)), before[:, 6:]), "no mask, no effect"


@pytest.mark.parametrize("kind", ["compact", "faithful"])
def test_episode_in_a_window_is_forecast_as_if_it_were_alone(kind: TinyKind) -> None:
    config = tiny_config(kind)
    dynamics, steps = _dynamics(config), _steps(config)
    episodes = (torch.arange(STEPS) >= 6).long()
    within = _outputs(_forward(dynamics, steps, episodes), slice(6, None))
    alone = _outputs(_forward(dynamics, steps.part(slice(6, None))))
    assert (within - alone).abs().max() < 1e-12


@both_layouts
def test_steps_that_are_not_valid_are_not_remembered(kind: TinyKind) -> None:
    config = tiny_config(kind)
    dynamics, steps = _dynamics(config), _steps(config, 4)
    valid = torch.tensor([False, True, True]).expand(BATCH, 3)
    filled = dynamics.remember(steps.latents[:, :3], steps.actions[:, :3], steps.rewards[:, :3], valid)
    short = dynamics.remember(steps.latents[:, 1:3], steps.actions[:, 1:3], steps.rewards[:, 1:3], valid[:, 1:])
    last = (steps.latents[:, 3], steps.actions[:, 3], steps.rewards[:, 3])
    mine, theirs = (_outputs(dynamics.step(*last, memory)[0]) for memory in (filled, short))
    assert (mine - theirs).abs().max() < 1e-12


@both_layouts
def test_certain_probabilities_act_like_indices(kind: TinyKind) -> None:
    config = tiny_config(kind)
    dynamics, steps = _dynamics(config), _steps(config)
    certain = replace(steps, actions=functional.one_hot(steps.actions, config.num_actions).double())
    zeros = torch.zeros(BATCH, STEPS, dtype=torch.int64)
    soft = dynamics(certain.latents, certain.actions, certain.rewards, zeros)
    assert (_outputs(soft) - _outputs(_forward(dynamics, steps))).abs().max() < 1e-12


def _local_head() -> LocalHead:
    torch.manual_seed(0)
    return LocalHead(per_cell=6, steps=2, hints=3, channels=8)


def test_next_code_of_a_cell_hangs_on_the_cells_around_it_and_on_their_hints() -> None:
    head = _local_head()
    recent, hints = torch.rand(1, 1, 2, 64 * 6, requires_grad=True), torch.rand(1, 1, 64 * 3, requires_grad=True)
    row, column = 3, 6
    logits = head(recent, hints).unflatten(-1, (8, 8, 6))[0, 0, row, column]
    codes, told = torch.autograd.grad(logits.square().sum(), (recent, hints))
    expected = torch.zeros(8, 8, dtype=torch.bool)
    expected[row - 2 : row + 3, column - 2 : column + 3] = True
    for step in range(2):
        assert torch.equal(codes[0, 0, step].unflatten(0, (8, 8, 6)).abs().sum(-1) > 0, expected)
    assert torch.equal(told[0, 0].unflatten(0, (8, 8, 3)).abs().sum(-1) > 0, expected)


def test_same_law_holds_in_every_cell() -> None:
    """But for the border, what is moved by a cell comes out moved by a cell."""
    head = _local_head()
    recent, hints = torch.rand(1, 1, 2, 8, 8, 6), torch.rand(1, 1, 8, 8, 3)

    def logits(right: int) -> Tensor:
        moved = head(recent.roll(right, 4).flatten(3), hints.roll(right, 3).flatten(2))
        return moved.unflatten(-1, (8, 8, 6))[0, 0]

    assert torch.allclose(logits(1)[:, 3:6], logits(0)[:, 2:5], atol=1e-5)
    with torch.no_grad():
        head.place[..., 4] += 1
    assert not torch.allclose(logits(1)[:, 3:6], logits(0)[:, 2:5], atol=1e-2), "a place may have its own"


def test_faithful_heads_start_as_the_authors_do() -> None:
    dynamics = Dynamics(tiny_config("faithful"))
    for head, bias in ((dynamics.latent_head, 0.0), (dynamics.reward_head, 0.0), (dynamics.discount_head, 0.99)):
        *hidden, output = (layer for layer in head if isinstance(layer, torch.nn.Linear))
        for layer, gain in (*((layer, 2**0.5) for layer in hidden), (output, 1.0)):
            bound = gain * (3 / layer.in_features) ** 0.5
            assert 0.8 * bound < layer.weight.abs().max() <= bound
        assert all((layer.bias == 0).all() for layer in hidden)
        assert (output.bias == bias).all()
