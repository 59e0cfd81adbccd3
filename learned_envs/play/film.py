"""Films of what was played: pictures side by side, or charts of the numbers where there are no pictures."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from learned_envs.envs.real.systems import System
from learned_envs.envs.rendering import draw
from learned_envs.play.session import Moment, View
from learned_envs.video import font, make_page, write_pages

__all__ = ["draw_charts", "draw_moment", "write_film"]

_WIDTH, _HEIGHT, _MARGIN = 640, 150, 12  # of one chart, in pixels
_PAPER, _INK, _FRAME = "white", "#1b1f27", "#d5d9e0"
_COLOURS = {"real": "#8a93a3", "learned": "#2f6fed"}


def write_film(path: Path, moments: Sequence[Moment], system: System | None, fps: float) -> None:
    """Film moments in the order in which they were seen; complete or not at all.

    Args:
        path: Where it goes, called ``.gif`` or ``.mp4``.
        moments: What to show; at least one.
        system: The control problem that was played; None for a game.
        fps: Moments shown a second.

    Raises:
        ValueError: If there is nothing to film, or the file has another suffix.
        gymnasium.error.DependencyNotInstalled: If MP4 is asked for and PyAV is missing.
    """
    write_pages(path, (draw_moment(moment, system) for moment in moments), fps)


def draw_moment(moment: Moment, system: System | None) -> Image.Image:
    """A page of a film."""
    views = {"real": moment.real, "learned": moment.learned}
    if system is None:
        pictures = {
            _caption(name, view): Image.fromarray(draw(view.observation)) for name, view in views.items() if view
        }
    else:
        captions = "    ".join(_caption(name, view) for name, view in views.items() if view)
        pictures = {captions: draw_charts(moment, system)}
    return make_page(pictures, f"step {moment.step}")


def draw_charts(moment: Moment, system: System) -> Image.Image:
    """Each number of the state over time, up to a moment, the learned one over the real one; and the rewards."""
    history = moment.history()
    names = [*(f"x{place}" for place in range(1, system.state_dim + 1)), "reward"]
    sheet = Image.new("RGB", (_WIDTH, _HEIGHT * len(names)), _PAPER)
    for row, name in enumerate(names):
        curves = {
            kind: [_number(getattr(passed, kind), row, system) for passed in history]
            for kind in _COLOURS
            if getattr(moment, kind) is not None
        }
        _draw_chart(ImageDraw.Draw(sheet), row * _HEIGHT, name, curves, system.horizon)
    return sheet


def _caption(name: str, view: View) -> str:
    ended = f" {view.end}" if view.end else ""
    return f"{name} {view.score:+.4g}{ended}"


def _number(view: View, row: int, system: System) -> float:
    return float(view.observation[row]) if row < system.state_dim else view.reward


def _draw_chart(pen: ImageDraw.ImageDraw, top: int, name: str, curves: dict[str, list[float]], horizon: int) -> None:
    values = np.concatenate([np.asarray(curve) for curve in curves.values()])
    low, high = float(values.min()), float(values.max())
    span = high - low or 1.0
    left, right, bottom = _MARGIN, _WIDTH - _MARGIN, top + _HEIGHT - _MARGIN
    height = _HEIGHT - 4 * _MARGIN
    pen.rectangle((left, bottom - height - _MARGIN // 2, right, bottom), outline=_FRAME)
    text = f"{name}: {low:.4g} to {high:.4g}"
    pen.text((left, top + 4), text, fill=_INK, font=font(14))
    for kind, curve in curves.items():
        points = [
            (
                left + (right - left) * step / max(horizon, len(curve) - 1),
                bottom - 3 - (height - 6) * (value - low) / span,
            )
            for step, value in enumerate(curve)
        ]
        x, y = points[-1]
        pen.line(points, fill=_COLOURS[kind], width=3 if kind == "real" else 2)
        pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill=_COLOURS[kind])
