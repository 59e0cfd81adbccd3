"""Files and folders are written whole or not at all, whatever interrupts it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from learned_envs import files
from learned_envs.files import replacing


def _write(target: Path, content: str) -> None:
    with replacing(target) as folder:
        folder.mkdir()
        (folder / "content").write_text(content)


def _holds(folder: Path, content: str) -> bool:
    """Whether the model holds the content, and nothing else is left."""
    return [path.name for path in folder.iterdir()] == ["model"] and (folder / "model/content").read_text() == content


@pytest.mark.parametrize("name", ["replace", "replace again", "rmtree"])
def test_interrupted_replacement_leaves_the_old_or_the_new_and_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    _write(tmp_path / "model", "old")
    left = [1] if name == "replace again" else [0]

    def interrupted(original: Any, *arguments: Any) -> None:
        left[0] -= 1
        if left[0] == -1:
            raise KeyboardInterrupt
        original(*arguments)

    module = files.shutil if name == "rmtree" else files.os
    name = name.split()[0]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, name, partial(interrupted, getattr(module, name)))
        _write(tmp_path / "model", "new")
    assert (tmp_path / "model" / "content").read_text() in ("old", "new")
    _write(tmp_path / "model", "newer")
    assert _holds(tmp_path, "newer")
