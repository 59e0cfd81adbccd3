"""The agents of Stable-Baselines3 that are trained in imagination, and how each is set up for pictures and for numbers."""

from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv

__all__ = ["AGENTS", "RandomAgent", "Settings", "settings"]


@dataclass(frozen=True)
class Settings:
    """How an agent is set up.

    Args:
        algorithm: Name of its class.
        n_envs: Environments side by side.
        keywords: Of its class.
        anneal: Whether the learning rate falls linearly to zero.
        greedy: Whether it is judged by its most likely actions instead of by what it draws.
    """

    algorithm: str
    n_envs: int
    keywords: dict[str, Any] = field(default_factory=dict)
    anneal: bool = False
    greedy: bool = True

    @property
    def algorithm_class(self) -> type[BaseAlgorithm]:
        """Its class."""
        return getattr(stable_baselines3, self.algorithm)

    @property
    def chunk(self) -> int:
        """Steps of all environments that it takes at once."""
        return self.n_envs * self.keywords.get("n_steps", 1)

    @property
    def fewest(self) -> int:
        """Steps below which it learns nothing."""
        return max(self.chunk, self.keywords.get("learning_starts", 0) + 1)

    @property
    def needs(self) -> str:
        """The same in words."""
        if self.fewest > self.chunk:
            return f"{self.algorithm} only collects for the first {self.fewest - 1:,}"
        return f"{self.algorithm} takes {self.chunk:,} at once with {self.n_envs} environments"


_CNN: dict[str, Any] = {"policy": "CnnPolicy", "policy_kwargs": {"features_extractor_kwargs": {"features_dim": 256}}}
_MLP: dict[str, Any] = {"policy": "MlpPolicy"}
_PPO_GAMES = {
    "n_steps": 32,
    "batch_size": 256,
    "n_epochs": 4,
    "learning_rate": 5e-4,
    "clip_range": 0.1,
    "ent_coef": 0.01,
}
_DQN = {
    "train_freq": 1,
    "gradient_steps": 1,
    "learning_starts": 10_000,
    "target_update_interval": 1_000,
    "buffer_size": 50_000,
    "learning_rate": 1e-4,
}
_OFF_POLICY = {"train_freq": 1, "gradient_steps": -1, "learning_starts": 1_000, "buffer_size": 200_000}

AGENTS: dict[str, dict[str, Settings]] = {
    "ppo": {
        "pictures": Settings("PPO", 64, _CNN | _PPO_GAMES, anneal=True, greedy=False),
        "numbers": Settings("PPO", 16, _MLP | {"n_steps": 128, "batch_size": 256, "ent_coef": 0.0}, anneal=True),
    },
    "a2c": {
        "pictures": Settings("A2C", 32, _CNN | {"n_steps": 8, "ent_coef": 0.01}, anneal=True, greedy=False),
        "numbers": Settings("A2C", 16, _MLP | {"n_steps": 8}, anneal=True),
    },
    "dqn": {"pictures": Settings("DQN", 8, _CNN | _DQN)},
    "sac": {"numbers": Settings("SAC", 8, _MLP | _OFF_POLICY)},
    "td3": {"numbers": Settings("TD3", 8, _MLP | _OFF_POLICY)},
}
"""Settings of each agent, for observations that are pictures and for those that are numbers."""

_TAKES = {"dqn": gym.spaces.Discrete, "sac": gym.spaces.Box, "td3": gym.spaces.Box}


def settings(agent: str, id: str, observations: gym.Space, actions: gym.Space) -> Settings:
    """How an agent is set up for an environment.

    Args:
        agent: Key of `AGENTS`.
        id: Id of the environment.
        observations: Space of one observation.
        actions: Space of one action.

    Raises:
        ValueError: If there is no such agent, or it cannot act in the environment.
    """
    if agent not in AGENTS:
        raise ValueError(f"agent is {agent!r}, expected one of {', '.join(AGENTS)}.")
    kind = "pictures" if observations.dtype == np.uint8 else "numbers"
    fitting = [each for each in AGENTS if isinstance(actions, _TAKES.get(each, object)) and kind in AGENTS[each]]
    if agent not in fitting:
        takes = "one of several actions" if _TAKES.get(agent) is gym.spaces.Discrete else "numbers as actions"
        raise ValueError(f"agent is {agent!r}, which takes {takes}, but {id} has {actions}. Use {', '.join(fitting)}.")
    return AGENTS[agent][kind]


class RandomAgent:
    """Draws every action uniformly from its space.

    Args:
        envs: Where it acts.
        seed: Seed of its actions.
    """

    def __init__(self, envs: VecEnv, seed: int) -> None:
        self._space = gym.vector.utils.batch_space(envs.action_space, envs.num_envs)
        self._space.seed(seed)

    def predict(self, *_: Any, **__: Any) -> tuple[Any, None]:
        """An action for each environment, and no state; as agents of Stable-Baselines3 do."""
        return self._space.sample(), None
