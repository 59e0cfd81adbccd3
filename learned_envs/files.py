"""Writing files and folders whole or not at all: beside the target first, which is then replaced in one step."""

import json
import os
import shutil
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["new_folder", "replacing", "write_json"]


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path beside the target, which takes the target's place at the end; after an error, the target is as before.

    Args:
        target: File or folder, which may exist.

    Yields:
        A path of which nothing exists yet, on the same file system. A file, or a folder, must be written there.
    """
    partial, before = (target.with_name(f".{target.name}.{kind}") for kind in ("partial", "before"))
    _remove(partial)
    try:
        yield partial
        _remove(before)
        if partial.is_dir() and target.is_dir():  # a folder cannot be renamed over a full one
            os.replace(target, before)
        os.replace(partial, target)
    finally:
        if before.exists() and not target.exists():
            os.replace(before, target)
        _remove(partial)
        _remove(before)


@contextmanager
def new_folder(
    target: Path, replace: bool, ours: Container[str] | None = None, known_by: str | None = None
) -> Iterator[Path]:
    """An empty folder beside the target, which takes the target's place at the end; see `replacing`.

    Args:
        target: Where the folder goes; folders above it are made.
        replace: Whether an existing folder may be replaced.
        ours: Names that may lie in a folder that is replaced; None for any.
        known_by: Name that must lie in it, unless it is empty: other people's files may bear the same names as ours.

    Raises:
        FileExistsError: If the folder exists and may not be replaced, or holds something else.
    """
    target = target.resolve()
    if target.exists() and not replace:
        raise FileExistsError(f"{target} exists. Remove it, or write to another folder.")
    if ours is not None and target.is_dir():
        others = sorted(path.name for path in target.iterdir() if path.name not in ours)
        if others:
            raise FileExistsError(f"{target} would be replaced, but holds {others[0]!r}. Write to another folder.")
    if known_by is not None and target.is_dir() and any(target.iterdir()) and not (target / known_by).is_file():
        first = min(path.name for path in target.iterdir())
        raise FileExistsError(
            f"{target} would be replaced, but holds {first!r} and no {known_by!r}. Write to another folder."
        )
    with replacing(target) as partial:
        partial.mkdir(parents=True)
        yield partial


def write_json(path: Path, content: Any) -> None:
    """Write a file of indented JSON.

    Args:
        path: Where it goes; an existing file is replaced.
        content: JSON-able.

    Raises:
        OSError: If it cannot be written.
    """
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
