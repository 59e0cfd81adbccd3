"""One step down a loss, as the paper's code takes it."""

import torch
from torch import Tensor, nn

__all__ = ["descend"]


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, clip: float = 100.0) -> Tensor:
    """Clip the norm of all gradients together, take NaN for zero, and step (section 2.3).

    Args:
        optimizer: Whose parameters to move; it computes the gradients of these alone.
        loss: What to go down, shape ().
        clip: Largest norm.

    Returns:
        Norm of the gradient before clipping, shape ().
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    norm = nn.utils.clip_grad_norm_(parameters, clip)
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.grad.nan_to_num_(0.0, 0.0, 0.0)
    optimizer.step()
    return norm
