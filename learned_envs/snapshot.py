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
from typing import Any, Generic, Literal, TypeVar

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from learned_envs.errors import SnapshotError
from learned_envs.families import FAMILIES
from learned_envs.policy import Policy, PolicyConfig
from learned_envs.starts import StartBank, StartKind
from learned_envs.twm.config import TwmConfig
from learned_envs.twm.world_model import TransformerWorldModel
from learned_envs.world_model import WorldModel

__all__ = ["FORMAT", "Snapshot", "SnapshotConfig", "read_config", "read_policy", "read_snapshot", "write_snapshot"]

FORMAT = 1
_CONFIG, _MODEL, _STARTS, _FIDELITY = "config.json", "model.safetensors", "starts.safetensors", "fidelity.json"
_POLICY = "policy.safetensors"
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Model = TypeVar("Model")
Environment = TypeVar("Environment")


@dataclass(frozen=True)
class SnapshotConfig(Generic[Model, Environment]):
    """What ``config.json`` says.

    Args:
        id: The id it was made for, such as ``LearnedPong-v0``.
        family: Which family of models it holds, a key of `learned_envs.families.FAMILIES`. It decides the classes of the
            next two.
        model: The model's sizes.
        environment: What was learned.
        provenance: How it was made: data, seeds, interactions, versions, commands; for people.
        policy: Sizes of the agent that came with it; None if none did.
        format: Version of this lay-out.
        library_name: Who reads it.
        sha256: Checksum of each tensor file.

    Raises:
        ValueError: If the family is unknown, or its parts do not fit each other.
    """

    id: str
    family: str
    model: Model
    environment: Environment
    provenance: dict[str, Any]
    policy: PolicyConfig | None = None
    format: int = FORMAT
    library_name: Literal["learned_envs"] = "learned_envs"
    sha256: dict[str, str] = field(default_factory=dict)

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise ValueError(f"family is {self.family!r}, expected one of {', '.join(map(repr, FAMILIES))}")
        family = FAMILIES[self.family]
        if not isinstance(self.model, family.model) or not isinstance(self.environment, family.environment):
            raise ValueError(
                f"model and environment are {type(self.model).__name__} and {type(self.environment).__name__}, but family "
                f"{self.family!r} has {family.model.__name__} and {family.environment.__name__}"
            )
        family.check(self.model, self.environment)
        if self.policy is not None and family.model is not TwmConfig:
            raise ValueError(f"policy is given, but agents come with models of family 'twm' only, not {self.family!r}")


_ADAPTERS: dict[str, TypeAdapter[SnapshotConfig]] = {
    name: TypeAdapter(SnapshotConfig[family.model, family.environment])  # type: ignore[valid-type]
    for name, family in FAMILIES.items()
}


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
    policy: Policy | None = None,
) -> None:
    """Write a snapshot, complete or not at all.

    Weights are stored in the precision of their family.

    Args:
        folder: Where it goes.
        config: What it says of itself; checksums are filled in.
        model: The model.
        starts: Recorded contexts.
        fidelity: Measured figures, JSON-able.
        replace: Whether an existing folder may be replaced.
        policy: The agent that goes with it, if ``config`` names one.

    Raises:
        FileExistsError: If the folder exists and may not be replaced.
    """
    if folder.exists() and not replace:
        raise FileExistsError(f"{folder} exists. Remove it, or write to another folder.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    dtype = FAMILIES[config.family].weights
    modules = {_MODEL: model} if policy is None else {_MODEL: model, _POLICY: policy.actor}
    for name, module in modules.items():
        weights = {key: tensor.to(dtype).contiguous() for key, tensor in module.state_dict().items()}
        # Not save_file: it makes files that only their owner may read.
        (partial / name).write_bytes(save(weights))
    (partial / _STARTS).write_bytes(save({name: tensor.contiguous() for name, tensor in starts.tensors.items()}))
    content = _ADAPTERS[config.family].dump_python(config, mode="json")
    if config.policy is None:
        del content["policy"]
    content["sha256"] = {name: _sha256(partial / name) for name in (*modules, _STARTS)}
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
        version, family = (json.loads(text).get(name) for name in ("format", "family"))
    except (ValueError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"{path} is not a JSON object ({error}).") from error
    if version != FORMAT:
        raise SnapshotError(f"{path}: format is {version!r}, this version of learned_envs reads format {FORMAT}.")
    if not isinstance(family, str) or family not in FAMILIES:
        known = ", ".join(map(repr, FAMILIES))
        raise SnapshotError(f"{path}: family is {family!r}, this version of learned_envs knows {known}.")
    try:
        return _ADAPTERS[family].validate_json(text)
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
    dtype = FAMILIES[config.family].weights
    expected = {name: (tuple(tensor.shape), dtype) for name, tensor in model.state_dict().items()}
    weights = _read_tensors(folder, _MODEL, config, expected)
    model = _build(config, folder, "cpu")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    starts = _read_starts(folder, config)
    return Snapshot(config, model.eval().requires_grad_(False), starts, folder)


def read_policy(snapshot: Snapshot) -> Policy:
    """Read the agent that came with a snapshot.

    Args:
        snapshot: Its ``config.policy`` must not be None.

    Raises:
        SnapshotError: If the agent's file is missing, damaged, or does not fit the configuration.
    """
    config, model = snapshot.config, snapshot.model
    assert config.policy is not None and isinstance(model, TransformerWorldModel)
    try:
        with torch.random.fork_rng(devices=[]):
            policy = Policy(model, config.policy)
    except (RuntimeError, ValueError, OverflowError, MemoryError) as error:
        raise SnapshotError(
            f"{snapshot.folder / _CONFIG}: policy: no agent of these sizes can be built ({error})."
        ) from error
    dtype = FAMILIES[config.family].weights
    expected = {name: (tuple(tensor.shape), dtype) for name, tensor in policy.actor.state_dict().items()}
    weights = _read_tensors(snapshot.folder, _POLICY, config, expected)
    policy.actor.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return policy.eval().requires_grad_(False)


def _build(config: SnapshotConfig, folder: Path, device: str) -> WorldModel:
    """A model without its weights. The caller's random generator is left as it is."""
    try:
        with torch.random.fork_rng(devices=[]), torch.device(device):
            return FAMILIES[config.family].build(config.model, config.environment)
    except (RuntimeError, ValueError, OverflowError, MemoryError) as error:
        raise SnapshotError(f"{folder / _CONFIG}: model: no model of these sizes can be built ({error}).") from error


def _read_starts(folder: Path, config: SnapshotConfig) -> StartBank:
    family = FAMILIES[config.family]
    tensors = _read_tensors(folder, _STARTS, config, None)
    bank = family.bank(tensors, config.model)
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
            observations, actions, rewards = bank.contexts(kind)
        except (ValueError, TypeError, RuntimeError, zlib.error) as error:
            raise SnapshotError(f"{folder / _STARTS}: the {kind} contexts are damaged ({error}).") from error
        try:
            _check_lengths(observations, actions, rewards)
            family.check_context(observations, actions, config.environment)
        except ValueError as error:
            raise SnapshotError(f"{folder / _STARTS}: {kind}.{error}.") from error
    return bank


def _check_lengths(observations: Tensor, actions: Tensor, rewards: Tensor) -> None:
    """Refuse contexts that are empty, or whose parts are not equally many."""
    if rewards.dtype != torch.float32 or rewards.ndim != 2 or not len(rewards):
        raise ValueError(
            f"rewards has shape {tuple(rewards.shape)} and dtype {rewards.dtype}, expected (N, T - 1), float32"
        )
    count, between = rewards.shape
    for name, tensor, steps in (("observations", observations, between + 1), ("actions", actions, between)):
        if tuple(tensor.shape[:2]) != (count, steps):
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected ({count}, {steps}, ...)")


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
    for key, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise SnapshotError(f"{path}: {key} holds NaN or infinite values.")
    return tensors


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
