"""The losses of the transformer world model, term by term.

Robine et al. (ICLR 2023, section 2.1) split the divergence of a variational autoencoder between encoder and dynamics into
cross-entropies with weights of their own. Where paper and authors' release differ, the release is followed: the entropy
term is a hinge, and the consistency term puts the encoder second.

Letters: B batch, T steps, V latent variables, K classes.
"""

import math

from torch import Tensor
from torch.nn import functional

__all__ = [
    "consistency",
    "discount_loss",
    "entropy_shortfall",
    "latent_cross_entropy",
    "normal_loss",
    "reconstruction_loss",
]

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


def normal_loss(mean: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of each element under a Normal with unit variance, of the shape of both."""
    return 0.5 * (mean - target).square() + _HALF_LOG_TWO_PI


def reconstruction_loss(decoded: Tensor, frames: Tensor) -> Tensor:
    """Negative log-likelihood of pixels, summed over an observation and averaged over the batch.

    Args:
        decoded: Decoded observations, shape (B, F, height, width).
        frames: Observed ones in [0, 1], of the same shape.
    """
    return normal_loss(decoded, frames).sum((1, 2, 3)).mean()


def entropy_shortfall(logits: Tensor, threshold: float = 0.1) -> Tensor:
    """By how much the codes' mean entropy, as a share of the largest possible, stays below a threshold.

    Above the threshold there is no gradient, so the encoder is kept from collapsing but not pushed to noise.

    Args:
        logits: Encoder logits, shape (..., V, K).
        threshold: In [0, 1].
    """
    logs = logits.log_softmax(-1)
    entropy = -(logs.exp() * logs).sum((-2, -1)).mean()
    return (threshold - entropy / (logits.shape[-2] * math.log(logits.shape[-1]))).relu()


def consistency(forecast: Tensor, logits: Tensor) -> Tensor:
    """Cross-entropy that draws the encoder towards what the dynamics expected.

    Args:
        forecast: Logits that the dynamics predicted for a step, shape (..., V, K); they get no gradient.
        logits: Logits that the encoder gives for it, shape (..., V, K).
    """
    expected = forecast.detach().softmax(-1)
    return -(expected * logits.log_softmax(-1)).sum((-2, -1)).mean()


def latent_cross_entropy(forecast: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy that draws the dynamics towards the encoder's full distributions.

    Args:
        forecast: Logits that the dynamics predict for the next step, shape (B, T, V, K).
        target: Logits that the encoder gives for it, shape (B, T, V, K); they get no gradient.
        weight: 0 where the episode ends and nothing follows, shape (B, T).
    """
    loss = -(target.detach().softmax(-1) * forecast.log_softmax(-1)).sum((-2, -1))
    return (loss * weight).sum() / weight.sum().clamp_min(1.0)


def discount_loss(logit: Tensor, terminated: Tensor, discount: float) -> Tensor:
    """Cross-entropy with the soft target ``discount`` while the game goes on and 0 where it ended.

    Args:
        logit: Predicted logits, shape (B, T).
        terminated: bool, shape (B, T).
        discount: In (0, 1].
    """
    target = discount * (1 - terminated.to(logit.dtype))
    return functional.binary_cross_entropy_with_logits(logit, target)
