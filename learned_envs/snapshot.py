"""The data-only package in which a trained environment travels: write, read, validate.

A snapshot is a folder of JSON and safetensors. Reading one runs no code of its author's: every file is checked against the
manifest (`learned_envs.manifest`), every value against its type and range, and every weight's name, shape and dtype against
the configuration, before memory is taken for it.
"""

import lzma
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import torch
from pydantic import ConfigDict, TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from learned_envs.errors import SnapshotError
from learned_envs.families import FAMILIES
from learned_envs.files import new_folder, write_json
from learned_envs.manifest import (
    ALL,
    CARD,
    CONFIG,
    FIDELITY,
    FORMAT,
    MANIFEST,
    MODEL,
    POLICY,
    STARTS,
    Manifest,
    check_file,
    check_format,
    parse_json,
    read_manifest,
    validate,
    write_manifest,
)
from learned_envs.nn.blueprint import blueprint
from learned_envs.policy import Policy, PolicyConfig
from learned_envs.starts import StartBank, StartKind
from learned_envs.twm.config import TwmConfig
from learned_envs.twm.world_model import TransformerWorldModel
from learned_envs.world_model import WorldModel

__all__ = [
    "Snapshot",
    "SnapshotConfig",
    "holds_environment",
    "read_config",
    "read_model",
    "read_policy",
    "read_snapshot",
    "write_model",
    "write_snapshot",
]

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_ID = re.compile(r"[A-Za-z0-9][\w.-]*-v\d+")  # names files, too

_DTYPES = {"F16": torch.float16, "F32": torch.float32, "I64": torch.int64, "U8": torch.uint8}
# What building a model may take beside the tensors in its file: attention masks, tables of positions, operations on them.
_SPARE_ELEMENTS, _SPARE_TENSORS, _CALLS_PER_TENSOR = 2**20, 100, 50

Announced = tuple[tuple[int, ...], torch.dtype | str]
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

    Raises:
        ValueError: If the id is none, the family is unknown, or its parts do not fit each other.
    """

    id: str
    family: str
    model: Model
    environment: Environment
    provenance: dict[str, Any]
    policy: PolicyConfig | None = None
    format: int = FORMAT
    library_name: Literal["learned_envs"] = "learned_envs"

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise ValueError(f"id is {self.id!r}, expected a name with a version, such as 'LearnedPong-v0'")
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


@dataclass(frozen=True)
class ModelConfig(Generic[Model]):
    """What ``config.json`` says of a model by itself, which was saved without an environment.

    Args:
        family: Which family it is of, a key of `learned_envs.families.FAMILIES`.
        model: Its sizes.
        format: Version of the lay-out.
        library_name: Who reads it.
    """

    family: str
    model: Model
    format: int = FORMAT
    library_name: Literal["learned_envs"] = "learned_envs"

    __pydantic_config__ = _STRICT


_MODEL_ADAPTERS: dict[str, TypeAdapter[ModelConfig]] = {
    name: TypeAdapter(ModelConfig[family.model])  # type: ignore[valid-type]
    for name, family in FAMILIES.items()
}
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
        fidelity: Measured figures.
        folder: Where it was read from.
    """

    config: SnapshotConfig
    model: WorldModel
    starts: StartBank
    fidelity: dict[str, Any]
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
        config: What it says of itself.
        model: The model.
        starts: Recorded contexts.
        fidelity: Measured figures, JSON-able.
        replace: Whether an existing snapshot may be replaced, all but its README.md.
        policy: The agent that goes with it, if ``config`` names one.

    Raises:
        FileExistsError: If the folder exists and may not be replaced, or holds something else than a snapshot.
        ValueError: If ``config`` names an agent and none is given, or the other way round; or if a weight is not finite in
            the precision of the family.
    """
    if (policy is None) != (config.policy is None):
        raise ValueError("An agent and its sizes belong together: give both policy and config.policy, or neither.")
    with _new_snapshot(folder, replace) as partial:
        # Not save_file: it makes files that only their owner may read.
        (partial / MODEL).write_bytes(save(_weights(model, config.family)))
        if policy is not None:
            (partial / POLICY).write_bytes(save(_weights(policy.actor, config.family)))
        (partial / STARTS).write_bytes(save({name: tensor.contiguous() for name, tensor in starts.tensors.items()}))
        content = _ADAPTERS[config.family].dump_python(config, mode="json")
        if config.policy is None:
            del content["policy"]
        write_json(partial / CONFIG, content)
        write_json(partial / FIDELITY, fidelity)


def write_model(folder: Path, model: WorldModel) -> None:
    """Write a model by itself, complete or not at all; an existing snapshot is replaced, all but its README.md.

    Args:
        folder: Where it goes.
        model: The model.

    Raises:
        FileExistsError: If the folder holds something else than a snapshot.
        ValueError: If it is of no known family, or a weight is not finite in the precision of the family.
    """
    config = getattr(model, "config", None)
    names = [name for name, family in FAMILIES.items() if isinstance(config, family.model)]
    if not names:
        raise ValueError(f"{type(model).__name__} is of no family that a snapshot can hold: {', '.join(FAMILIES)}.")
    with _new_snapshot(folder, replace=True) as partial:
        (partial / MODEL).write_bytes(save(_weights(model, names[0])))
        described = ModelConfig(names[0], config)
        write_json(partial / CONFIG, _MODEL_ADAPTERS[names[0]].dump_python(described, mode="json"))


def read_config(folder: Path) -> SnapshotConfig:
    """Read and validate ``config.json``.

    Raises:
        SnapshotError: If it is missing, damaged, of another format, or has a field that does not fit.
    """
    return _read_config(folder, read_manifest(folder))


def read_snapshot(folder: Path) -> Snapshot:
    """Read a snapshot from a folder.

    Raises:
        SnapshotError: If a file is missing, damaged, or does not fit the configuration; the message names file and field.
    """
    manifest = read_manifest(folder)
    config = _read_config(folder, manifest)
    fidelity = parse_json(check_file(folder, FIDELITY, manifest))
    model = _read_model(check_file(folder, MODEL, manifest), config.family, config.model, config.environment)
    starts = _read_starts(check_file(folder, STARTS, manifest), config)
    return Snapshot(config, model, starts, fidelity, folder)


def read_model(folder: Path) -> WorldModel:
    """Read a model that was written by itself.

    Returns:
        The model, in evaluation mode. Of a control problem, it has no bounds and no known reward: they are its environment's.

    Raises:
        SnapshotError: If a file is missing or damaged, or does not fit the configuration; the message names file and field.
    """
    manifest = read_manifest(folder)
    path, content, family = _open_config(folder, manifest)
    config = validate(_MODEL_ADAPTERS[family], path, content)
    return _read_model(check_file(folder, MODEL, manifest), family, config.model, None)


def holds_environment(folder: Path) -> bool:
    """Whether a folder holds a snapshot of an environment, or a model by itself.

    Raises:
        SnapshotError: If it holds neither.
    """
    return STARTS in read_manifest(folder).files


def _read_config(folder: Path, manifest: Manifest) -> SnapshotConfig:
    if STARTS not in manifest.files:
        check_file(folder, STARTS, manifest)  # says that this is no environment
    path, content, family = _open_config(folder, manifest)
    return validate(_ADAPTERS[family], path, content)


def _open_config(folder: Path, manifest: Manifest) -> tuple[Path, dict[str, Any], str]:
    """Path and content of the configuration, and the family that it names."""
    path = check_file(folder, CONFIG, manifest)
    content = parse_json(path)
    check_format(path, content.get("format"), manifest.written_by)
    family = content.get("family")
    if not isinstance(family, str) or family not in FAMILIES:
        known = ", ".join(map(repr, FAMILIES))
        raise SnapshotError(f"{path}: family is {family!r}, this version of learned_envs knows {known}.")
    return path, content, family


def _weights(model: nn.Module, family: str) -> dict[str, Tensor]:
    dtype = FAMILIES[family].weights
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{name} holds NaN, infinite values, or such as {dtype} cannot hold: nobody could read it."
            )
    return weights


@contextmanager
def _new_snapshot(folder: Path, replace: bool) -> Iterator[Path]:
    """A folder to fill, which takes the place of another snapshot when it is whole; what people wrote there stays."""
    with new_folder(folder, replace, ours=ALL, known_by=MANIFEST) as partial:
        yield partial
        if (folder / CARD).is_file():
            shutil.copyfile(folder / CARD, partial / CARD)
        write_manifest(partial)


def _read_model(path: Path, family: str, sizes: Any, environment: Any) -> WorldModel:
    """The model, for whose weights memory is taken when every name, shape and dtype is known to fit."""
    found = _describe_tensors(path)
    model = _build(path, found, family, sizes, environment)
    _load_weights(path, model, found, family)
    return model.eval().requires_grad_(False)


def _load_weights(path: Path, module: nn.Module, found: dict[str, Announced], family: str) -> None:
    dtype = FAMILIES[family].weights
    expected = {name: (tuple(tensor.shape), dtype) for name, tensor in module.state_dict().items()}
    if found != expected:
        key = next(key for key in sorted({*found, *expected}) if found.get(key) != expected.get(key))
        raise SnapshotError(
            f"{path}: {key} is {found.get(key, 'missing')}, {CONFIG} asks for {expected.get(key, 'no such tensor')}."
        )
    # A copy in any case: the file may be mapped into memory, and be replaced under our feet.
    weights = {name: tensor.to(torch.float32, copy=True) for name, tensor in _read_tensors(path).items()}
    module.load_state_dict(weights, assign=True)


def read_policy(snapshot: Snapshot) -> Policy:
    """Read the agent that came with a snapshot.

    Args:
        snapshot: Its ``config.policy`` must not be None.

    Returns:
        The agent, in evaluation mode.

    Raises:
        SnapshotError: If the agent's file is missing, damaged, or does not fit the configuration.
    """
    config, model = snapshot.config, snapshot.model
    assert config.policy is not None and isinstance(model, TransformerWorldModel)
    path = check_file(snapshot.folder, POLICY, read_manifest(snapshot.folder))
    found = _describe_tensors(path)
    with _sizes_within(path, found, "policy"):
        policy = Policy(model, config.policy)
    _load_weights(path, policy.actor, found, config.family)
    return policy.eval().requires_grad_(False)


def _build(path: Path, tensors: dict[str, Announced], family: str, sizes: Any, environment: Any) -> WorldModel:
    """A model without its weights."""
    with _sizes_within(path, tensors, "model"):
        return FAMILIES[family].build(sizes, environment)
    raise AssertionError("the line above returns or raises")


@contextmanager
def _sizes_within(path: Path, tensors: dict[str, Announced], part: str) -> Iterator[None]:
    """While this is entered, modules are built without memory for weights, and no larger than their file announces."""
    announced = sum(prod(shape) for shape, _ in tensors.values())
    try:
        with blueprint(_SPARE_ELEMENTS + 2 * announced, _CALLS_PER_TENSOR * (_SPARE_TENSORS + len(tensors))):
            yield
    except (RuntimeError, ValueError, OverflowError, MemoryError) as error:
        message = f"{path.with_name(CONFIG)}: {part}: no {part} of these sizes fits {path.name} ({error})."
        raise SnapshotError(message) from error


def _read_starts(path: Path, config: SnapshotConfig) -> StartBank:
    family = FAMILIES[config.family]
    kinds: tuple[StartKind, ...] = ("initial", "anywhere")
    pictures = "frames" if family.bank({}, config.model).stack else "observations"
    expected = {f"{kind}.{part}" for kind in kinds for part in (pictures, "actions", "rewards")}
    found = _describe_tensors(path)
    if found.keys() != expected:
        name = min(found.keys() ^ expected)
        raise SnapshotError(f"{path}: {name} is {'missing' if name in expected else 'not part of the format'}.")
    bank = family.bank(_read_tensors(path), config.model)
    for kind in kinds:
        try:
            observations, actions, rewards = bank.contexts(kind)
        except (ValueError, TypeError, RuntimeError, lzma.LZMAError) as error:
            raise SnapshotError(f"{path}: the {kind} contexts are damaged ({error}).") from error
        try:
            _check_lengths(observations, actions, rewards)
            family.check_context(observations, actions, config.environment)
        except ValueError as error:
            raise SnapshotError(f"{path}: {kind}.{error}.") from error
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


def _describe_tensors(path: Path) -> dict[str, Announced]:
    """Shape and dtype of each tensor in a file, from its header alone."""
    try:
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
            return {
                name: (tuple(part.get_shape()), _DTYPES.get(part.get_dtype()) or str(part.get_dtype()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError, ValueError) as error:
        raise SnapshotError(f"{path} is not a safetensors file ({error}).") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file whose header was found to fit."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise SnapshotError(f"{path} is not a safetensors file ({error}).") from error
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise SnapshotError(f"{path}: {name} holds NaN or infinite values.")
    return tensors
