"""Scores of Atari 100k beside published ones: ``python -m training scores RUNS...``.

Scores are normalised so that random play is 0 and a human is 1. As is usual for few runs (Agarwal et al., NeurIPS 2021), the
aggregates come with 95% intervals of a bootstrap that is stratified by game; rliable computes them.
"""

import json
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rliable import library, metrics

from learned_envs.files import replacing, write_json
from training.loop import RunError, read_json

__all__ = ["AGGREGATES", "Method", "aggregate", "compare", "read_runs", "reference_methods", "reference_scales"]

_REFERENCE = Path(__file__).parent / "reference" / "atari100k.json"
_REPETITIONS = 5000
_MOST_DIFFERENCES = 3  # from a preset that a name tells
_SHOWN = ("SPR", "TWM", "IRIS", "STORM", "DreamerV3", "DIAMOND")

AGGREGATES: dict[str, Callable[[np.ndarray], Any]] = {
    "mean": metrics.aggregate_mean,
    "median": metrics.aggregate_median,
    "iqm": metrics.aggregate_iqm,
    "optimality_gap": metrics.aggregate_optimality_gap,
}
_NEED_RUNS = ("iqm", "optimality_gap")  # the others follow from means
_TITLES = {"mean": "Mean", "median": "Median", "iqm": "IQM", "optimality_gap": "Optimality gap (lower is better)"}


@dataclass(frozen=True)
class Method:
    """What a method scored.

    Args:
        name: What to call it.
        runs: Final score of each run, for each game.
        means_only: Whether the single "run" of each game is really the mean of several.
        published: Whether it comes from the literature.
    """

    name: str
    runs: dict[str, list[float]] = field(default_factory=dict)
    means_only: bool = False
    published: bool = False

    def mean(self, game: str) -> float | None:
        """Mean score in a game; None if it was not played."""
        return float(np.mean(self.runs[game])) if self.runs.get(game) else None

    def matrix(self, games: tuple[str, ...]) -> np.ndarray:
        """Normalised scores, shape (runs, games); of games with more runs than others the first count."""
        random, human = reference_scales()
        count = min(len(self.runs[game]) for game in games)
        columns = [(np.array(self.runs[game][:count]) - random[game]) / (human[game] - random[game]) for game in games]
        return np.stack(columns, 1)


def reference_scales() -> tuple[dict[str, float], dict[str, float]]:
    """Scores of random play and of humans, by game."""
    content = json.loads(_REFERENCE.read_text())
    return content["random"], content["human"]


def reference_methods() -> dict[str, Method]:
    """Published methods by name."""
    methods = json.loads(_REFERENCE.read_text())["methods"]
    return {name: _published(name, content) for name, content in methods.items()}


def _published(name: str, content: dict[str, Any]) -> Method:
    name = name if content.get("verified", True) else f"{name} (second hand)"
    if "runs" in content:
        return Method(name, content["runs"], published=True)
    return Method(name, {game: [mean] for game, mean in content["mean"].items()}, means_only=True, published=True)


def read_runs(paths: tuple[Path, ...], name: str) -> list[Method]:
    """Read finished runs.

    Args:
        paths: Folders of runs, or folders that hold some; or JSON files of other projects.
        name: What to call the runs in the folders; what was not done as in a preset is added to it.

    Returns:
        A method for each way in which runs were made, and for each JSON file.

    Raises:
        RunError: If nothing is found, or a file does not hold what it should.
    """
    own: dict[tuple[str, ...], dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    methods = []
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("result.json"))
        results = [content for file in files if (content := _read_result(file)) is not None]
        if not results and path.is_file():
            methods.append(_read_other(path))
            continue
        if not results:
            raise RunError(f"{path} holds no finished run of Atari 100k: there is no such result.json in it.")
        for content in results:
            seeds = own[_variant(content["config"])][content["game"]]
            if seeds.get(content["seed"], content["score"]) != content["score"]:
                raise RunError(
                    f"{path}: {content['game']}, seed {content['seed']} is there twice, with different scores."
                )
            seeds[content["seed"]] = content["score"]
    for label, games in zip(_labels(list(own)), own.values(), strict=True):
        runs = {game: [seeds[seed] for seed in sorted(seeds)] for game, seeds in games.items()}
        methods.insert(0, Method(f"{name}, {label}", runs))
    return methods


def _read_result(path: Path) -> dict[str, Any] | None:
    """A result of ours; None if it is something else's."""
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != "learned_envs.atari100k":
        return None
    missing = [key for key in ("game", "seed", "score", "config") if key not in content]
    if missing:
        raise RunError(f"{path} lacks {', '.join(missing)}: it is damaged. Run the training command again.")
    return content


def _read_other(path: Path) -> Method:
    """Runs of another project."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("runs"), dict) or not content["runs"]:
        raise RunError(f'{path} is not of the form {{"name": "Other", "runs": {{"Pong": [18.5, 20.1]}}}}.')
    known = reference_scales()[0]
    for game, values in content["runs"].items():
        if game not in known:
            near = get_close_matches(game, known, n=1)
            raise RunError(f"{path}: Atari 100k has no game {game!r}.{f' Did you mean {near[0]}?' if near else ''}")
        fine = isinstance(values, list) and values and all(isinstance(value, int | float) for value in values)
        if not fine or not np.isfinite(values).all():
            raise RunError(
                f"{path}: the scores of {game} are {values!r}, but must be a list of at least one finite number."
            )
    return Method(str(content.get("name", path.stem)), content["runs"])


def _variant(config: dict[str, Any]) -> tuple[str, ...]:
    """A preset, and in what a run differs from it."""
    from dataclasses import asdict

    from training.atari100k_config import preset

    standard = json.loads(json.dumps(asdict(preset(config["preset"], config["game"], config["seed"]))))
    other = "compact" if config["preset"] == "faithful" else "paper"
    return config["preset"], *dict.fromkeys(_differences({**standard, other: None}, {**config, other: None}))


def _labels(variants: list[tuple[str, ...]]) -> list[str]:
    """Names of variants: a few differences of each, or all where those do not tell them apart."""
    short = [_shortened(variant) for variant in variants]
    return [
        text if short.count(text) == 1 else ", ".join(variant) for text, variant in zip(short, variants, strict=True)
    ]


def _shortened(variant: tuple[str, ...]) -> str:
    shown, hidden = variant[: 1 + _MOST_DIFFERENCES], len(variant) - 1 - _MOST_DIFFERENCES
    return ", ".join([*shown, *([f"{hidden} more differences"] if hidden > 0 else [])])


def _differences(standard: Any, found: Any, path: str = "") -> list[str]:
    if isinstance(standard, dict) and isinstance(found, dict):
        return [
            text for key in found for text in _differences(standard.get(key), found[key], f"{path}.{key}".lstrip("."))
        ]
    return [] if standard == found else [f"{path.rsplit('.', 1)[-1]} = {found}"]


def aggregate(method: Method, games: tuple[str, ...]) -> dict[str, Any]:
    """Aggregates over games.

    Args:
        method: Must have played all of them.
        games: At least one.

    Returns:
        For each of `AGGREGATES` its ``value`` and, where several runs allow it, the 95% interval from ``low`` to ``high``;
        None where it cannot be known. Also ``runs``, ``games`` and ``games_at_or_above_human``.
    """
    matrix = method.matrix(games)
    names = [name for name in AGGREGATES if not (method.means_only and name in _NEED_RUNS)]
    values = {name: {"value": float(AGGREGATES[name](matrix))} for name in names}
    if len(matrix) > 1:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # rliable's use of the bootstrap
            _, intervals = library.get_interval_estimates(
                {"": matrix},
                lambda drawn: np.array([AGGREGATES[name](drawn) for name in names]),
                reps=_REPETITIONS,
                random_state=np.random.RandomState(0),
            )
        for name, (low, high) in zip(names, intervals[""].T, strict=True):
            values[name] |= {"low": float(low), "high": float(high)}
    return {
        **{name: values.get(name) for name in AGGREGATES},
        "runs": None if method.means_only else len(matrix),
        "games": len(games),
        "games_at_or_above_human": int((matrix.mean(0) >= 1).sum()),
    }


def compare(paths: tuple[Path, ...], name: str, out: Path) -> dict[str, Any]:
    """Print tables of runs and published methods, and write them as JSON and as a plot.

    Args:
        paths: See `read_runs`.
        name: See `read_runs`.
        out: Folder for ``scores.json`` and ``scores.png``.

    Returns:
        What ``scores.json`` says.

    Raises:
        RunError: If there are no runs, or they have no game in common.
    """
    if not paths:
        raise RunError("Name at least one folder of runs.")
    mine, published = read_runs(paths, name), reference_methods()
    random, human = reference_scales()
    played = tuple(game for game in random if any(method.runs.get(game) for method in mine))
    common = tuple(game for game in played if all(method.runs.get(game) for method in mine))
    if not common:
        raise RunError("The runs have no game in common. Compare them one by one.")
    methods = [*mine, *published.values()]
    _refuse_namesakes(methods)
    totals = {method.name: aggregate(method, common) for method in methods}
    shown = [*mine, *(published[key] for key in _SHOWN)]
    console = Console(width=None if Console().is_terminal else 200, highlight=False, markup=False)
    console.print(_game_table(shown, played, random, human))
    console.print(_aggregate_table(methods, totals, common, len(random)))
    for method in mine:
        _tell_uneven(console, method, common)
    content = {
        "games": list(common),
        "aggregates": totals,
        "scores": {method.name: {game: method.runs.get(game) for game in played} for method in mine},
        "published_means": {name: {game: method.mean(game) for game in played} for name, method in published.items()},
        "random": {game: random[game] for game in played},
        "human": {game: human[game] for game in played},
    }
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "scores.json", content)
    _plot(methods, totals, common, out / "scores.png")
    console.print(f"Written: {out / 'scores.json'}, {out / 'scores.png'}")
    return content


def _refuse_namesakes(methods: list[Method]) -> None:
    names = [method.name for method in methods]
    for name in names:
        if names.count(name) > 1:
            raise RunError(
                f'Two methods are called {name!r}. Give yours another name: "name" in its JSON file, or --name.'
            )


def _tell_uneven(console: Console, method: Method, games: tuple[str, ...]) -> None:
    counts = {len(method.runs[game]) for game in games}
    if len(counts) > 1:
        console.print(
            f"{method.name}: games have {min(counts)} to {max(counts)} runs; aggregates take {min(counts)} of each."
        )
    if len(method.runs) < len(reference_scales()[0]):
        console.print(f"{method.name}: {len(method.runs)} of 26 games; its aggregates say nothing of the others.")


def _game_table(
    methods: list[Method], games: tuple[str, ...], random: dict[str, float], human: dict[str, float]
) -> Table:
    table = Table(box=box.SIMPLE, title="Score by game: mean of the runs ± their deviation (number of runs)")
    for heading in ("game", "random", "human", *(method.name for method in methods)):
        table.add_column(heading, justify="left" if heading == "game" else "right")
    for game in games:
        cells = [_cell(method, game) for method in methods]
        table.add_row(game, f"{random[game]:,.1f}", f"{human[game]:,.1f}", *cells)
    return table


def _cell(method: Method, game: str) -> str:
    values = method.runs.get(game)
    if not values:
        return "-"
    mean = f"{np.mean(values):,.1f}"
    return mean if method.published else f"{mean} ± {np.std(values):,.1f} ({len(values)})"


def _aggregate_table(
    methods: list[Method], totals: dict[str, dict[str, Any]], games: tuple[str, ...], all_games: int
) -> Table:
    title = f"Human-normalised scores over {len(games)} of {all_games} games, with 95% intervals"
    table = Table(box=box.SIMPLE, title=title)
    for heading in ("method", "runs", *_TITLES.values(), "games >= human"):
        table.add_column(heading, justify="left" if heading == "method" else "right")
    for method in methods:
        total = totals[method.name]
        cells = [_interval(total[key]) for key in AGGREGATES]
        table.add_row(method.name, str(total["runs"] or "mean only"), *cells, str(total["games_at_or_above_human"]))
    return table


def _interval(estimate: dict[str, float] | None) -> str:
    if estimate is None:
        return "-"
    text = f"{estimate['value']:.3f}"
    return text if "low" not in estimate else f"{text} [{estimate['low']:.2f}, {estimate['high']:.2f}]"


def _plot(methods: list[Method], totals: dict[str, dict[str, Any]], games: tuple[str, ...], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 1.5 + 0.3 * len(methods)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(AGGREGATES), sharey=True)
    for axis, key in zip(axes, AGGREGATES, strict=True):
        for row, method in enumerate(reversed(methods)):
            estimate = totals[method.name][key]
            if estimate is None:
                continue
            colour = "tab:grey" if method.published else "tab:blue"
            low, high = estimate.get("low", estimate["value"]), estimate.get("high", estimate["value"])
            axis.barh(row, high - low, 0.6, low, color=colour, alpha=0.5)
            axis.plot(estimate["value"], row, "|", color=colour, markersize=12, markeredgewidth=2)
        axis.set_title(_TITLES[key], fontsize=10)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(methods)), [method.name for method in reversed(methods)])
    figure.suptitle(f"Atari 100k, human-normalised, {len(games)} games, 95% intervals")
    with replacing(path) as partial:
        figure.savefig(partial, dpi=110, format="png")
