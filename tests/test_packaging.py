"""What goes into the wheel: the library with its bundled models, and nothing else."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from learned_envs.catalog import BUNDLED, CATALOG

_ROOT = Path(__file__).parents[1]
_MEGABYTE = 2**20


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=_ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def test_wheel_holds_only_the_library(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"learned_envs"}


def test_wheel_holds_every_bundled_model_and_the_type_marker(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    assert "learned_envs/py.typed" in names
    for item in CATALOG.values():
        if item.bundled:
            assert f"learned_envs/snapshots/{item.id}/model.safetensors" in names


def test_wheel_holds_the_play_page(wheel: zipfile.ZipFile) -> None:
    folder = "learned_envs/play/static"
    files = {f"{folder}/{file.name}" for file in (_ROOT / folder).iterdir()}
    assert f"{folder}/index.html" in files
    assert files <= set(wheel.namelist())


def test_bundled_models_are_small() -> None:
    sizes = {
        folder.name: sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        for folder in BUNDLED.iterdir()
        if folder.is_dir()
    }
    assert max(sizes.values()) <= 10 * _MEGABYTE
    assert sum(sizes.values()) <= 60 * _MEGABYTE
