"""Soft Actor-Critic, the rival without a model (section 2.5).

The twin-Q SAC of Stable-Baselines3 with the released rates and sizes. The released code's own SAC has a single Q network and
updates its targets with the actor only; ours is the usual one, so that the rival is a fair one.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from learned_envs.envs.real.control import SystemEnv
from learned_envs.envs.real.systems import System
from training.awm.episodes import record, uniform_plans
from training.awm.recipe import BpoRecipe
from training.loop import RunError

__all__ = ["SystemTask", "train_sac"]

_EPISODES_FOR_SCALES = 1


class SystemTask(gym.Wrapper):
    """A real system as a task of its own horizon, with normalised observations.

    The clock is part of an observation, so nothing follows the last step: it terminates the episode and is not bootstrapped.

    Args:
        system: The system.
        normalize: Whether to take the scale of observations from one episode of uniform actions.
    """

    def __init__(self, system: System, normalize: bool = True) -> None:
        super().__init__(SystemEnv(system))
        size = len(system.observation_bounds)
        self.mean, self.scale = np.zeros(size, np.float32), np.ones(size, np.float32)
        if normalize:
            seen = record(system, uniform_plans(system, _EPISODES_FOR_SCALES)).observations.flatten(0, 1).numpy()
            self.mean, deviation = seen.mean(0), seen.std(0)
            self.scale = np.where(deviation > 1e-6 * np.abs(self.mean), deviation, np.float32(1))
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (size,), np.float32)

    def reset(self, **options: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        observation, info = self.env.reset(**options)
        return self._scaled(observation), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`; the end of the horizon is a termination."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._scaled(observation), float(reward), terminated or truncated, False, info

    def _scaled(self, observation: np.ndarray) -> np.ndarray:
        return ((observation - self.mean) / self.scale).astype(np.float32)


def train_sac(recipe: BpoRecipe, system: System) -> list[tuple[int, float]]:
    """Train a policy by SAC. It is not resumed: an interrupted training begins again.

    Args:
        recipe: Steps, evaluations, capacity, normalisation and seed are used; rates and sizes are those of the released code.
        system: The real system.

    Returns:
        Real steps and mean return of each evaluation.

    Raises:
        RunError: If Stable-Baselines3 is missing.
    """
    try:
        from stable_baselines3 import SAC  # pyright: ignore[reportMissingImports] - optional
    except ImportError as error:
        raise RunError(
            'family "sac" needs Stable-Baselines3: pip install -c constraints.txt "learned-envs[sb3]".'
        ) from error
    torch.manual_seed(recipe.seed)
    task = SystemTask(system, recipe.normalize)
    agent = SAC(
        "MlpPolicy",
        task,
        learning_rate=3e-4,
        buffer_size=recipe.capacity,
        learning_starts=1000,
        batch_size=128,
        tau=0.005,
        gamma=0.99,
        train_freq=2,
        gradient_steps=1,
        ent_coef=0.1,  # pyright: ignore[reportArgumentType] - a number is a fixed coefficient
        policy_kwargs={"net_arch": [256, 256]},
        seed=recipe.seed,
        device="cpu",
    )
    returns: list[tuple[int, float]] = []
    while agent.num_timesteps < recipe.env_steps:
        agent.learn(min(recipe.evaluate_every, recipe.env_steps - agent.num_timesteps), reset_num_timesteps=False)
        returns.append((agent.num_timesteps, _evaluate(agent, task, recipe.evaluation_episodes)))
    return returns


def _evaluate(agent: Any, task: SystemTask, episodes: int) -> float:
    """Mean return of the deterministic policy, in an environment of its own."""
    total = 0.0
    copy = SystemTask(task.unwrapped.system, normalize=False)  # type: ignore[attr-defined]
    copy.mean, copy.scale = task.mean, task.scale
    for episode in range(episodes):
        observation, _ = copy.reset(seed=episode)
        ended = False
        while not ended:
            action, _ = agent.predict(observation, deterministic=True)
            observation, reward, ended, _, _ = copy.step(action)
            total += reward
    return total / episodes
