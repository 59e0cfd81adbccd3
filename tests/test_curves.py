"""Curves as pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from learned_envs.curves import write_curves


def test_each_panel_has_its_own_range(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    rise = np.linspace(0, 1, 50)
    write_curves(path, {"small": {"real": rise}, "large": {"real": 1000 * rise}})
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))[:, 110:700]
    first, second = pixels[33:150], pixels[169:286]
    assert np.array_equal(first, second), "the same curve, whatever its scale"
    rows = [np.flatnonzero(column < 50).mean() for column in first.T[5:-5:50]]
    assert np.all(np.diff(rows) < 0), "it rises to the right"
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]


def test_what_never_changes_is_a_line(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves.png", {"flat": {"real": np.ones(5), "learned": np.ones(5)}})
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[1] < 250


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    for curves in ({}, {"short": {"real": np.ones(1)}}):
        with pytest.raises(ValueError, match="nothing to draw"):
            write_curves(tmp_path / "curves.png", curves)
    assert not list(tmp_path.iterdir())
