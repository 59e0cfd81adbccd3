"""Dropout with seven-bit random numbers: shares, scaling, and rest outside of training."""

import pytest
import torch

from learned_envs.nn.dropout import Dropout


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5])
def test_drops_the_share_it_is_asked_for_and_keeps_the_mean(probability: float) -> None:
    torch.manual_seed(0)
    dropped = Dropout(probability)(torch.ones(1000, 1001))
    share = int(128 * probability) / 128
    assert (dropped == 0).float().mean().item() == pytest.approx(share, abs=0.003)
    assert (dropped[dropped != 0] == 1 / (1 - share)).all()
    assert dropped.mean().item() == pytest.approx(1, abs=0.005)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(1_000_000)) != 0).double()
    for distance in range(1, 17):  # eight features share a draw
        correlation = torch.corrcoef(torch.stack([kept[:-distance], kept[distance:]]))[0, 1]
        assert correlation.abs() < 0.005, f"features {distance} apart"


def test_does_nothing_outside_of_training_or_without_a_probability() -> None:
    features = torch.randn(3, 5)
    assert torch.equal(Dropout(0.5).eval()(features), features)
    assert torch.equal(Dropout(0.0)(features), features)


def test_gradients_flow_through_what_is_kept() -> None:
    torch.manual_seed(0)
    features = torch.ones(64, requires_grad=True)
    dropped = Dropout(0.25)(features)
    dropped.sum().backward()
    assert features.grad is not None and torch.equal(features.grad, dropped.detach())
