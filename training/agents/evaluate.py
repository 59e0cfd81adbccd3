"""What an agent earns in an environment, learned or real."""

from dataclasses import dataclass
from statistics import fmean, pstdev
from typing import Any

import torch
from gymnasium.vector import VectorEnv
from torch import Tensor

from training.agents.agent import Agent

__all__ = ["Evaluation", "TensorEnvs", "evaluate"]


@dataclass(frozen=True)
class Evaluation:
    """Episodes of an agent.

    Args:
        returns: Undiscounted return of each.
        lengths: Steps of each.
    """

    returns: tuple[float, ...]
    lengths: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean return."""
        return fmean(self.returns)

    @property
    def sd(self) -> float:
        """Standard deviation of the return over episodes."""
        return pstdev(self.returns)

    @property
    def episodes(self) -> int:
        """How many there are."""
        return len(self.returns)


class TensorEnvs:
    """A vector environment that takes and gives tensors on a device, whatever it computes with.

    Args:
        envs: Of tensors or NumPy arrays.
        device: Where the tensors lie.
    """

    def __init__(self, envs: VectorEnv, device: torch.device) -> None:
        self._envs, self._device = envs, device
        self._takes_tensors = getattr(envs, "output", None) == "torch"

    def reset(self, seed: int | None = None) -> Tensor:
        """First observations, shape (N, ...)."""
        return self._tensor(self._envs.reset(seed=seed)[0])

    def step(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Observations, shape (N, ...); rewards, float32, terminated and truncated, shape (N,)."""
        given: Any = actions if self._takes_tensors else actions.cpu().numpy()
        observations, rewards, terminated, truncated = map(self._tensor, self._envs.step(given)[:4])
        return observations, rewards.float(), terminated, truncated

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(values, device=self._device)


def evaluate(
    agent: Agent, envs: VectorEnv, episodes: int = 30, seed: int = 1_000_000, greedy: bool = False
) -> Evaluation:
    """Let an agent play whole episodes.

    Every environment plays its share of the episodes: taking those that end first would favour short ones.

    Args:
        agent: Who plays.
        envs: Where, in NEXT_STEP mode.
        episodes: How many episodes; at least 1.
        seed: Seed of the environments. What the agent draws comes from torch's global generator.
        greedy: Whether the agent takes its most likely actions instead of drawing them.

    Raises:
        ValueError: If ``episodes`` is below 1.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}, but must be at least 1.")
    tensors = TensorEnvs(envs, next(agent.parameters()).device)
    shares = [episodes // envs.num_envs + (index < episodes % envs.num_envs) for index in range(envs.num_envs)]
    returns, lengths = [0.0] * envs.num_envs, [0] * envs.num_envs
    results: list[tuple[float, int]] = []
    over = [False] * envs.num_envs
    agent.eval()
    observations = tensors.reset(seed)
    while any(shares):
        observations, rewards, terminated, truncated = tensors.step(agent.act(observations, greedy))
        ended = (terminated | truncated).tolist()
        for index, reward in enumerate(rewards.tolist()):
            if over[index]:  # this step only began the next episode
                returns[index], lengths[index] = 0.0, 0
                continue
            returns[index] += reward
            lengths[index] += 1
            if ended[index] and shares[index]:
                shares[index] -= 1
                results.append((returns[index], lengths[index]))
        over = ended
    return Evaluation(*(tuple(kind) for kind in zip(*results, strict=True)))
