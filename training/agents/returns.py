"""How much better than expected an action did, from what followed it."""

import torch
from torch import Tensor

__all__ = ["advantages"]


def advantages(rewards: Tensor, values: Tensor, discounts: Tensor, over: Tensor, trace: float) -> Tensor:
    """Generalised advantage estimates (Schulman et al., https://arxiv.org/abs/1506.02438).

    Letters: T steps of a rollout, N rollouts.

    Args:
        rewards: Shape (T, N).
        values: Of the states before each step and after the last, shape (T + 1, N).
        discounts: Of what follows each step, in [0, 1], shape (T, N): 0 where nothing does.
        over: Whether the next step belongs to another episode, bool, shape (T, N). If its discount is above 0, the estimate ends
            with the value of the state that the step led to, as for a truncated episode.
        trace: Weight of longer estimates, lambda in [0, 1].

    Returns:
        Shape (T, N).
    """
    errors = rewards + discounts * values[1:] - values[:-1]
    weights = trace * discounts * ~over
    estimates, estimate = [], torch.zeros_like(errors[0])
    for error, weight in zip(errors.flip(0), weights.flip(0), strict=True):
        estimate = error + weight * estimate
        estimates.append(estimate)
    return torch.stack(estimates).flip(0)
