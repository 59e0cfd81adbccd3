"""Where a result comes from: enough to make it again."""

import platform
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import learned_envs

__all__ = ["provenance"]


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
