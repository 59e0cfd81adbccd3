"""Does the gradient of a return with respect to a plan point where the true one points?"""

import torch
from torch import Tensor

from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.envs.real.simulator import Simulator
from learned_envs.envs.real.systems import System
from learned_envs.world_model import WorldModel
from training.awm.episodes import Episodes
from training.awm.gradient import follow

__all__ = ["gradient_cosines"]


def gradient_cosines(model: ContinuousWorldModel, system: System, episodes: Episodes) -> Tensor:
    """Cosine between the gradients of the return through the model and through the true equations, for each plan.

    Args:
        model: The model.
        system: The real system, deterministic.
        episodes: Real episodes; their first observations and their actions are used.

    Returns:
        One for each episode, shape (N,).
    """
    starts, plans = episodes.observations[:, 0], episodes.actions
    mine = _gradients(model, starts, plans)
    true = _gradients(Simulator(system), starts.double(), plans.double())
    return torch.nn.functional.cosine_similarity(mine.double(), true, dim=1)


def _gradients(model: WorldModel, starts: Tensor, plans: Tensor) -> Tensor:
    plans = plans.clone().requires_grad_()
    returns = follow(model, starts, plans, plans.new_empty(*plans.shape[:2], 0))[1].sum(1)
    return torch.autograd.grad(returns.sum(), plans)[0].flatten(1)
