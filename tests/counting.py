"""A world model whose every number can be checked by eye: it counts its steps.

The observation is (number of the start, steps taken, last action, steps that the episode lasts); the reward is ten times
the action plus the count; the episode ends when it has lasted so long.
"""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.pretrained import Pretrained
from learned_envs.starts import StartBank
from learned_envs.world_model import Prediction, State, WorldModel

__all__ = ["NEVER", "CountingModel", "counting_env"]

NEVER = 255  # longer than any test


@dataclass(frozen=True)
class CountingState(State):
    """What the observation shows, int64, shape (B, 4)."""

    shown: Tensor


class CountingModel(WorldModel):
    """Counts."""

    def __init__(self) -> None:
        super().__init__()
        self.observation_shape = (4,)
        self.observation_dtype = torch.uint8
        self.noise_size = 2

    def start(
        self, observations: Tensor, actions: Tensor | None = None, rewards: Tensor | None = None
    ) -> CountingState:
        return CountingState(observations[:, -1].long())

    def observe(self, state: CountingState) -> Tensor:
        return state.shown.to(torch.uint8)

    def step(
        self, state: CountingState, action: Tensor, noise: Tensor, decode: bool = True
    ) -> tuple[CountingState, Prediction]:
        start, count, _, lasts = state.shown.unbind(1)
        count = count + 1
        end = (count >= lasts).float()
        return CountingState(torch.stack([start, count, action, lasts], 1)), Prediction(10.0 * action + count, end)


def counting_env(lasts: list[int], num_envs: int, limit: int = 10**6, **keywords: Any) -> LearnedVectorEnv:
    """A batch of counting environments.

    Args:
        lasts: How many steps an episode lasts, for each start that can be drawn.
        num_envs: Number of environments.
        limit: Steps after which the real environment truncates an episode.
        **keywords: Of `LearnedVectorEnv`.
    """
    count = len(lasts)
    observations = torch.tensor([[[index, 0, 0, steps]] for index, steps in enumerate(lasts)], dtype=torch.uint8)
    contexts = observations, torch.zeros(count, 0).long(), torch.zeros(count, 0)
    starts = StartBank.from_contexts({"initial": contexts, "anywhere": contexts})
    config: Any = SimpleNamespace(environment=SimpleNamespace(num_actions=3, max_episode_steps=limit))
    return LearnedVectorEnv(Pretrained(CountingModel().eval(), starts, config), num_envs, **keywords)
