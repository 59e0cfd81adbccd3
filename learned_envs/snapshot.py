"""The data-only package in which a trained environment travels: write, read, validate.

A snapshot is a folder of JSON and safetensors. Reading one runs no code of its author's: every value is checked against
its type, range and shape before anything is built, and every tensor file against its checksum.
"""

import hashlib
import json
import os
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from learned_envs.errors import SnapshotError
from learned_envs.starts import StartBank, StartKind
from learned_envs.twm.config import TwmConfig
from learned_envs.twm.world_model import TransformerWorldModel
from learned_envs.world_model import WorldModel

__all__ = ["FORMAT", "EnvironmentConfig", "SnapshotConfig", "read_snapshot", "write_snapshot"]

FORMAT = 1
_CONFIG, _MODEL, _STARTS, _FIDELITY = "config.json", "model.safetensors", "starts.safetensors", "fidelity.json"
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class EnvironmentConfig:
    """The real environment that was learned.

    Args:
        kind: Which maker of real twins builds it.
        name: What that maker calls it; for Atari the ALE name of the game.
        options: Keywords that fix its rules.
        num_actions: Size of its discrete action set.
        action_meanings: A word for each action.
        max_episode_steps: Steps after which an episode is truncated.
        reward: Scale of the rewards, in words.
        packages: Versions of the packages it was recorded with.
    """

    kind: Literal["atari"]
    name: str
    options: dict[str, Any]
    num_actions: int
    action_meanings: tuple[str, ...]
    max_episode_steps: int
    reward: str
    packages: dict[str, str]

    def __post_init__(self) -> None:
        if self.num_actions < 1 or len(self.action_meanings) != self.num_actions or self.max_episode_steps < 1:
            raise ValueError("num_actions and max_episode_steps must be at least 1, with one meaning for each action.")


@dataclass(frozen=True)
class SnapshotConfig:
    """What ``config.json`` says.

    Args:
        id: The id it was made for, such as ``LearnedPong-v0``.
        family: Which family of models it holds.
        model: The model's sizes.
        environment: What was learned.
        provenance: How it was made: data, seeds, interactions, versions, commands; for people.
        format: Version of this lay-out.
        library_name: Who reads it.
        sha256: Checksum of each tensor file.
    """

    id: str
    family: Literal["twm"]
    model: TwmConfig
    environment: EnvironmentConfig
    provenance: dict[str, Any]
    format: int = FORMAT
    library_name: Literal["learned_envs"] = "learned_envs"
    sha256: dict[str, str] = field(default_factory=dict)

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if self.model.num_actions != self.environment.num_actions:
            raise ValueError(
                f"the model has {self.model.num_actions} actions, the environment {self.environment.num_actions}"
            )


_ADAPTER = TypeAdapter(SnapshotConfig)


@dataclass(frozen=True)
class Snapshot:
    """A snapshot that was read.

    Args:
        config: What it says of itself.
        model: The model, in evaluation mode.
        starts: Recorded contexts.
        folder: Where it was read from.
    """

    config: SnapshotConfig
    model: WorldModel
    starts: StartBank
    folder: Path


def write_snapshot(
    folder: Path,
    config: SnapshotConfig,
    model: WorldModel,
    starts: StartBank,
    fidelity: dict[str, Any],
    replace: bool = False,
) -> None:
    """Write a snapshot, complete or not at all.

    Weights are stored in half precision.

    Args:
        folder: Where it goes.
        config: What it says of itself; checksums are filled in.
        model: The model.
        starts: Recorded contexts.
        fidelity: Measured figures, JSON-able.
        replace: Whether an existing folder may be replaced.

    Raises:
        FileExistsError: If the folder exists and may not be replaced.
    """
    if folder.exists() and not replace:
        raise FileExistsError(f"{folder} exists. Remove it, or write to another folder.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    # Not save_file: it makes files that only their owner may read.
    (partial / _MODEL).write_bytes(save(weights))
    (partial / _STARTS).write_bytes(save({name: tensor.contiguous() for name, tensor in starts.tensors.items()}))
    content = _ADAPTER.dump_python(config, mode="json")
    content["sha256"] = {name: _sha256(partial / name) for name in (_MODEL, _STARTS)}
    (partial / _CONFIG).write_text(json.dumps(content, indent=2) + "\n")
    (partial / _FIDELITY).write_text(json.dumps(fidelity, indent=2) + "\n")
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(partial, folder)


def read_config(folder: Path) -> SnapshotConfig:
    """Read and validate ``config.json``.

    Raises:
        SnapshotError: If it is missing, damaged, of another format, or has a field that does not fit.
    """
    path = folder / _CONFIG
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read ({error}): the folder is not a learned_envs snapshot.") from error
    try:
        version = json.loads(text).get("format")
    except (ValueError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"{path} is not a JSON object ({error}).") from error
    if version != FORMAT:
        raise SnapshotError(f"{path}: format is {version!r}, this version of learned_envs reads format {FORMAT}.")
    try:
        return _ADAPTER.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"])) or "(top level)"
        raise SnapshotError(f"{path}: {name}: {first['msg']}.") from error


def read_snapshot(folder: Path) -> Snapshot:
    """Read a snapshot from a folder.

    Raises:
        SnapshotError: If a file is missing, damaged, or does not fit the configuration; the message names file and field.
    """
    config = read_config(folder)
    model = _build(config, folder, "meta")
    expected = {name: (tuple(tensor.shape), torch.float16) for name, tensor in model.state_dict().items()}
    weights = _read_tensors(folder, _MODEL, config, expected)
    model = _build(config, folder, "cpu")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    starts = _read_starts(folder, config)
    return Snapshot(config, model.eval().requires_grad_(False), starts, folder)


def _build(config: SnapshotConfig, folder: Path, device: str) -> WorldModel:
    """A model without its weights. The caller's random generator is left as it is."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return TransformerWorldModel(config.model)
    except (RuntimeError, ValueError, OverflowError, MemoryError) as error:
        raise SnapshotError(f"{folder / _CONFIG}: model: no model of these sizes can be built ({error}).") from error


def _read_starts(folder: Path, config: SnapshotConfig) -> StartBank:
    tensors = _read_tensors(folder, _STARTS, config, None)
    bank = StartBank(tensors, stack=config.model.observation.stack)
    kinds: tuple[StartKind, ...] = ("initial", "anywhere")
    pictures = "frames" if bank.stack else "observations"
    expected = {f"{kind}.{part}" for kind in kinds for part in (pictures, "actions", "rewards")}
    if tensors.keys() != expected:
        name = min(tensors.keys() ^ expected)
        raise SnapshotError(
            f"{folder / _STARTS}: {name} is {'missing' if name in expected else 'not part of the format'}."
        )
    for kind in kinds:
        try:
            _, actions, rewards = bank.contexts(kind)
        except (ValueError, TypeError, RuntimeError, zlib.error) as error:
            raise SnapshotError(f"{folder / _STARTS}: the {kind} contexts are damaged ({error}).") from error
        if (
            actions.shape != rewards.shape
            or actions.dtype != torch.int64
            or rewards.dtype != torch.float32
            or not len(actions)
        ):
            raise SnapshotError(f"{folder / _STARTS}: {kind}.actions and {kind}.rewards have wrong shapes or dtypes.")
        if actions.numel() and not 0 <= int(actions.min()) <= int(actions.max()) < config.model.num_actions:
            raise SnapshotError(f"{folder / _STARTS}: {kind}.actions lie outside 0 to {config.model.num_actions - 1}.")
    return bank


def _read_tensors(
    folder: Path, name: str, config: SnapshotConfig, expected: dict[str, tuple[tuple[int, ...], torch.dtype]] | None
) -> dict[str, Tensor]:
    """Tensors of a file whose checksum and, where given, names, shapes and dtypes are as expected."""
    path = folder / name
    if not path.is_file():
        raise SnapshotError(f"{path} is missing: the snapshot is incomplete.")
    if _sha256(path) != config.sha256.get(name):
        raise SnapshotError(f"{path} does not have the checksum that {_CONFIG} gives: it is damaged or was changed.")
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise SnapshotError(f"{path} is not a safetensors file ({error}).") from error
    found = {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in tensors.items()}
    if expected is not None and found != expected:
        key = next(key for key in sorted({*found, *expected}) if found.get(key) != expected.get(key))
        raise SnapshotError(
            f"{path}: {key} is {found.get(key, 'missing')}, {_CONFIG} asks for {expected.get(key, 'no such tensor')}."
        )
    return tensors


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
