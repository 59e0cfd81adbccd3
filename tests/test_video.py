"""Films and contact sheets, read back with Pillow."""

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from PIL import Image, ImageSequence

from learned_envs.video import write_contact_sheet, write_gif, write_pages


def _observations(steps: int, brightness: int) -> np.ndarray:
    """Stacks whose newest frame alone is bright; it grows by one each step."""
    stacks = np.zeros((steps, 4, 64, 64), np.uint8)
    stacks[:, -1] = brightness + np.arange(steps)[:, None, None]
    return stacks


GAMES = {"real": _observations(12, 100), "learned": _observations(12, 200)}


def _grey(picture: Image.Image, x: int, y: int) -> int:
    return int(np.asarray(picture.convert("L"))[y, x])


def test_film_shows_both_games_step_by_step(tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    write_gif(path, GAMES, fps=20)
    with Image.open(path) as film:
        assert film.format == "GIF"
        assert film.size == (256 + 8 + 256, 28 + 256)
        assert len(ImageSequence.all_frames(film)) == 12
        assert film.info["loop"] == 0, "it begins again for ever"
        for step, page in enumerate(ImageSequence.Iterator(film)):
            assert page.info["duration"] == 50
            assert (_grey(page, 10, 150), _grey(page, 510, 150)) == (100 + step, 200 + step)


def test_film_of_one_game_is_one_picture_wide(tmp_path: Path) -> None:
    write_gif(tmp_path / "film.gif", {"learned": GAMES["learned"]})
    with Image.open(tmp_path / "film.gif") as film:
        assert film.size == (256, 284)


def test_film_where_nothing_moves_keeps_all_steps(tmp_path: Path) -> None:
    write_gif(tmp_path / "film.gif", {"learned": np.zeros((5, 4, 64, 64), np.uint8)})
    with Image.open(tmp_path / "film.gif") as film:
        assert len(ImageSequence.all_frames(film)) == 5


def test_pictures_are_labelled(tmp_path: Path) -> None:
    for name in ("real", "learned"):
        write_gif(tmp_path / f"{name}.gif", {name: GAMES["real"]})
    bars = []
    for name in ("real", "learned"):
        with Image.open(tmp_path / f"{name}.gif") as film:
            bars.append(np.asarray(film.convert("L"))[:28])
    assert all((bar < 64).any() for bar in bars), "there is writing above each picture"
    assert (bars[0] != bars[1]).any(), "and it tells the games apart"


def test_contact_sheet_shows_evenly_spaced_steps(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    write_contact_sheet(path, GAMES, columns=4)
    with Image.open(path) as sheet:
        assert sheet.format == "PNG"
        assert sheet.size == (88 + 4 * 264, 28 + 2 * 264)
        for column, step in enumerate((0, 4, 7, 11)):
            x = 88 + column * 264 + 100
            assert [_grey(sheet, x, 28 + row * 264 + 100) for row in (0, 1)] == [100 + step, 200 + step]


def test_contact_sheet_of_a_short_film_repeats_nothing(tmp_path: Path) -> None:
    write_contact_sheet(tmp_path / "sheet.png", {"learned": _observations(3, 10)}, columns=8)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (88 + 3 * 264, 28 + 264)


@pytest.mark.parametrize("write", [write_gif, write_contact_sheet])
def test_finished_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path, write) -> None:
    path = tmp_path / "picture"
    path.write_text("old")
    write(path, GAMES)
    assert [found.name for found in tmp_path.iterdir()] == ["picture"]
    Image.open(path).close()


@pytest.mark.parametrize("write", [write_gif, write_contact_sheet])
@pytest.mark.parametrize(
    "games",
    [{}, {"real": GAMES["real"][:0]}, {"real": GAMES["real"], "learned": GAMES["learned"][:5]}],
    ids=["no games", "no steps", "different lengths"],
)
def test_games_that_cannot_be_shown_are_refused(tmp_path: Path, write, games) -> None:
    with pytest.raises(ValueError, match="games holds"):
        write(tmp_path / "picture", games)
    assert not list(tmp_path.iterdir())


def test_contact_sheet_without_columns_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns is 0"):
        write_contact_sheet(tmp_path / "sheet.png", GAMES, columns=0)


def test_pages_become_an_mp4_of_the_same_steps(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "film.mp4"
    write_pages(path, (Image.new("RGB", (65, 33), (shade, shade, shade)) for shade in (40, 120, 200)), fps=7.5)
    with av.open(path) as film:
        stream = film.streams.video[0]
        assert (stream.width, stream.height) == (64, 32), "colours are stored for two by two pixels"
        assert float(stream.average_rate) == 7.5
        shades = [frame.to_ndarray(format="rgb24").mean() for frame in film.decode(video=0)]
    assert shades == pytest.approx([40, 120, 200], abs=4)
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]


def test_film_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"film\.avi, but films are called \.gif or \.mp4"):
        write_pages(tmp_path / "film.avi", [Image.new("RGB", (64, 32))], fps=15)
    assert not list(tmp_path.iterdir())


def test_mp4_without_its_package_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r'pip install "learned-envs\[play\]"'):
        write_pages(tmp_path / "film.mp4", [Image.new("RGB", (64, 32))], fps=15)


@pytest.mark.parametrize("name", ["film.gif", "film.mp4"])
def test_a_film_of_nothing_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no page"):
        write_pages(tmp_path / name, [], fps=15)
    assert not list(tmp_path.iterdir())
