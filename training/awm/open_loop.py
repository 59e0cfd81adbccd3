"""The best plan in the true equations: what any policy in a deterministic system is measured against."""

import torch
from torch import Tensor

from learned_envs.envs.real.systems import System
from training.awm.episodes import uniform_plans

__all__ = ["optimize_plan"]

_FIRST_RATE, _LAST_RATE = 0.1, 1e-3


def optimize_plan(system: System, iterations: int = 500, random_starts: int = 5) -> tuple[Tensor, float]:
    """Climb the true gradient of the return from several plans at once, in float64, with projected Adam.

    The starts are constant plans at 5%, 50% and 95% of the range, and uniform ones from the global generator. The learning
    rate falls geometrically from 0.1 to 0.001.

    Args:
        system: A deterministic system.
        iterations: Steps of the optimiser.
        random_starts: Number of uniform plans.

    Returns:
        The best plan seen, float64, shape (H, m), and its return: a lower bound on the optimum.

    Raises:
        ValueError: If the system is noisy.
    """
    if system.noise_size:
        raise ValueError(f"{type(system).__name__} as configured is noisy: no plan is best for every episode.")
    shape = (1, system.horizon, system.action_dim)
    constant = [torch.full(shape, level, dtype=torch.float64) for level in (-0.9, 0.0, 0.9)]
    plans = torch.cat([*constant, uniform_plans(system, random_starts, torch.float64)]).requires_grad_()
    optimizer = torch.optim.Adam([plans], _FIRST_RATE)
    best, best_plan = -torch.inf, plans.detach()[0].clone()
    for step in range(iterations):
        for group in optimizer.param_groups:
            group["lr"] = _FIRST_RATE * (_LAST_RATE / _FIRST_RATE) ** (step / iterations)
        returns = system.rollout(plans)[1].sum(1)
        (gradient,) = torch.autograd.grad(-returns.sum(), plans)
        highest, row = returns.detach().max(0)
        if float(highest) > best:
            best, best_plan = float(highest), plans.detach()[row].clone()
        plans.grad = gradient.nan_to_num(0.0, 0.0, 0.0)
        optimizer.step()
        with torch.no_grad():
            plans.clamp_(-1, 1)
    return best_plan, best
