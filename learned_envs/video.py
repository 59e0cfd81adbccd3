"""Films and contact sheets of games side by side."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from learned_envs.envs.rendering import draw
from learned_envs.files import replacing

__all__ = ["font", "make_page", "write_contact_sheet", "write_gif", "write_pages"]

_GAP = 8  # pixels between pictures
_BAR = 28  # height of a line of text
_MARGIN = 88  # width of the names beside a contact sheet's rows
_PAPER, _INK = "white", "black"


def write_gif(path: Path, games: Mapping[str, NDArray[np.uint8]], fps: float = 15.0) -> None:
    """Film games side by side, each under its name, with the number of the step; complete or not at all.

    Args:
        path: Where it goes; an existing file is replaced.
        games: Observations of each game by its name, uint8, shape (steps, *observation shape); as many steps in each.
        fps: Steps shown a second. GIF counts time in hundredths of a second, so that this is nearly kept.

    Raises:
        ValueError: If there is nothing to film, or the games differ in length.
    """
    pages = (_page(games, step) for step in range(_count_steps(games)))
    _write_gif(path, next(pages), pages, fps)


def write_pages(path: Path, pages: Iterable[Image.Image], fps: float) -> None:
    """Film pages, as GIF or, if the file is called so, as MP4; complete or not at all.

    Args:
        path: Where it goes; an existing file is replaced.
        pages: All of one size, at least one; they are consumed one by one.
        fps: Pages shown a second; GIF has at most 100, and counts time in hundredths of a second.

    Raises:
        ValueError: If there is no page, or the file is called neither ``.gif`` nor ``.mp4``.
        gymnasium.error.DependencyNotInstalled: If MP4 is asked for and PyAV is missing.
    """
    writers = {".gif": _write_gif, ".mp4": _write_mp4}
    if path.suffix not in writers:
        raise ValueError(f"path is {path}, but films are called {' or '.join(writers)}.")
    rest = iter(pages)
    first = next(rest, None)
    if first is None:
        raise ValueError(f"There is no page to film for {path}: give at least one.")
    writers[path.suffix](path, first, rest, fps)


def write_contact_sheet(path: Path, games: Mapping[str, NDArray[np.uint8]], columns: int = 8) -> None:
    """Show evenly spaced steps of games as a PNG: a row for each game, a column for each step; complete or not at all.

    Args:
        path: Where it goes; an existing file is replaced.
        games: As in `write_gif`.
        columns: Most steps to show; at least 1.

    Raises:
        ValueError: If there is nothing to show, the games differ in length, or ``columns`` is below 1.
    """
    if columns < 1:
        raise ValueError(f"columns is {columns}, but a contact sheet shows at least 1 step.")
    steps = np.unique(np.linspace(0, _count_steps(games) - 1, columns).round().astype(int))
    rows = {name: [_picture(observations[step]) for step in steps] for name, observations in games.items()}
    width, height = (side + _GAP for side in next(iter(rows.values()))[0].size)
    sheet = Image.new("RGB", (_MARGIN + len(steps) * width, _BAR + len(rows) * height), _PAPER)
    for column, step in enumerate(steps):
        _write_text(sheet, (_MARGIN + column * width, 0), f"step {step}")
    for row, (name, pictures) in enumerate(rows.items()):
        top = _BAR + row * height
        _write_text(sheet, (_GAP, top + height // 2 - _BAR), name)
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (_MARGIN + column * width, top))
    _save(path, sheet, format="PNG")


def _count_steps(games: Mapping[str, NDArray[np.uint8]]) -> int:
    lengths = {name: len(observations) for name, observations in games.items()}
    if not lengths or not all(lengths.values()):
        raise ValueError(f"games holds {lengths} steps: there is nothing to show.")
    if len(set(lengths.values())) > 1:
        raise ValueError(f"games holds {lengths} steps, but they are shown together: give all the same number.")
    return next(iter(lengths.values()))


def make_page(pictures: Mapping[str, Image.Image], note: str) -> Image.Image:
    """Pictures of one size side by side, each under its name, with a note at the right."""
    width, height = next(iter(pictures.values())).size
    page = Image.new("RGB", (len(pictures) * (width + _GAP) - _GAP, _BAR + height), _PAPER)
    for column, (name, picture) in enumerate(pictures.items()):
        _write_text(page, (column * (width + _GAP), 0), name)
        page.paste(picture, (column * (width + _GAP), _BAR))
    _write_text(page, (page.width - _GAP, 0), note, anchor="ra")
    return page


def _page(games: Mapping[str, NDArray[np.uint8]], step: int) -> Image.Image:
    """One moment of all games."""
    return make_page({name: _picture(observations[step]) for name, observations in games.items()}, f"step {step}")


def _picture(observation: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(draw(observation))


def _write_text(page: Image.Image, corner: tuple[int, int], text: str, anchor: str = "la") -> None:
    x, y = corner
    ImageDraw.Draw(page).text((x, y + 4), text, fill=_INK, font=font(16), anchor=anchor)


@cache
def font(size: int) -> Any:
    """Pillow's own font. Reading it takes longer than writing with it.

    Args:
        size: Height in pixels.
    """
    return ImageFont.load_default(size)


def _write_gif(path: Path, first: Image.Image, rest: Iterable[Image.Image], fps: float) -> None:
    _save(path, first, format="GIF", save_all=True, append_images=rest, duration=max(10, round(1000 / fps)), loop=0)


def _write_mp4(path: Path, first: Image.Image, rest: Iterable[Image.Image], fps: float) -> None:
    """H.264, which every browser plays."""
    try:
        import av
    except ImportError as error:
        raise gym.error.DependencyNotInstalled(
            'MP4 needs PyAV, which is not installed. Run: pip install "learned-envs[play]"'
        ) from error

    with replacing(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000))
        # Colours are stored for two by two pixels.
        stream.width, stream.height, stream.pix_fmt = first.width // 2 * 2, first.height // 2 * 2, "yuv420p"
        for page in chain([first], rest):
            frame = av.VideoFrame.from_image(page.crop((0, 0, stream.width, stream.height)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _save(path: Path, picture: Image.Image, **options: Any) -> None:
    with replacing(path) as partial:
        picture.save(partial, **options)
