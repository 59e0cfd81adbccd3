"""Where a result comes from: enough to make it again."""

import hashlib
import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import learned_envs
from learned_envs.manifest import MANIFEST
from learned_envs.pretrained import find_snapshot

__all__ = ["digest", "model_digest", "provenance"]


def provenance() -> dict[str, Any]:
    """The command that is running, and the versions of what it runs on."""
    return {
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "commit": _commit(),
        "learned_envs": learned_envs.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }


def _commit() -> str | None:
    """The commit of this checkout, ``-dirty`` behind it where files were changed; None outside one, or without git."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:
        return None
    return asked.stdout.strip() or None


def digest(path: Path) -> str:
    """What tells a file from others, wherever it lies."""
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def model_digest(name: str) -> str:
    """What tells a model from others, wherever it lies.

    Args:
        name: Id, folder of a snapshot, or repository on the Hub.

    Raises:
        MissingModelError: If there is no such model.
    """
    return digest(find_snapshot(name) / MANIFEST)  # it holds the checksums of all other files
