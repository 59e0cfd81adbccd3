"""Measure a trained model against real episodes that it has never seen."""

from typing import Any

import numpy as np

from learned_envs.fidelity.open_loop import Recording, pong_open_loop
from learned_envs.world_model import WorldModel
from training.experience import Experience

__all__ = ["measure", "recording"]


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
    """
    ends = np.append(experience.episode_starts[1:], len(experience))
    inside = np.concatenate(
        [
            np.arange(first + stack - 1, end - context - horizon + 2)
            for first, end in zip(experience.episode_starts, ends, strict=True)
        ]
    )
    starts = np.random.default_rng(seed).choice(inside, min(rollouts, len(inside)), replace=False)
    rows = experience.frame_index[starts][:, None] + np.arange(1 - stack, context + horizon)
    between = starts[:, None] + np.arange(context + horizon - 1)
    return Recording(experience.frames[rows], experience.actions[between], experience.rewards[between], context)


def measure(model: WorldModel, experience: Experience, rollouts: int = 1024) -> dict[str, Any]:
    """Open-loop fidelity on unseen episodes, as `learned_envs.fidelity.open_loop.pong_open_loop` defines it."""
    return pong_open_loop(model, recording(experience, rollouts, model.observation_shape[0]))
