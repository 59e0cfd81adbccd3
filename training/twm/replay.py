"""The replay of a transformer world model: windows of recorded steps, drawn evenly.

Each episode is preceded by three still steps that show its first frame, take an unknown action and gain nothing. They are
what the model sees when an environment starts from a single observation, a stack of four frames.

Letters: B windows, L steps of a window.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.experience import Experience, ExperienceError

__all__ = ["BalancedSampler", "Replay", "Windows"]


@dataclass(frozen=True)
class Windows:
    """Sequences of recorded steps. All tensors have shape (B, L).

    Args:
        frames: Row of the frame before the step in the experience's frames, int64.
        next_frames: Row of the frame after the step, int64.
        actions: Index of the action; ``num_actions`` where it is unknown, int64.
        rewards_before: Raw reward gained on the way to the step, float32.
        rewards: Raw reward gained in the step, float32.
        terminated: Whether the game ended with the step, bool.
        episodes: Number of the episode, int64.
        real: Whether the step was recorded with its action, and is not a still one in front, bool.
    """

    frames: Tensor
    next_frames: Tensor
    actions: Tensor
    rewards_before: Tensor
    rewards: Tensor
    terminated: Tensor
    episodes: Tensor
    real: Tensor


class Replay:
    """Recorded steps with still steps in front of each episode.

    Args:
        experience: What was recorded; actions that are unknown are ``num_actions``.
        num_actions: Size of the action set.
        length: Steps in a window, L.
        device: Where the steps are kept.
        still: Still steps in front of each episode.

    Raises:
        ExperienceError: If there are fewer steps than a window has.
    """

    def __init__(
        self, experience: Experience, num_actions: int, length: int, device: torch.device | str = "cpu", still: int = 3
    ) -> None:
        if len(experience) < length:
            raise ExperienceError(
                f"The recording has {len(experience)} steps, but one training window alone has {length}. Collect more."
            )
        self.num_actions = num_actions
        self.length = length
        episode = np.searchsorted(experience.episode_starts, np.arange(len(experience)), side="right") - 1
        first = experience.episode_starts
        in_front = np.repeat(first, still)
        order = np.argsort(np.concatenate([in_front * 2, np.arange(len(experience)) * 2 + 1]), kind="stable")

        def interleave(still_values: np.ndarray, values: np.ndarray) -> Tensor:
            return torch.from_numpy(np.concatenate([still_values, values])[order]).to(device)

        nothing = np.zeros(len(in_front), np.float32)
        before = np.concatenate([[0], experience.rewards[:-1]]).astype(np.float32)
        before[first] = 0
        first_frame = experience.frame_index[in_front]
        self.steps = Windows(
            frames=interleave(first_frame, experience.frame_index),
            next_frames=interleave(first_frame, experience.frame_index + 1),
            actions=interleave(np.full(len(in_front), num_actions), experience.actions),
            rewards_before=interleave(nothing, before),
            rewards=interleave(nothing, experience.rewards),
            terminated=interleave(nothing.astype(bool), experience.terminated),
            episodes=interleave(np.repeat(np.arange(len(first)), still), episode),
            real=interleave(nothing.astype(bool), experience.actions < num_actions),
        )

    def __len__(self) -> int:
        """Number of windows: every step opens one, but for the last few."""
        return len(self.steps.frames) - self.length + 1

    def windows(self, starts: Tensor) -> Windows:
        """The windows that open at the given steps: int64, shape (B,)."""
        index = starts.unsqueeze(1) + torch.arange(self.length, device=starts.device)
        return Windows(**{name: values[index] for name, values in vars(self.steps).items()})


class BalancedSampler:
    """Draws window starts, the more rarely drawn ones first (Robine et al., ICLR 2023, section 3.1).

    A start that was drawn v times has probability proportional to exp(-v / temperature). When experience grows while the
    model trains, the newest steps so catch up; in a fixed recording all are drawn about equally often.

    Args:
        size: Number of possible starts.
        temperature: Larger is more uniform; infinity is uniform.
        device: Where to draw.
    """

    def __init__(self, size: int, temperature: float = 20.0, device: torch.device | str = "cpu") -> None:
        self.visits = torch.zeros(size, device=device)
        self.temperature = temperature

    def grow(self, size: int) -> None:
        """Add starts that were never drawn, up to ``size`` in all."""
        new = self.visits.new_zeros(size - len(self.visits))
        self.visits = torch.cat([self.visits, new])

    def draw(self, count: int) -> Tensor:
        """Draw distinct starts from the global generator: int64, shape (count,).

        Raises:
            ExperienceError: If fewer starts exist than are asked for.
        """
        if count > len(self.visits):
            raise ExperienceError(
                f"{count} different windows were asked for, but only {len(self.visits)} exist. Collect more."
            )
        # Gumbel-top-k draws without replacement from the softmax of the scores.
        noise = -torch.empty_like(self.visits).exponential_().log()
        starts = (noise - self.visits / self.temperature).topk(count).indices
        self.visits[starts] += 1
        return starts
