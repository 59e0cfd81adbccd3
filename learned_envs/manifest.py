"""The list of a snapshot's files: what belongs to it, how large each file is, and its checksum.

``manifest.json`` is read first. Whatever it does not list is not read, and what it lists is read only if size and SHA-256
are as it says. It names the lay-out's version, and the release that wrote it.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from learned_envs.errors import SnapshotError
from learned_envs.files import write_json

__all__ = [
    "ALL",
    "CARD",
    "CONFIG",
    "ENVIRONMENT",
    "FIDELITY",
    "FORMAT",
    "LOADED",
    "MANIFEST",
    "MODEL",
    "OPTIONAL",
    "POLICY",
    "PREVIEW",
    "STARTS",
    "FileEntry",
    "Manifest",
    "check_file",
    "check_format",
    "damaged_files",
    "parse_json",
    "read_manifest",
    "validate",
    "write_manifest",
]

FORMAT = 2
MANIFEST, CONFIG, MODEL, STARTS = "manifest.json", "config.json", "model.safetensors", "starts.safetensors"
FIDELITY, POLICY, PREVIEW, CARD = "fidelity.json", "policy.safetensors", "preview.gif", "README.md"
ENVIRONMENT = (CONFIG, MODEL, STARTS, FIDELITY)
"""Files that an environment is made of; the first two are enough for a model by itself."""
LOADED = (*ENVIRONMENT, POLICY)
"""Files that loaders read; an agent may have come with the model."""
OPTIONAL = (PREVIEW, CARD)
"""Files for people, which no loader reads."""
ALL = (MANIFEST, *LOADED, *OPTIONAL)
"""Everything that may lie in the folder of a snapshot."""

_MOST_JSON = 2**20  # bytes; parsing takes many times as much memory
_MOST_SIZE = 2**40
_NAMES = (*LOADED, *OPTIONAL)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_RELEASE = re.compile(r"\d{1,4}(\.\d{1,4}){1,3}([a-z]{1,3}\d{1,4})?")
_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class FileEntry:
    """A file as the manifest knows it.

    Args:
        size: Its length in bytes.
        sha256: Its SHA-256 in hexadecimal digits.
    """

    size: int
    sha256: str

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        if not 0 <= self.size <= _MOST_SIZE:
            raise ValueError(f"size is {self.size}, expected 0 to {_MOST_SIZE} bytes")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256 is {self.sha256[:80]!r}, expected 64 hexadecimal digits")


@dataclass(frozen=True)
class Manifest:
    """What ``manifest.json`` says.

    Args:
        format: Version of the lay-out.
        written_by: Release of learned_envs that wrote it.
        files: Every file beside the manifest, by name.

    Raises:
        ValueError: If the list lacks the configuration or the weights, or names what does not belong to the lay-out.
    """

    format: int
    written_by: str
    files: dict[str, FileEntry]

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        for name in self.files:
            if name not in _NAMES:
                raise ValueError(f"files names {name!r}, which is no part of a snapshot")
        for name in (CONFIG, MODEL):
            if name not in self.files:
                raise ValueError(f"files does not name {name}")
        if not _RELEASE.fullmatch(self.written_by):
            raise ValueError(f"written_by is {self.written_by[:80]!r}, which is no release")

    @property
    def loaded(self) -> tuple[str, ...]:
        """The files to load, in the order in which they are read."""
        return tuple(name for name in LOADED if name in self.files)


_ADAPTER = TypeAdapter(Manifest)
Checked = TypeVar("Checked")


def write_manifest(folder: Path) -> None:
    """List what lies in a folder: the last step of writing a snapshot."""
    from learned_envs import __version__

    files = {name: _measure(folder / name) for name in _NAMES if (folder / name).is_file()}
    content = _ADAPTER.dump_python(Manifest(FORMAT, __version__, files), mode="json")
    write_json(folder / MANIFEST, content)


def read_manifest(folder: Path) -> Manifest:
    """Read and validate ``manifest.json``.

    Raises:
        SnapshotError: If it is missing, damaged or of another format; the message names the field.
    """
    path = folder / MANIFEST
    if not path.exists() and (folder / CONFIG).is_file():
        _refuse_format_1(folder)
    content = parse_json(path)
    check_format(path, content.get("format"), content.get("written_by"))
    return validate(_ADAPTER, path, content)


def check_file(folder: Path, name: str, manifest: Manifest) -> Path:
    """Refuse a file that is not what the manifest says.

    Returns:
        Its path.

    Raises:
        SnapshotError: If it is missing, is no plain file, lies outside the folder, or has another size or checksum.
    """
    path = folder / name
    if name not in manifest.files:
        raise SnapshotError(
            f"{folder / MANIFEST} does not name {name}: this is no environment. A model by itself is loaded by the "
            "from_pretrained of its class."
        )
    entry = manifest.files[name]
    size = _plain_file_size(path)
    if size != entry.size:
        raise SnapshotError(
            f"{path} has {size:,} bytes, but {MANIFEST} says {entry.size:,}: it is damaged or was changed."
        )
    if _sha256(path) != entry.sha256:
        raise SnapshotError(f"{path} does not have the checksum that {MANIFEST} gives: it is damaged or was changed.")
    return path


def damaged_files(folder: Path) -> Iterator[tuple[str, SnapshotError]]:
    """Files that a model needs and that are missing or not as they should be, each with what is wrong with it."""
    try:
        manifest = read_manifest(folder)
    except SnapshotError as error:
        yield MANIFEST, error
        return
    for name in manifest.loaded:
        try:
            check_file(folder, name, manifest)
        except SnapshotError as error:
            yield name, error


def parse_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that others wrote.

    Raises:
        SnapshotError: If it is missing, too large, or no JSON object.
    """
    size = _plain_file_size(path)
    if size > _MOST_JSON:
        raise SnapshotError(f"{path} has {size:,} bytes, but no file of its kind needs more than {_MOST_JSON:,}.")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SnapshotError(f"{path} is not a JSON object ({error}).") from error
    if not isinstance(content, dict):
        raise SnapshotError(f"{path} is not a JSON object.")
    return content


def check_format(path: Path, version: Any, written_by: Any) -> None:
    """Refuse another version of the lay-out, and say which release reads it.

    Args:
        path: File that states the version.
        version: What it states.
        written_by: Release that wrote it, as the file states.

    Raises:
        SnapshotError: If this release does not read it.
    """
    from learned_envs import __version__

    if version == FORMAT and not isinstance(version, bool | float):
        return
    message = f"{path}: format is {version!r}, but learned_envs {__version__} reads format {FORMAT}."
    if isinstance(version, int) and version > FORMAT:
        known = isinstance(written_by, str) and _RELEASE.fullmatch(written_by)
        needed = f"learned_envs {written_by} wrote it" if known else "A later release wrote it"
        wanted = f"learned-envs>={written_by}" if known else "learned-envs"
        message += f" {needed}, and reads it: pip install --upgrade '{wanted}'"
    raise SnapshotError(message)


def validate(adapter: TypeAdapter[Checked], path: Path, content: dict[str, Any]) -> Checked:
    """Build what a JSON object describes.

    Args:
        adapter: What it must fit.
        path: Where it was read, for the message.
        content: The object.

    Raises:
        SnapshotError: If it does not fit; the message names the field.
    """
    try:
        # As text again: only there are lists taken for the tuples that they are meant to be.
        return adapter.validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(map(str, first["loc"])) or "(top level)"
        raise SnapshotError(f"{path}: {name}: {first['msg']}.") from error
    except (RecursionError, OverflowError) as error:
        raise SnapshotError(f"{path}: (top level): {error}.") from error


def _refuse_format_1(folder: Path) -> None:
    """Before the first release there was no manifest."""
    if parse_json(folder / CONFIG).get("format") == 1:
        raise SnapshotError(
            f"{folder / CONFIG}: format is 1, that of development versions before the first release. Rewrite it, in a "
            f"checkout of the project: python -m hub build {folder}"
        )


def _measure(path: Path) -> FileEntry:
    return FileEntry(path.stat().st_size, _sha256(path))


def _plain_file_size(path: Path) -> int:
    """Length of a file, which must be one: reading a pipe would wait for ever, and a device has no end."""
    try:
        target = path.resolve(strict=True)
        status = target.stat()
    except (OSError, RuntimeError) as error:
        raise SnapshotError(f"{path} cannot be read ({error}): the snapshot is incomplete, or is none.") from error
    if not S_ISREG(status.st_mode):
        raise SnapshotError(f"{path} is not a plain file.")
    if not target.is_relative_to(_home(path.parent)):
        raise SnapshotError(f"{path} is a link that leads out of the snapshot's folder, to {target}.")
    return status.st_size


def _home(folder: Path) -> Path:
    """Where files may lie: in the folder itself, or, in the cache of huggingface_hub, which is made of links, there."""
    folder = folder.resolve()
    in_cache = folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--")
    return folder.parents[2] if in_cache else folder


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SnapshotError(f"{path} cannot be read ({error}).") from error
