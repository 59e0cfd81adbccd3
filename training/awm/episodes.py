"""Whole episodes of one length, as models of continuous states learn from them.

Letters: N episodes, B batch, L steps of a window, H steps of an episode, n observation, m action.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from learned_envs.envs.real.systems import System

__all__ = ["Episodes", "first_action_plans", "record", "uniform_plans"]


@dataclass(frozen=True)
class Episodes:
    """Recorded episodes; adding some makes a new collection.

    Args:
        observations: s_1..s_{H+1}, clock last, shape (N, H + 1, n).
        actions: a_1..a_H in [-1, 1], shape (N, H, m).
        rewards: r_1..r_H, shape (N, H).

    Raises:
        ValueError: If shapes do not fit each other.
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor

    def __post_init__(self) -> None:
        count, steps = self.rewards.shape
        if self.observations.shape[:2] != (count, steps + 1) or self.actions.shape[:2] != (count, steps):
            raise ValueError(
                f"observations, actions and rewards have the shapes {tuple(self.observations.shape)}, "
                f"{tuple(self.actions.shape)} and {tuple(self.rewards.shape)}, expected (N, H + 1, n), (N, H, m) and (N, H)."
            )

    @classmethod
    def none(cls, system: System) -> "Episodes":
        """No episodes of a system."""
        steps, size = system.horizon, len(system.observation_bounds)
        return cls(torch.empty(0, steps + 1, size), torch.empty(0, steps, system.action_dim), torch.empty(0, steps))

    def __len__(self) -> int:
        """Number of episodes, N."""
        return len(self.rewards)

    @property
    def horizon(self) -> int:
        """Steps of an episode, H."""
        return self.rewards.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """The three tensors by name: what a checkpoint keeps."""
        return {"observations": self.observations, "actions": self.actions, "rewards": self.rewards}

    def add(self, more: "Episodes", capacity: int) -> "Episodes":
        """These episodes and others, of which at most the newest ``capacity`` transitions, but one episode, are kept."""
        keep = max(1, capacity // self.horizon)
        theirs = more.tensors()
        return Episodes(**{name: torch.cat([mine, theirs[name]])[-keep:] for name, mine in self.tensors().items()})

    def windows(self, count: int, length: int | None = None) -> "Episodes":
        """Random parts of random episodes, drawn with the global generator.

        Args:
            count: Number of windows, B.
            length: Steps of a window, L; left out, whole episodes.

        Returns:
            The windows, as episodes of L steps.

        Raises:
            ValueError: If there are no episodes, or they are shorter than the window.
        """
        length = self.horizon if length is None else length
        if not len(self):
            raise ValueError("There are no episodes yet to draw from.")
        if not 1 <= length <= self.horizon:
            raise ValueError(f"length is {length}, expected 1 to the {self.horizon} steps of an episode.")
        rows = torch.randint(len(self), (count, 1))
        steps = torch.randint(self.horizon - length + 1, (count, 1)) + torch.arange(length + 1)
        return Episodes(
            self.observations[rows, steps], self.actions[rows, steps[:, :-1]], self.rewards[rows, steps[:, :-1]]
        )


@torch.no_grad()
def record(system: System, plans: Tensor) -> Episodes:
    """Play plans in the real system.

    Args:
        system: Where to play.
        plans: In [-1, 1], shape (N, H, m), with H the horizon of the system.

    Raises:
        ValueError: If a shape does not fit.
    """
    if plans.ndim != 3 or plans.shape[1] != system.horizon:
        raise ValueError(f"plans has shape {tuple(plans.shape)}, expected (N, {system.horizon}, {system.action_dim}).")
    noise = torch.randn(len(plans), system.horizon + 1, system.noise_size)
    states, rewards = system.rollout(plans, noise=noise)
    seen = [system.observe(state, t) for t, state in enumerate(states.unbind(1))]
    return Episodes(torch.stack(seen, 1), plans, rewards)


def uniform_plans(system: System, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Plans of independent, uniform actions, shape (count, H, m)."""
    return torch.rand(count, system.horizon, system.action_dim, dtype=dtype) * 2 - 1


def first_action_plans(first: Tensor, horizon: int) -> Tensor:
    """Plans of given first actions, shape (N, m), followed by zeros: shape (N, H, m)."""
    return torch.cat([first.unsqueeze(1), first.new_zeros(len(first), horizon - 1, first.shape[1])], 1)
