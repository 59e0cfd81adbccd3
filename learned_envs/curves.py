"""Curves of the real and the learned system, one above the other, for systems that have no pictures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from learned_envs.files import replacing

__all__ = ["write_curves"]

_WIDTH, _HEIGHT = 640, 120  # of a panel's plot, in pixels
_MARGIN, _GAP, _HEAD = 96, 16, 32
_COLORS = ("black", "#d62728", "#1f77b4", "#2ca02c")
_PAPER, _INK, _FRAME = "white", "black", "#cccccc"


def write_curves(path: Path, curves: Mapping[str, Mapping[str, NDArray[np.floating]]]) -> None:
    """Draw panels below each other as a PNG, each with its own range; complete or not at all.

    Args:
        path: Where it goes; an existing file is replaced.
        curves: For each panel, by its name, curves by theirs: finite numbers, one a step, at least two.

    Raises:
        ValueError: If there is nothing to draw.
        OSError: If the file cannot be written.
    """
    if not curves or any(len(values) < 2 for panel in curves.values() for values in panel.values()):
        raise ValueError("There is nothing to draw: every curve needs at least two steps.")
    height = _HEAD + len(curves) * (_HEIGHT + _GAP) + _GAP
    page = Image.new("RGB", (_MARGIN + _WIDTH + _GAP, height), _PAPER)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    names = list(dict.fromkeys(name for panel in curves.values() for name in panel))
    for place, name in enumerate(names):
        pen.text((_MARGIN + place * 120, 8), name, fill=_color(place), font=font)
    for row, (title, panel) in enumerate(curves.items()):
        top = _HEAD + row * (_HEIGHT + _GAP)
        pen.rectangle((_MARGIN, top, _MARGIN + _WIDTH, top + _HEIGHT), outline=_FRAME)
        low, high = (float(extreme(list(map(extreme, panel.values())))) for extreme in (np.min, np.max))
        for value, at in ((high, top), (low, top + _HEIGHT - 16)):
            pen.text((_MARGIN - 8, at), f"{value:.3g}", fill=_INK, font=font, anchor="ra")
        pen.text((4, top + _HEIGHT // 2 - 8), title, fill=_INK, font=font)
        for name, values in panel.items():
            x = np.linspace(_MARGIN, _MARGIN + _WIDTH, len(values))
            y = top + _HEIGHT - (np.asarray(values, float) - low) / ((high - low) or 1.0) * _HEIGHT
            pen.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=_color(names.index(name)), width=2)
    with replacing(path) as partial:
        page.save(partial, format="PNG")


def _color(place: int) -> str:
    return _COLORS[place % len(_COLORS)]
