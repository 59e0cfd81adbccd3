"""How well a world model of a control problem predicts real episodes that it has never seen."""

from typing import Any

import torch
from torch import Tensor

from learned_envs.awm.world_model import ContinuousWorldModel
from training.awm.episodes import Episodes

__all__ = ["curve", "measure_model", "rollout_error"]


@torch.no_grad()
def rollout_error(model: ContinuousWorldModel, episodes: Episodes, begin: int = 0) -> tuple[Tensor, Tensor]:
    """Follow recorded actions open-loop, and compare with what really happened.

    Args:
        model: The model.
        episodes: What happened.
        begin: Step at which imagination begins; what happened before is not told.

    Returns:
        Root of the mean squared error of each step, in standard deviations of the states that the model was trained on, shape
        (H - begin,); and what imagined and real returns there are, shape (2, N).
    """
    seen, rewards = model.imagine(episodes.observations[:, begin], episodes.actions[:, begin:])
    states = slice(model.config.state_dim)
    scale = model.observation_normalizer.scale[states]
    error = (seen - episodes.observations[:, begin + 1 :])[..., states] / scale
    returns = torch.stack([rewards.sum(1), episodes.rewards[:, begin:].sum(1)])
    return error.square().mean((0, 2)).sqrt(), returns


def measure_model(model: ContinuousWorldModel, episodes: Episodes) -> dict[str, Any]:
    """Measure open-loop predictions from the beginnings of episodes, and from their middle.

    Args:
        model: The model.
        episodes: Real episodes that it was not trained on.

    Returns:
        ``state_error``, root mean squared error of all steps from the beginning, in standard deviations; ``curve``, the same
        by step; ``anywhere_error``, the same from a quarter, half and three quarters of the episodes; ``return_error``, that
        of the return in standard deviations of the real return, or as it is where that is always the same. None stands for what
        is not finite.
    """
    horizon = episodes.horizon
    error, returns = rollout_error(model, episodes)
    middles = sorted({horizon * quarter // 4 for quarter in (1, 2, 3)} - {0})
    later = torch.cat([rollout_error(model, episodes, begin)[0] for begin in middles] or [error])
    spread = float(returns[1].std(correction=0)) or 1.0
    return {
        "state_error": _rms(error),
        "curve": curve(error),
        "anywhere_error": _rms(later),
        "return_error": _rms((returns[0] - returns[1]) / spread),
    }


def curve(values: Tensor) -> dict[str, float | None]:
    """Values at some steps, the first and the last among them, by the number of the step from 1 on.

    Args:
        values: One a step, shape (H,).
    """
    steps = [step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500) if step < len(values)]
    return {str(step): _finite(values[step - 1]) for step in (*steps, len(values))}


def _rms(values: Tensor) -> float | None:
    return _finite(values.square().mean().sqrt())


def _finite(value: Tensor) -> float | None:
    """A number that JSON knows."""
    return float(value) if bool(value.isfinite()) else None
