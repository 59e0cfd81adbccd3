"""The whole comparison: imagination, reality with as many real steps, reality with as many steps, and random actions.

The folder of a comparison holds ``config.json`` (what was asked for), a folder for each training and seed, and at the end
``transfer.json``, ``table.txt`` and ``returns.png``.
"""

from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import learned_envs
from learned_envs.files import replacing, write_json
from learned_envs.manifest import MODEL, read_manifest
from learned_envs.pretrained import find_snapshot, load_pretrained
from learned_envs.sb3 import make_real_vec_env, make_vec_env
from learned_envs.transfer.agents import Settings, settings
from learned_envs.transfer.report import Row, plot, require_matplotlib, rows_of, table
from learned_envs.transfer.training import Evaluation, Judges, Training, read

__all__ = ["TransferConfig", "compare"]

_MOST_JUDGES = 16  # environments side by side while an agent is judged


@dataclass(frozen=True)
class TransferConfig:
    """What to compare.

    Args:
        id: Id of the learned environment, folder of a snapshot, or repository on the Hub.
        agent: Key of `learned_envs.transfer.agents.AGENTS`.
        steps: Steps of each training.
        seeds: Number of trainings of each kind, seeded 0, 1, ...
        n_envs: Environments side by side; None for what suits the agent.
        evaluations: How often each agent is judged, at even distances.
        episodes: Episodes in imagination and in reality of each evaluation.
        baselines: Whether to train the same agent in the real environment too: with as many real steps as the model was made
            from, and with as many steps as in imagination.
        revision: Branch, tag or commit of a model on the Hub.

    Raises:
        ValueError: If a number is below 1.
    """

    id: str
    agent: str = "ppo"
    steps: int = 1_000_000
    seeds: int = 1
    n_envs: int | None = None
    evaluations: int = 10
    episodes: int = 30
    baselines: bool = True
    revision: str | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "seeds", "n_envs", "evaluations", "episodes"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1.")


def compare(config: TransferConfig, folder: Path, device: str = "cpu", console: Console | None = None) -> list[Row]:
    """Train and judge all agents, or go on where an earlier call was interrupted; print and write what was found.

    Args:
        config: What to compare.
        folder: Where it goes.
        device: Where agents and the learned environment compute.
        console: Where to print; None for standard output.

    Returns:
        The rows of the table.

    Raises:
        ValueError: If the agent cannot act in the environment, there are too few steps to learn from, or the folder belongs to
            another comparison or is damaged.
        gymnasium.error.DependencyNotInstalled: If the real environment or the plot needs a package that is missing.
        MissingModelError: If the model is not to be had.
        SnapshotError: If the model's files are damaged.
    """
    console = console or Console()
    require_matplotlib()
    model = find_snapshot(config.id, config.revision)  # once: a branch of the Hub may move
    pretrained = load_pretrained(model)
    chosen = settings(config.agent, config.id, pretrained.observation_space, pretrained.action_space)
    chosen = replace(chosen, n_envs=config.n_envs or chosen.n_envs)
    side_by_side = min(config.episodes, _MOST_JUDGES)
    judges = Judges(
        make_vec_env(model, side_by_side, device=device),
        make_real_vec_env(model, side_by_side),
        config.episodes,
    )
    real_steps = _real_steps(pretrained.config.provenance)
    spent = real_steps if _is_trained_for(real_steps, config, chosen, console) else None
    trainings = _trainings(config, chosen, model, folder, device, spent, pretrained.system is not None)
    _open(folder, asdict(config) | {"id": pretrained.config.id, "weights": read_manifest(model).files[MODEL].sha256})
    found = _run(trainings, judges, config.seeds, console)
    rows = rows_of(found, real_steps)
    _write(folder, config, found, rows, real_steps)
    console.print(table(config.id, config.agent, rows))
    console.print(f"The table, a plot and all returns are in {folder}", soft_wrap=True)
    for envs in (judges.imagined, judges.real):
        envs.close()
    return rows


def _real_steps(provenance: dict[str, Any]) -> int | None:
    """What a model was made from, if that is told as a number: provenance is written for people."""
    told = provenance.get("real_steps")
    return told if isinstance(told, int) and not isinstance(told, bool) and told > 0 else None


def _is_trained_for(real_steps: int | None, config: TransferConfig, chosen: Settings, console: Console) -> bool:
    """Whether there is a baseline of as many real steps as the model was made from; if there is none, why is printed."""
    if not config.baselines:
        return False
    if real_steps is None:
        why = "it is not known how many the model was made from."
    elif real_steps < chosen.fewest:
        why = f"the model was made from {real_steps:,}, but {chosen.needs}."
    elif real_steps // chosen.chunk == config.steps // chosen.chunk:
        why = f"the model was made from {real_steps:,}, which is as many steps as in imagination."
    else:
        return True
    console.print(f"Without the baseline of as many real steps: {why}", soft_wrap=True)
    return False


def _trainings(
    config: TransferConfig,
    chosen: Settings,
    model: Path,
    folder: Path,
    device: str,
    real_steps: int | None,
    control: bool,
) -> dict[str, list[Training]]:
    """The trainings of each kind, one a seed; without ``real_steps`` none of as many."""
    imagined = partial(make_vec_env, model, chosen.n_envs, device=device)
    real = partial(make_real_vec_env, model, chosen.n_envs)
    kinds: dict[str, tuple[Any, int]] = {"imagination": (imagined, config.steps)}
    if config.baselines:
        if real_steps:
            kinds["reality, as many real steps"] = (real, real_steps)
        kinds["reality, as many steps"] = (real, config.steps)
    return {
        kind: [
            Training(
                folder / f"{kind.replace(', ', '-').replace(' ', '-')}-{seed}",
                chosen,
                make,
                control,
                steps,
                config.evaluations,
                seed,
                device,
            )
            for seed in range(config.seeds)
        ]
        for kind, (make, steps) in kinds.items()
    }


def _open(folder: Path, wanted: dict[str, Any]) -> None:
    """Begin a folder with what is wanted, or check that it was begun with the same."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "config.json"
    if not path.exists():
        write_json(path, wanted)
        return
    found = read(path, TypeAdapter(dict[str, Any]))
    if different := sorted(name for name in {*found, *wanted} if found.get(name) != wanted.get(name)):
        raise ValueError(
            f"{folder} holds another comparison (it differs in: {', '.join(different)}). Use another folder."
        )


def _run(
    trainings: dict[str, list[Training]], judges: Judges, seeds: int, console: Console
) -> dict[str, list[list[Evaluation]]]:
    every = [training for kind in trainings.values() for training in kind]
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("random", total=sum(training.steps for training in every))
        progress.advance(bar, sum(training.steps_done for training in every))
        found = {"random": [[judges.judge_random(seed)] for seed in range(seeds)]}
        for kind, of_kind in trainings.items():
            progress.update(bar, description=kind)
            advance, say = partial(progress.advance, bar), partial(_say, console, kind)
            found[kind] = [training.run(judges, advance, partial(say, training.seed)) for training in of_kind]
    return found


def _say(console: Console, kind: str, seed: int, found: Evaluation) -> None:
    """One line of each evaluation, which is all that is seen of a long training whose output goes to a file."""
    imagined, real = (f"{fmean(each):.2f} ± {pstdev(each):.2f}" for each in (found.imagined, found.real))
    console.print(
        f"{kind}, seed {seed}, {found.steps:,} steps: {imagined} in imagination, {real} in reality "
        f"({len(found.real)} episodes each)",
        soft_wrap=True,
        highlight=False,
    )


def _write(
    folder: Path,
    config: TransferConfig,
    found: dict[str, list[list[Evaluation]]],
    rows: list[Row],
    real_steps: int | None,
) -> None:
    content = {
        "config": asdict(config),
        "real_steps_of_the_model": real_steps,
        "table": [asdict(row) for row in rows],
        "evaluations": {kind: [[asdict(each) for each in run] for run in runs] for kind, runs in found.items()},
        "versions": {
            "learned_envs": learned_envs.__version__,
            **{package: version(package) for package in ("stable-baselines3", "torch", "gymnasium")},
        },
    }
    write_json(folder / "transfer.json", content)
    with replacing(folder / "table.txt") as partial, partial.open("w", encoding="utf-8") as file:
        Console(width=140, file=file).print(table(config.id, config.agent, rows))
    plot(folder / "returns.png", config.id, config.agent, found, rows)
