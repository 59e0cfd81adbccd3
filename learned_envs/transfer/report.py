"""What a comparison found, as a table and as a plot."""

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, pstdev

import gymnasium as gym
from rich import box
from rich.table import Table

from learned_envs.files import replacing
from learned_envs.transfer.training import Evaluation

__all__ = ["Row", "plot", "rows_of", "table"]

_COLORS = {"random": "0.6", "imagination": "C0", "reality, as many real steps": "C1", "reality, as many steps": "C2"}


@dataclass(frozen=True)
class Row:
    """What one kind of training came to, over all episodes of all its seeds.

    Args:
        trained_in: Where; ``"random"`` for random actions.
        steps: Steps of the training.
        real_steps: Steps of the real environment that it took, by the agent or to make the model; None if unknown.
        imagined: Mean return in the learned environment.
        imagined_sd: Its standard deviation over episodes.
        real: Mean return in the real environment.
        real_sd: Its standard deviation over episodes.
        gap: How much higher the return is in imagination than in reality.
        share: Of the way from random actions to as many steps in reality, how much was gone; None without that training, or if it
            led nowhere.
        episodes: Episodes in each environment.
    """

    trained_in: str
    steps: int
    real_steps: int | None
    imagined: float
    imagined_sd: float
    real: float
    real_sd: float
    gap: float
    share: float | None
    episodes: int


def rows_of(found: dict[str, list[list[Evaluation]]], real_steps: int | None) -> list[Row]:
    """Sum up the last evaluation of every training.

    Args:
        found: Evaluations of each seed, of each kind of training.
        real_steps: Real steps that the model was made from; None if unknown.
    """
    last = {kind: [run[-1] for run in runs] for kind, runs in found.items()}
    real = {kind: fmean(value for each in ends for value in each.real) for kind, ends in last.items()}
    best = real.get("reality, as many steps")
    rows = []
    for kind, ends in last.items():
        imagined = [value for each in ends for value in each.imagined]
        returns = [value for each in ends for value in each.real]
        steps = ends[0].steps
        rows.append(
            Row(
                kind,
                steps,
                real_steps if kind == "imagination" else steps,
                fmean(imagined),
                pstdev(imagined),
                fmean(returns),
                pstdev(returns),
                fmean(imagined) - fmean(returns),
                None
                if best is None or best <= real["random"]
                else (real[kind] - real["random"]) / (best - real["random"]),
                len(returns),
            )
        )
    return rows


def table(id: str, agent: str, rows: list[Row]) -> Table:
    """The rows, for people."""
    title = f"{agent.upper()} in {id}: mean return ± standard deviation over {rows[0].episodes} episodes"
    drawn = Table(title=title, box=box.SIMPLE, title_justify="left")
    drawn.add_column("trained in")
    for name in ("steps", "real steps used", "in imagination", "in reality", "gap", "share"):
        drawn.add_column(name, justify="right")
    for row in rows:
        drawn.add_row(
            row.trained_in,
            f"{row.steps:,}",
            "unknown" if row.real_steps is None else f"{row.real_steps:,}",
            f"{row.imagined:.2f} ± {row.imagined_sd:.2f}",
            f"{row.real:.2f} ± {row.real_sd:.2f}",
            f"{row.gap:+.2f}",
            "-" if row.share is None else f"{row.share:.1%}",
        )
    return drawn


def require_matplotlib() -> None:
    """Complain at the beginning, not when everything is trained.

    Raises:
        gymnasium.error.DependencyNotInstalled: If it is missing.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise gym.error.DependencyNotInstalled(
            'The plot needs matplotlib, which is not installed. Run: pip install "learned-envs[sb3]"'
        ) from error


def plot(path: Path, id: str, agent: str, found: dict[str, list[list[Evaluation]]], rows: list[Row]) -> None:
    """Draw returns over steps, in reality as lines and in imagination dashed; one line a seed. Complete or not at all.

    The gap between the two is shaded, and the legend tells the real steps that each kind took.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    spent = {row.trained_in: "unknown" if row.real_steps is None else f"{row.real_steps:,}" for row in rows}
    for kind, runs in found.items():
        color = _COLORS[kind]
        for number, run in enumerate(runs):
            label = f"{kind} ({spent[kind]} real steps)" if number == 0 else None
            real, imagined = (
                [fmean(returns) for returns in each] for each in zip(*((e.real, e.imagined) for e in run), strict=True)
            )
            if kind == "random":
                axes.axhline(real[0], color=color, label=label)
                continue
            steps = [each.steps for each in run]
            axes.plot(steps, real, color=color, marker=".", label=label)
            if kind == "imagination":
                judged_there = f"{kind}, judged there" if number == 0 else None
                axes.plot(steps, imagined, color=color, linestyle="--", label=judged_there)
                axes.fill_between(steps, real, imagined, color=color, alpha=0.15, label="gap" if number == 0 else None)
    axes.set(xlabel="steps of training", ylabel="mean return of an episode", title=f"{agent.upper()} in {id}")
    axes.legend(title="trained in")
    axes.grid(alpha=0.3)
    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
