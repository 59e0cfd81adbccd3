"""Shift and scale, so that a network sees numbers of about unit size whatever the units of a state.

The authors' release had none: populations of 800 and of 0.01 shared one squared error.
"""

import torch
from torch import Tensor, nn

__all__ = ["Normalizer"]

_CONSTANT = 1e-6  # of the mean: a smaller deviation is rounding


class Normalizer(nn.Module):
    """Fixed shift and scale of each feature; until `fit`, the identity.

    Args:
        size: Number of features, n.
        constant: Scale of a feature that never changes.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, size: int, constant: float = 1.0) -> None:
        super().__init__()
        self.constant = constant
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))

    def forward(self, values: Tensor) -> Tensor:
        """Values in their own units to normalised ones, shape (..., n)."""
        return (values - self.mean) / self.scale

    def inverse(self, normalized: Tensor) -> Tensor:
        """Normalised values back to their own units, shape (..., n)."""
        return normalized * self.scale + self.mean

    @torch.no_grad()
    def fit(self, samples: Tensor) -> None:
        """Take mean and standard deviation from samples; one that never changes gets the scale ``constant``.

        Args:
            samples: Finite, shape (..., n), at least one sample.

        Raises:
            ValueError: If there is no sample, a shape does not fit, or a value is not finite.
        """
        size = len(self.mean)
        if samples.ndim < 1 or samples.shape[-1] != size or not samples.numel():
            raise ValueError(
                f"samples has shape {tuple(samples.shape)}, expected (..., {size}) with at least one sample."
            )
        if not bool(samples.isfinite().all()):
            raise ValueError("samples has values that are not finite: leave out what diverged.")
        flat = samples.reshape(-1, size).double()
        mean, deviation = flat.mean(0), flat.std(0, correction=0)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(deviation > _CONSTANT * mean.abs(), deviation, self.constant))
