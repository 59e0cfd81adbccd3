"""From a name to a trained model: in a folder, bundled with the package, in the cache, or on the Hugging Face Hub."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from learned_envs.catalog import BUNDLED, CATALOG, nearest, register_id, repository_of
from learned_envs.device import parse_device
from learned_envs.download import download, is_repository
from learned_envs.environment import SystemConfig
from learned_envs.envs.real.systems import System
from learned_envs.errors import MissingModelError
from learned_envs.snapshot import SnapshotConfig, read_config, read_snapshot
from learned_envs.starts import StartBank
from learned_envs.world_model import WorldModel

__all__ = ["Pretrained", "find_snapshot", "load", "load_pretrained", "register_snapshot"]

_registered: dict[str, Path] = {}  # folders added in this process, by id


@dataclass(frozen=True)
class Pretrained:
    """A trained model with what an environment needs beside it.

    Args:
        model: The model, in evaluation mode.
        starts: Recorded contexts to start from.
        config: What the snapshot says of itself.
        fidelity: How faithful the model was measured to be.
    """

    model: WorldModel
    starts: StartBank
    config: SnapshotConfig
    fidelity: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, model: WorldModel) -> "Pretrained":
        """What `load` returned, with what it was loaded with.

        Raises:
            ValueError: If the model came without an environment.
        """
        if not (hasattr(model, "snapshot") and hasattr(model, "starts")):
            raise ValueError("model came without an environment: use one that learned_envs.load returned.")
        return cls(model, model.starts, model.snapshot)  # type: ignore[arg-type]

    @property
    def system(self) -> System | None:
        """The control problem that was learned; None for a game."""
        environment = self.config.environment
        return environment.system if isinstance(environment, SystemConfig) else None

    @property
    def observation_space(self) -> gym.spaces.Box:
        """Space of one observation: that of the real environment."""
        if self.system is not None:
            return self.system.observation_space
        return gym.spaces.Box(0, 255, self.model.observation_shape, np.uint8)

    @property
    def action_space(self) -> gym.spaces.Box | gym.spaces.Discrete:
        """Space of one action: that of the real environment."""
        if self.system is not None:
            return self.system.action_space
        return gym.spaces.Discrete(self.config.environment.num_actions)

    def limit(self, max_episode_steps: int | None) -> int:
        """Steps, counted from where it began, after which an episode is truncated.

        Args:
            max_episode_steps: The caller's limit; None for that of the real environment. A control problem has no time beyond
                its horizon, so there a later limit means the horizon.
        """
        real = self.config.environment.max_episode_steps
        if max_episode_steps is None:
            return real
        is_whole = isinstance(max_episode_steps, int | np.integer)
        if self.system is None or not is_whole:  # the environment refuses what is no number
            return max_episode_steps
        return min(int(max_episode_steps), real)


def load(
    name: str | Path,
    revision: str | None = None,
    device: str | torch.device | None = None,
    local_files_only: bool = False,
) -> WorldModel:
    """Load a world model, for people who want functions and gradients.

    Args:
        name: Id, folder of a snapshot, or repository on the Hub, ``organization/name``.
        revision: Branch, tag or commit on the Hub; a folder has none. With one, an id is looked up on the Hub even if a model
            of it is bundled.
        device: Where to put the model; None for the CPU.
        local_files_only: Whether to do without the network.

    Returns:
        The model in evaluation mode, with ``observation_space``, ``action_space``, ``snapshot``, its configuration,
        and ``starts``, recorded contexts.

    Raises:
        MissingModelError: If the model is not to be had.
        SnapshotError: If its files are damaged.
        ValueError: If the device is not available, or a revision of a folder is asked for.
    """
    pretrained = load_pretrained(name, revision=revision, device=device, local_files_only=local_files_only)
    model = pretrained.model
    model.observation_space, model.action_space = pretrained.observation_space, pretrained.action_space
    model.snapshot, model.starts = pretrained.config, pretrained.starts
    return model


def register_snapshot(folder: str | Path) -> str:
    """Tell Gymnasium of a snapshot, so that in this process `gymnasium.make` takes its id.

    Args:
        folder: Folder of the snapshot.

    Returns:
        The id, which the snapshot itself names.

    Raises:
        SnapshotError: If the folder holds no valid snapshot.
        ValueError: If the id is already taken, by another environment or another folder.
    """
    folder = Path(folder).resolve()
    config = read_config(folder)
    if config.id in _registered:
        taken = _registered[config.id] != folder
    else:  # an id of the catalogue waits for a model, unless one is bundled
        taken = CATALOG[config.id].bundled if config.id in CATALOG else config.id in gym.registry
    if taken:
        raise ValueError(
            f"The id {config.id} is already taken. Use gym.make('learned_envs:Learned-v0', model={str(folder)!r})."
        )
    register_id(config.id)
    _registered[config.id] = folder
    return config.id


def load_pretrained(
    name: str | Path,
    *,
    revision: str | None = None,
    device: str | torch.device | None = None,
    local_files_only: bool = False,
) -> Pretrained:
    """Load a trained model.

    Args:
        name: Id, folder, or repository on the Hub.
        revision: Branch, tag or commit on the Hub.
        device: Where to put the model; None for the CPU.
        local_files_only: Whether to do without the network.

    Raises:
        MissingModelError: If the model is not to be had.
        SnapshotError: If its files are damaged.
        ValueError: If the device is not available, or a revision of a folder is asked for.
    """
    device = parse_device(device)
    snapshot = read_snapshot(find_snapshot(name, revision, local_files_only))
    return Pretrained(snapshot.model.to(device), snapshot.starts, snapshot.config, snapshot.fidelity)


def find_snapshot(name: str | Path, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Folder of the snapshot that a name stands for.

    In this order: a registered folder, a folder (a string that is an id means none), a bundled snapshot, the Hub, and its cache
    where the Hub cannot be reached or the revision is a commit. A bundled snapshot has no revisions: where one is asked for,
    the Hub has it.

    Args:
        name: Id, folder, or repository on the Hub.
        revision: Branch, tag or commit on the Hub.
        local_files_only: Whether to do without the network.

    Raises:
        MissingModelError: If it is not to be had.
        SnapshotError: If what the Hub has is no snapshot, or is damaged.
        ValueError: If a revision of a folder is asked for, or the name is none.
    """
    if not isinstance(name, str | Path):
        raise ValueError(f"name is {name!r}, expected an id, a folder of a snapshot, or a repository on the Hub.")
    folder = _local_folder(name)
    if folder is not None and revision is not None:
        raise ValueError(
            f"revision is {revision!r}, but {name} is the local folder {folder}, which has no revisions. Leave it out."
        )
    if folder is not None:
        return folder
    if isinstance(name, Path):
        raise MissingModelError(f"There is no folder {name}.")
    if name in CATALOG:
        return _find_id(name, revision, local_files_only)
    if is_repository(name):
        try:
            return download(name, revision, local_files_only)
        except MissingModelError as error:
            raise MissingModelError(f"{error} Nor is there a folder {name!r} here.") from error
    near = nearest(name, _registered)
    hint = f"did you mean {near}?" if near else "list them with: learned-envs list"
    raise MissingModelError(
        f"No model {name!r}: it is neither an id ({hint}) nor the folder of a snapshot, nor a repository on the Hub "
        "(organization/name)."
    )


def _local_folder(name: str | Path) -> Path | None:
    """The folder that a name stands for; only a string is an id, and then it stands for no folder of the same name."""
    if isinstance(name, str) and name in _registered:
        return _registered[name]
    is_id = isinstance(name, str) and (name in CATALOG or not name)  # an empty path would be the current folder
    return Path(name) if not is_id and Path(name).is_dir() else None


def _find_id(id: str, revision: str | None, local_files_only: bool) -> Path:
    if revision is None and CATALOG[id].bundled:
        return BUNDLED / id
    try:
        return download(repository_of(id), revision, local_files_only)
    except MissingModelError as error:
        wanted = "no revision of a bundled model is" if CATALOG[id].bundled else "it is not bundled, and nothing was"
        raise MissingModelError(
            f"No model for {id}: {wanted} to be had from the Hub. {error} "
            f"Or train it, in a checkout of the project: {CATALOG[id].recipe}"
        ) from error
