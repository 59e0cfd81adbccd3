"""Networks see numbers of unit size; users see their own units."""

import pytest
import torch

from learned_envs.awm.normalization import Normalizer


def test_fitted_samples_have_mean_zero_and_deviation_one() -> None:
    torch.manual_seed(0)
    samples = torch.randn(40, 25, 3, dtype=torch.float64) * torch.tensor([800.0, 0.01, 1.0]) + torch.tensor(
        [900, 0.02, 0]
    )
    normalizer = Normalizer(3).double()
    normalizer.fit(samples)
    normalized = normalizer(samples).flatten(0, 1)
    assert normalized.mean(0).abs().max() < 1e-10
    assert (normalized.std(0, correction=0) - 1).abs().max() < 1e-10
    assert torch.allclose(normalizer.inverse(normalizer(samples)), samples, rtol=1e-12)


def test_what_never_changes_is_only_shifted() -> None:
    """The wall of one-bounce stands still, and rounding must not blow it up."""
    samples = torch.full((100, 2), -1.0)
    samples[:, 1] = 0.1
    normalizer = Normalizer(2)
    normalizer.fit(samples)
    assert normalizer.scale.tolist() == [1, 1]
    assert normalizer(samples).abs().max() < 1e-6


def test_before_fitting_nothing_changes() -> None:
    assert Normalizer(2)(torch.tensor([3.0, -4.0])).tolist() == [3, -4]


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (torch.zeros(5, 3), r"shape \(5, 3\), expected \(..., 2\)"),
        (torch.zeros(0, 2), "at least one sample"),
        (torch.tensor([[0.0, float("nan")]]), "not finite"),
    ],
)
def test_bad_samples_are_refused_and_change_nothing(samples: torch.Tensor, message: str) -> None:
    normalizer = Normalizer(2)
    with pytest.raises(ValueError, match=message):
        normalizer.fit(samples)
    assert normalizer.scale.tolist() == [1, 1]
