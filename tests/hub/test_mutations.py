"""A thousand damaged snapshots: each is refused by the name of a file, or is the original; nothing crashes, swells or runs."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from learned_envs.catalog import BUNDLED


def _outcome(folder: Path, count: int, seed: int, *options: str) -> Mapping[str, Any]:
    command = [sys.executable, "-m", "tests.hub.mutations", str(folder), str(count), str(seed), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("kind", "count"), [("compact", 470), ("awm-transformer", 470), ("bundled", 60)])
def test_damaged_snapshot_is_refused_or_is_the_original(
    tiny_snapshots: dict[str, Path], tmp_path: Path, kind: str, count: int
) -> None:
    folder = BUNDLED / "LearnedPong-v0" if kind == "bundled" else tiny_snapshots[kind]
    found = _outcome(copytree(folder, tmp_path / kind), count, seed=1)
    assert not found["problems"]
    assert sum(found["fates"].values()) == count
    assert found["fates"]["refused"] > 0.8 * count and found["fates"]["the original"] > 0


@pytest.mark.parametrize("kind", ["compact", "awm-transformer", "hwm-lstm"])
def test_snapshot_whose_author_lies_is_refused_or_is_a_model(
    tiny_snapshots: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """Its checksums fit, so that what it says is checked by itself."""
    found = _outcome(copytree(tiny_snapshots[kind], tmp_path / kind), 200, 2, "signed")
    assert not found["problems"]
    assert found["fates"]["refused"] > 80 and found["fates"]["another model"] > 0
