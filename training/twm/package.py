"""Turn a trained run into a snapshot: weights, recorded starts, and where it all came from."""

import numpy as np
import torch

from learned_envs.starts import Contexts, StartBank, StartKind
from training.experience import Experience, ExperienceError

__all__ = ["start_bank"]


def start_bank(
    experience: Experience, stack: int, initial: int = 64, anywhere: int = 128, steps: int = 16
) -> StartBank:
    """Choose contexts from recorded experience, evenly over the recording.

    Args:
        experience: What was recorded.
        stack: Frames in an observation.
        initial: Most episode beginnings to keep, of one observation each.
        anywhere: Most contexts to keep from the middle of episodes.
        steps: Observations in those.

    Raises:
        ExperienceError: If no episode is long enough.
    """
    begins = experience.episode_starts
    begins = begins[np.linspace(0, len(begins) - 1, min(initial, len(begins))).astype(int)]
    ends = np.append(experience.episode_starts[1:], len(experience))
    inside = np.concatenate(
        [np.arange(first + stack - 1, end - steps) for first, end in zip(experience.episode_starts, ends, strict=True)]
    )
    if not len(inside):
        raise ExperienceError(f"No recorded episode has the {stack + steps} steps that a context needs. Collect more.")
    inside = inside[np.linspace(0, len(inside) - 1, min(anywhere, len(inside))).astype(int)]
    contexts: dict[StartKind, Contexts] = {
        "initial": _contexts(experience, begins, 1, stack),
        "anywhere": _contexts(experience, inside, steps, stack),
    }
    return StartBank.from_frames(contexts, stack)


def _contexts(experience: Experience, starts: np.ndarray, steps: int, stack: int) -> Contexts:
    """Single frames, actions and rewards of contexts that open at the given steps."""
    offsets = np.arange(1 - stack, steps)
    oldest = experience.frame_index[experience.first[starts]]  # a stack is padded with the episode's first frame
    rows = np.maximum(experience.frame_index[starts][:, None] + offsets, oldest[:, None])
    between = starts[:, None] + np.arange(steps - 1)
    return (
        torch.from_numpy(experience.frames[rows]),
        torch.from_numpy(experience.actions[between]),
        torch.from_numpy(experience.rewards[between]),
    )
