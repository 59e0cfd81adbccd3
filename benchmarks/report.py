"""Results of benchmarks: a JSON file each, with the command, the date and the machine."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from learned_envs.files import write_json

__all__ = ["write_result"]

_RESULTS = Path(__file__).parent / "results"


def write_result(name: str, figures: dict[str, Any], device: str | torch.device = "cpu") -> None:
    """Print figures and write them to ``benchmarks/results/NAME.json``, or ``NAME_DEVICE.json`` if not of the CPU.

    Args:
        name: Name of the benchmark.
        figures: What was measured, JSON-able.
        device: Where it was measured.
    """
    device = torch.device(device)
    content = {
        "command": " ".join(["python -m", f"benchmarks.{name}", *sys.argv[1:]]),
        "date": datetime.now(UTC).date().isoformat(),
        "device": _describe(device),
        "versions": {package: version(package) for package in ("torch", "numpy", "gymnasium", "ale-py")},
        "figures": figures,
    }
    print(json.dumps(content, indent=2))
    suffix = "" if device.type == "cpu" else f"_{device.type}"
    write_json(_RESULTS / f"{name}{suffix}.json", content)


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores, {platform.machine()}"
