"""The terms of the loss against values worked out by hand."""

import math

import pytest
import torch

from learned_envs.twm.losses import (
    consistency,
    discount_loss,
    entropy_shortfall,
    latent_cross_entropy,
    normal_loss,
    reconstruction_loss,
)

HALF_LOG_TWO_PI = 0.9189385332046727


def _logits(*probabilities: list[float]) -> torch.Tensor:
    """Logits of the given distributions, shape (variables, classes)."""
    return torch.tensor(probabilities).log()


def test_normal_has_unit_variance() -> None:
    loss = normal_loss(torch.tensor([1.0, -2.0]), torch.tensor([1.0, 1.0]))
    assert loss.tolist() == pytest.approx([HALF_LOG_TWO_PI, 4.5 + HALF_LOG_TWO_PI])


def test_reconstruction_sums_pixels_and_averages_stacks() -> None:
    frames = torch.zeros(2, 4, 64, 64)
    decoded = frames.clone()
    decoded[0, 0, 0, 0], decoded[1, 3, 5, 5] = 1.0, 2.0
    expected = (0.5 + 2.0) / 2 + 4 * 64 * 64 * HALF_LOG_TWO_PI
    assert reconstruction_loss(decoded, frames).item() == pytest.approx(expected)


def test_entropy_falls_short_by_its_share_of_the_largest() -> None:
    # Two variables of four classes: entropies 0 and ln 2 out of 2 ln 4, a share of 1/4 of the largest.
    logits = torch.stack([torch.tensor([0.0, -1e9, -1e9, -1e9]), torch.tensor([0.0, 0.0, -1e9, -1e9])]).unsqueeze(0)
    assert entropy_shortfall(logits, threshold=0.4).item() == pytest.approx(0.15, abs=1e-6)
    assert entropy_shortfall(logits, threshold=0.2).item() == 0


def test_entropy_counts_as_a_mean_over_the_batch() -> None:
    """One sharp code is no shortfall while the others make up for it."""
    sharp, even = torch.tensor([[0.0, -50.0]]), torch.zeros(1, 2)
    assert entropy_shortfall(torch.stack([sharp, even]), threshold=0.45).item() == 0
    assert entropy_shortfall(torch.stack([sharp, sharp]), threshold=0.45).item() == pytest.approx(0.45)


def test_enough_entropy_gives_no_gradient() -> None:
    logits = torch.randn(5, 3, 4, requires_grad=True)
    entropy_shortfall(logits).backward()
    assert logits.grad is not None and not logits.grad.any()


def test_consistency_draws_the_encoder_alone() -> None:
    forecast = _logits([0.25, 0.75], [0.5, 0.5])[None].requires_grad_()
    logits = _logits([0.5, 0.5], [0.9, 0.1])[None].requires_grad_()
    loss = consistency(forecast, logits)
    expected = math.log(2) - 0.5 * math.log(0.9) - 0.5 * math.log(0.1)
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert forecast.grad is None
    # The gradient of a cross-entropy is the difference of the distributions.
    assert logits.grad is not None
    assert torch.allclose(logits.grad, torch.tensor([[[0.25, -0.25], [0.4, -0.4]]]))


def test_consistency_averages_over_steps_and_sums_over_variables() -> None:
    logits = torch.zeros(3, 5, 7, 2)
    assert consistency(logits, logits).item() == pytest.approx(7 * math.log(2))


def test_latent_loss_draws_the_dynamics_to_the_full_distribution() -> None:
    forecast = _logits([0.5, 0.5])[None, None].requires_grad_()
    target = _logits([0.25, 0.75])[None, None].requires_grad_()
    loss = latent_cross_entropy(forecast, target, torch.ones(1, 1))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert target.grad is None
    assert forecast.grad is not None and torch.allclose(forecast.grad, torch.tensor([[[[0.25, -0.25]]]]))


def test_latent_loss_leaves_out_what_follows_an_end() -> None:
    forecast = torch.stack([_logits([0.5, 0.5]), _logits([0.1, 0.9]), _logits([0.5, 0.5])]).unsqueeze(0)
    target = _logits([0.5, 0.5]).expand(1, 3, 1, 2)
    weight = torch.tensor([[1.0, 0.0, 1.0]])
    assert latent_cross_entropy(forecast, target, weight).item() == pytest.approx(math.log(2))
    assert latent_cross_entropy(forecast, target, torch.zeros(1, 3)).item() == 0


def test_discount_has_a_soft_target_until_the_game_ends() -> None:
    logit = torch.tensor([[0.0, 2.0]])
    half = math.log(2)
    going_on = math.log1p(math.exp(2)) - 0.99 * 2
    loss = discount_loss(logit, torch.tensor([[True, False]]), 0.99)
    assert loss.item() == pytest.approx((half + going_on) / 2)
