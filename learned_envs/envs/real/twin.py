"""The real twin of a learned environment: same spaces, same reward scale, same episode rules."""

from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from learned_envs.catalog import entry

__all__ = ["make_real", "make_real_vec"]


def make_real(id: str, **kwargs: Any) -> gym.Env:
    """Make the environment that a learned one was learned from.

    Args:
        id: Id of the learned environment.
        **kwargs: Passed on to the real environment, such as ``render_mode``; they override its standard rules.

    Raises:
        gymnasium.error.NameNotFound: If the id is unknown.
        gymnasium.error.DependencyNotInstalled: If the real environment needs a package that is missing.
    """
    from learned_envs.envs.real.atari import make_atari

    item = entry(id)
    return make_atari(item.real[1], **{"max_episode_steps": item.max_episode_steps, **kwargs})


def make_real_vec(id: str, num_envs: int, **kwargs: Any) -> VectorEnv:
    """Make many of the environments that a learned one was learned from, stepped together.

    Args:
        id: Id of the learned environment.
        num_envs: Number of environments; at least 1.
        **kwargs: Passed on to the real environment, such as ``autoreset_mode``; they override its standard rules.

    Raises:
        ValueError: If ``num_envs`` is below 1.
        gymnasium.error.NameNotFound: If the id is unknown.
        gymnasium.error.DependencyNotInstalled: If the real environment needs a package that is missing.
    """
    from learned_envs.envs.real.atari import make_atari_vec

    item = entry(id)
    return make_atari_vec(item.real[1], num_envs, **{"max_episode_steps": item.max_episode_steps, **kwargs})
