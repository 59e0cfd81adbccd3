"""The command line: ``learned-envs list | info | demo | play | transfer``.

The commands import what they need when they run, so that ``list`` and ``--help`` do without torch.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import gymnasium as gym
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

from learned_envs.catalog import entry, list_envs

if TYPE_CHECKING:
    from learned_envs.pretrained import Pretrained

__all__ = ["main"]

_Id = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ID")]
_PIPED_WIDTH = 120  # columns for a reader who is no terminal, so that an id and its recipe stay on one line


def list_environments() -> None:
    """List all environments: id, model family, what it was learned from, and whether its model is bundled.

    Where no model is bundled, the command that trains it is shown; run it in a checkout of the project.
    """
    table = Table(box=box.SIMPLE)
    for name in ("id", "family", "real environment", "model"):
        table.add_column(name, no_wrap=name == "id")
    for item in map(entry, list_envs()):
        table.add_row(item.id, item.family, _twin(*item.real), "bundled" if item.bundled else item.recipe)
    _console().print(table)


def info(id: _Id, revision: str | None = None) -> None:
    """Show what a trained model is: its sizes and spaces, how it was made, and how faithful it was measured to be.

    Args:
        id: Id of the environment, such as LearnedPong-v0, the folder of a snapshot, or a repository on the Hub.
        revision: Branch, tag or commit on the Hub.
    """
    from learned_envs.pretrained import load_pretrained

    pretrained = load_pretrained(id, revision=revision)
    fidelity = pretrained.fidelity
    console = _console()
    console.print(
        _listing("Environment", _environment(pretrained)),
        _listing("Model", _model(pretrained, id)),
        _listing("Provenance", _flat(pretrained.config.provenance)),
    )
    for name, figures in fidelity.items():
        console.print(*_tables_of_figures(name, figures))
    if not fidelity:
        console.print("Its fidelity was not measured.")


def demo(
    id: _Id = "LearnedPong-v0",
    num_envs: int = 64,
    steps: int = 1000,
    device: str = "cpu",
    out: Path = Path("demo_out"),
    seed: int = 0,
    revision: str | None = None,
) -> None:
    """Play many imagined games at once, measure their speed beside that of the real ones, and film or draw both.

    Args:
        id: Id of the environment, the folder of a snapshot, or a repository on the Hub.
        num_envs: Games played in parallel while the speed is measured; at least 1.
        steps: Steps of each of these games; at least 1.
        device: Where the model runs, such as cpu, cuda or cuda:1.
        out: Folder for the film and the contact sheet, or the curves of a control problem.
        seed: Seed of starts, actions and imagination; at least 0.
        revision: Branch, tag or commit on the Hub.
    """
    from learned_envs.demo import run_demo

    run_demo(id, num_envs, steps, device, out, seed, _console(), revision)


def play(
    id: _Id = "LearnedPong-v0",
    host: str = "127.0.0.1",
    port: int = 8765,
    device: str = "cpu",
    seed: int = 0,
    speed: float | None = None,
    real: bool = True,
    out: Path = Path("play_out"),
    open: bool = False,
    revision: str | None = None,
) -> None:
    """Play on a local web page, with the keyboard or with sliders, beside the real environment under the same actions.

    Args:
        id: Id of the environment, the folder of a snapshot, or a repository on the Hub.
        host: Address to listen on; with any but this machine's own, others in the network can play too.
        port: Port to listen on; 0 takes any that is free.
        device: Where the model runs, such as cpu, cuda or cuda:1.
        seed: Seed of the first episode.
        speed: Steps a second to begin with, 0.5 to 60; left out, 15 for games and 5 for control problems.
        real: Whether to play the real environment beside it, if it is installed.
        out: Folder for the films that are recorded.
        open: Whether to open the page in the browser at once.
        revision: Branch, tag or commit on the Hub.
    """
    try:
        from learned_envs.play.server import run_play
    except ImportError as error:
        raise gym.error.DependencyNotInstalled(
            f'play needs {error.name}, which is not installed. Run: pip install "learned-envs[play]"'
        ) from error
    run_play(
        id,
        host=host,
        port=port,
        device=device,
        seed=seed,
        speed=speed,
        real=real,
        out=out,
        open_browser=open,
        console=_console(),
        revision=revision,
    )


def transfer(
    id: _Id,
    agent: Literal["ppo", "a2c", "dqn", "sac", "td3"] = "ppo",
    steps: int = 1_000_000,
    seeds: int = 1,
    n_envs: int | None = None,
    evaluations: int = 10,
    episodes: int = 30,
    baselines: bool = True,
    device: str = "cpu",
    out: Path | None = None,
    revision: str | None = None,
) -> None:
    """Train an agent in imagination and judge it in reality, beside the same agent trained in reality.

    The same command goes on where it was interrupted.

    Args:
        id: Id of the environment, the folder of a snapshot, or a repository on the Hub.
        agent: Which agent of Stable-Baselines3; dqn chooses one of several actions, sac and td3 act by numbers.
        steps: Steps of each training.
        seeds: Number of trainings of each kind, seeded 0, 1, ...
        n_envs: Environments side by side; by default what suits the agent.
        evaluations: How often each agent is judged, at even distances.
        episodes: Episodes in imagination and in reality of each evaluation.
        baselines: Train the same agent in the real environment too: with as many real steps as the model was made from,
            and with as many steps as in imagination.
        device: Where agents and the learned environment compute, such as cpu or cuda.
        out: Folder for the table, the plot, the returns and the agents; by default transfer_out/ID-AGENT.
        revision: Branch, tag or commit on the Hub.
    """
    from learned_envs.transfer import TransferConfig, compare

    config = TransferConfig(id, agent, steps, seeds, n_envs, evaluations, episodes, baselines, revision)
    compare(config, out or Path("transfer_out") / f"{Path(id).name}-{agent}", device, _console())


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command; what a user can mend is told in one line.

    Args:
        argv: Arguments after the program's name; None takes those of the process.

    Raises:
        SystemExit: 1 if the command failed, 2 if the arguments are wrong, 130 if it was interrupted.
    """
    commands = {"list": list_environments, "info": info, "demo": demo, "play": play, "transfer": transfer}
    try:
        tyro.extras.subcommand_cli_from_dict(
            commands,
            prog="learned-envs",
            description="Trained world models that behave like any Gymnasium environment.",
            args=argv,
        )
    except (gym.error.Error, ValueError, OSError) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        raise SystemExit(130) from None


def _console() -> Console:
    """Where results go. Snapshots are written by others: nothing in them is taken for markup."""
    return Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, markup=False, highlight=False)


def _twin(kind: str, name: str) -> str:
    return f"{name} ({kind})"


def _environment(pretrained: "Pretrained") -> dict[str, Any]:
    from learned_envs.environment import AtariConfig

    config, real = pretrained.config, pretrained.config.environment
    meanings = {"action meanings": real.action_meanings} if isinstance(real, AtariConfig) else {}
    return {
        "id": config.id,
        "real environment": _twin(real.kind, real.name),
        "observations": pretrained.observation_space,
        "actions": pretrained.action_space,
        **meanings,
        "episode limit": f"{real.max_episode_steps:,} steps",
        "reward": real.reward,
        **_flat({"option": real.options, "package": real.packages}),
    }


def _model(pretrained: "Pretrained", id: str) -> dict[str, Any]:
    config = pretrained.config
    parameters = sum(parameter.numel() for parameter in pretrained.model.parameters())
    agent = "none" if config.policy is None else f"learned_envs.load_policy({id!r})"
    return {"family": config.family, "parameters": parameters, "agent": agent, **_flat(asdict(config.model))}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree, with the names on the way to them joined by dots."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves


def _tables_of_figures(name: str, figures: Any) -> Iterator[Table]:
    """Single figures as a list; curves, which are given by step, side by side in one table."""
    figures = figures if isinstance(figures, dict) else {name: figures}
    curves = {key: value for key, value in figures.items() if isinstance(value, dict)}
    title = f"Fidelity: {_text(name)}"
    yield _listing(title, {key: value for key, value in figures.items() if key not in curves})
    if curves:
        table = Table("step", *map(_text, curves), title=f"{title}, by step", box=box.SIMPLE, title_justify="left")
        for step in dict.fromkeys(step for curve in curves.values() for step in curve):
            table.add_row(_text(step), *(_text(curve.get(step)) for curve in curves.values()))
        yield table


def _listing(title: str, values: Mapping[str, Any]) -> Table:
    table = Table(title=title, box=box.SIMPLE, show_header=False, title_justify="left")
    for name, value in values.items():
        table.add_row(_text(name), _text(value))
    return table


def _text(value: Any) -> str:
    """A value for people. Control characters, with which a terminal could be commanded, are left out."""
    if value is None:
        return "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "".join(letter for letter in str(value) if letter.isprintable())
