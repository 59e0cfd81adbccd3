"""Vectors of independent categorical variables, sampled with gradients.

Latents are V variables of K classes each. Noise is always an argument, so that a rollout is reproducible and can be
captured as one graph.
"""

import torch
from torch import Tensor

__all__ = ["entropy", "mix_uniform", "most_likely", "sample", "straight_through"]


def mix_uniform(logits: Tensor, share: float) -> Tensor:
    """Probabilities of a softmax, mixed with the uniform distribution so that none vanishes.

    Args:
        logits: Unnormalised log-probabilities, shape (..., K).
        share: Weight of the uniform distribution, in [0, 1); 0 is a plain softmax.

    Returns:
        Probabilities, float32, shape (..., K).
    """
    probabilities = logits.float().softmax(-1)
    return probabilities if share == 0 else (1 - share) * probabilities + share / logits.shape[-1]


def entropy(probabilities: Tensor) -> Tensor:
    """How uncertain each variable is, in nats: positive probabilities, shape (..., V, K), to shape (..., V)."""
    return -(probabilities * probabilities.log()).sum(-1)


def sample(probabilities: Tensor, noise: Tensor) -> Tensor:
    """Draw one class per variable by inverting the distribution function.

    Args:
        probabilities: Shape (..., V, K).
        noise: Uniform in [0, 1), shape (..., V).

    Returns:
        Class indices, int64, shape (..., V).
    """
    passed = (probabilities.cumsum(-1) <= noise.unsqueeze(-1)).sum(-1)
    return passed.clamp_max(probabilities.shape[-1] - 1)  # rounding may leave the last cumulative sum below the noise


def most_likely(probabilities: Tensor) -> Tensor:
    """The most probable class of each variable: shape (..., V, K) to int64 (..., V)."""
    return probabilities.argmax(-1)


def straight_through(probabilities: Tensor, classes: Tensor) -> Tensor:
    """One-hot vectors forward, gradients of the probabilities backward (Bengio et al., 2013).

    Args:
        probabilities: Shape (..., V, K).
        classes: Chosen class of each variable, int64, shape (..., V).

    Returns:
        One-hot vectors, float32, shape (..., V, K).
    """
    hard = torch.zeros_like(probabilities).scatter_(-1, classes.unsqueeze(-1), 1.0)
    if not probabilities.requires_grad:
        return hard
    return hard + (probabilities - probabilities.detach())  # in this order the difference is exactly zero
