"""Measure a trained model against real episodes that it has never seen."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.fidelity.free_running import pong_free_running
from learned_envs.fidelity.open_loop import Recording, imagine, pong_open_loop
from learned_envs.pretrained import Pretrained
from learned_envs.world_model import WorldModel
from training.experience import Experience, ExperienceError

__all__ = ["measure_pong", "open_loop_picture", "recording"]


def recording(
    experience: Experience, rollouts: int, stack: int, context: int = 16, horizon: int = 50, seed: int = 0
) -> Recording:
    """Draw real rollouts that lie within one episode.

    Args:
        experience: What was recorded.
        rollouts: How many to draw.
        stack: Frames in an observation.
        context: Observations given to the model.
        horizon: Steps to imagine.
        seed: Seed of the choice.

    Raises:
        ExperienceError: If no episode is long enough.
    """
    ends = np.append(experience.episode_starts[1:], len(experience))
    inside = np.concatenate(
        [
            np.arange(first + stack - 1, end - context - horizon + 2)
            for first, end in zip(experience.episode_starts, ends, strict=True)
        ]
    )
    if not len(inside):
        raise ExperienceError(
            f"No recorded episode has the {stack + context + horizon - 2} steps that a rollout needs. Collect more."
        )
    starts = np.random.default_rng(seed).choice(inside, min(rollouts, len(inside)), replace=False)
    rows = experience.frame_index[starts][:, None] + np.arange(1 - stack, context + horizon)
    between = starts[:, None] + np.arange(context + horizon - 1)
    return Recording(experience.frames[rows], experience.actions[between], experience.rewards[between], context)


def measure_pong(pretrained: Pretrained, unseen: Experience, rollouts: int = 1024, games: int = 64) -> dict[str, Any]:
    """Measure a Pong model against recorded play, and by itself.

    Args:
        pretrained: The model.
        unseen: Recorded episodes that it was not trained on.
        rollouts: Open-loop rollouts.
        games: Free-running games.

    Returns:
        ``open_loop``, see `learned_envs.fidelity.open_loop.pong_open_loop`, and ``free_running``, see
        `learned_envs.fidelity.free_running.pong_free_running`.
    """
    real = recording(unseen, rollouts, pretrained.model.observation_shape[0])
    return {
        "open_loop": pong_open_loop(pretrained.model, real),
        "free_running": pong_free_running(LearnedVectorEnv(pretrained, games)),
    }


def open_loop_picture(model: WorldModel, real: Recording, every: int = 2) -> Tensor:
    """Real rollouts above imagined ones, fed with the same actions.

    Args:
        model: The model, in evaluation mode.
        real: The rollouts; a handful is enough.
        every: Steps between two columns.

    Returns:
        float in [0, 1], shape (1, 2 * rollouts * 64, columns * 64).
    """
    imagined, _ = imagine(model, real)
    pairs = np.stack([real.frames[:, -real.horizon :], imagined], 1)[
        :, :, every - 1 :: every
    ]  # (N, 2, columns, 64, 64)
    picture = pairs.transpose(0, 1, 3, 2, 4).reshape(len(imagined) * 2 * 64, -1)
    return torch.from_numpy(picture).unsqueeze(0).float() / 255
