"""Dropout that does not dominate a training step on a CPU.

The framework draws one random number a feature, one after the other; in our transformers that was a third of an update.
Seven bits are enough to decide whether a feature is dropped, so one 64-bit draw serves eight features.
"""

import torch
from torch import Tensor, nn

__all__ = ["Dropout"]


class Dropout(nn.Module):
    """Drop features in training and scale up the others.

    Args:
        probability: Of dropping a feature, in [0, 1); rounded down to a multiple of 1/128.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.threshold = int(128 * probability)

    def forward(self, features: Tensor) -> Tensor:
        """The features, some of them zero in training, of the same shape."""
        if not self.training or self.threshold == 0:
            return features
        count = features.numel()
        draws = torch.empty((count + 7) // 8, dtype=torch.int64, device=features.device).random_()
        bits = draws.view(torch.uint8)[:count].view(features.shape) & 127  # the sign bit of a draw is never set
        return features * ((bits >= self.threshold).to(features.dtype) * (128 / (128 - self.threshold)))
