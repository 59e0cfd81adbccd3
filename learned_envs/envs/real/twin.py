"""The real twin of a learned environment: same spaces, same reward scale, same episode rules."""

from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.vector import VectorEnv

from learned_envs.catalog import CATALOG, entry
from learned_envs.envs.real.registration import SYSTEM_IDS
from learned_envs.errors import MissingModelError

__all__ = ["find_twin", "make_real", "make_real_vec"]


def make_real(id: str | Path, *, revision: str | None = None, **kwargs: Any) -> gym.Env:
    """Make the environment that a learned one was learned from.

    Args:
        id: Id of the learned environment, folder of a snapshot, or repository on the Hub.
        revision: Branch, tag or commit of a snapshot on the Hub.
        **kwargs: Passed on to the real environment, such as ``render_mode``; they override its standard rules.

    Raises:
        gymnasium.error.NameNotFound: If the id is unknown.
        MissingModelError: If there is no such folder, or the Hub does not have the snapshot.
        gymnasium.error.DependencyNotInstalled: If the real environment needs a package that is missing.
        SnapshotError: If the snapshot is damaged.
        TypeError: If the real environment has no such rule.
    """
    kind, name, rules = _what_was_learned(id, revision)
    if kind == "system":
        return gym.make(_system_id(name), disable_env_checker=True, **{**rules, **kwargs})
    from learned_envs.envs.real.atari import make_atari

    return make_atari(name, **{**rules, **kwargs})


def make_real_vec(id: str | Path, num_envs: int, *, revision: str | None = None, **kwargs: Any) -> VectorEnv:
    """Make many of the environments that a learned one was learned from, stepped together.

    Args:
        id: Id of the learned environment, folder of a snapshot, or repository on the Hub.
        num_envs: Number of environments; at least 1.
        revision: Branch, tag or commit of a snapshot on the Hub.
        **kwargs: Passed on to the real environment, such as ``autoreset_mode``; they override its standard rules.

    Raises:
        ValueError: If ``num_envs`` is below 1.
        gymnasium.error.NameNotFound: If the id is unknown.
        MissingModelError: If there is no such folder, or the Hub does not have the snapshot.
        gymnasium.error.DependencyNotInstalled: If the real environment needs a package that is missing.
        SnapshotError: If the snapshot is damaged.
        TypeError: If the real environment has no such rule.
    """
    kind, name, rules = _what_was_learned(id, revision)
    if kind == "system":
        return gym.make_vec(_system_id(name), num_envs=num_envs, **{**rules, **kwargs})
    from learned_envs.envs.real.atari import make_atari_vec

    return make_atari_vec(name, num_envs, **{**rules, **kwargs})


def find_twin(id: str | Path, learned: gym.Env) -> tuple[gym.Env | None, str]:
    """Make the environment that a learned one was learned from, if it is to be had and fits.

    Args:
        id: Id of the learned environment, folder of a snapshot, or repository on the Hub.
        learned: The learned environment.

    Returns:
        The real environment and nothing to say, or None and why there is none.
    """
    try:
        real = make_real(id)
    except (gym.error.DependencyNotInstalled, gym.error.NameNotFound) as error:
        return None, str(error)
    for name, mine, theirs in (
        ("observations", learned.observation_space, real.observation_space),
        ("actions", learned.action_space, real.action_space),
    ):
        if mine != theirs:
            real.close()
            return None, f"The real game has other {name} than the model: {theirs}, not {mine}."
    return real, ""


def _what_was_learned(id: str | Path, revision: str | None) -> tuple[str, str, dict[str, Any]]:
    """Kind, name and rules of the real environment: a snapshot tells its own, without one the catalogue tells the usual."""
    from learned_envs.environment import SystemConfig
    from learned_envs.pretrained import find_snapshot
    from learned_envs.snapshot import read_config

    try:
        # The catalogue knows the rules of every id: nobody needs the network for those.
        offline = revision is None and id in CATALOG
        real = read_config(find_snapshot(id, revision, local_files_only=offline)).environment
    except MissingModelError:
        if revision is not None or isinstance(id, Path) or Path(id).name != id:  # a folder or repository, no id
            raise
        item = entry(id)
        limit = "horizon" if item.real[0] == "system" else "max_episode_steps"
        return *item.real, {limit: item.max_episode_steps}
    limits = {} if isinstance(real, SystemConfig) else {"max_episode_steps": real.max_episode_steps}
    return real.kind, real.name, limits | real.options


def _system_id(name: str) -> str:
    return next(id for id, system in SYSTEM_IDS.items() if system == name)
