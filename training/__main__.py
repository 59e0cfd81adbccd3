"""The factory's command line: ``python -m training COMMAND --help``."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from learned_envs.catalog import BUNDLED, entry
from learned_envs.files import replacing
from training.agents.ppo import PpoConfig
from training.agents.run import PpoRun
from training.atari100k_config import Ablation, Preset
from training.awm.recipe import BpoRecipe

__all__ = ["main"]


def collect(
    id: Annotated[str, tyro.conf.Positional],
    /,
    steps: int = 100_000,
    seed: int = 0,
    folder: Path | None = None,
    policy: str | None = None,
    epsilons: tuple[float, ...] = (0.0, 0.05, 0.2),
) -> None:
    """Record real experience of a game with a mixture of policies, or with a trained agent.

    Args:
        id: Id of the learned environment, such as LearnedPong-v0.
        steps: Agent steps in all, four emulator frames each.
        seed: Seed of games and policies.
        folder: Where it goes; by default data/ID-SEED.
        policy: File of the agent that plays, agent.safetensors of a run of ppo; it draws its actions from its policy.
        epsilons: Shares of uniformly random actions of the agent; each episode draws one of them.
    """
    from training.collect import CollectConfig
    from training.collect import collect as record

    family, game = entry(id).real
    if family != "atari":
        raise ValueError(
            f"{id} is no game. Experience of a control problem is recorded by its recipe: python -m training awm."
        )
    config = CollectConfig(game, steps, seed, policy=policy, epsilons=epsilons)
    record(config, folder or Path("data") / f"{id}-{seed}")


def twm(
    recipe: str,
    run: Path | None = None,
    seed: int | None = None,
    device: str = "cpu",
    threads: int = 2,
    bundle: bool = False,
) -> None:
    """Fit a transformer world model by a recipe, and package it.

    Args:
        recipe: Name of a recipe in training/recipes/, or path of a TOML file.
        run: Folder of the run; the same folder resumes it. By default runs/RECIPE-SEED.
        seed: Another seed than the recipe's.
        device: Where to train, such as cpu or cuda.
        threads: CPU threads to use.
        bundle: Put the finished snapshot among the bundled ones.
    """
    from learned_envs.device import parse_device
    from training.recipe import load_recipe
    from training.twm.run import train

    _use(threads)
    loaded = load_recipe(recipe)
    if seed is not None:
        loaded = replace(loaded, seed=seed)
    snapshot = train(loaded, run or Path("runs") / f"{Path(recipe).stem}-{loaded.seed}", parse_device(device))
    _deliver(snapshot, loaded.id, bundle)


def refit(
    recipe: str,
    run: Path | None = None,
    device: str = "cpu",
    threads: int = 2,
    bundle: bool = False,
) -> None:
    """Fit the dynamics of a finished world model of a game further by a recipe, and package it.

    Args:
        recipe: Name of a recipe in training/recipes/, or path of a TOML file.
        run: Folder of the run; the same folder resumes it. By default runs/RECIPE-SEED.
        device: Where to train, such as cpu or cuda.
        threads: CPU threads to use.
        bundle: Put the finished snapshot among the bundled ones.
    """
    from learned_envs.device import parse_device
    from training.recipe import RefitRecipe, load_recipe
    from training.twm.refit import refit as fit

    _use(threads)
    loaded = load_recipe(recipe, RefitRecipe)
    snapshot = fit(loaded, run or Path("runs") / f"{Path(recipe).stem}-{loaded.seed}", parse_device(device))
    _deliver(snapshot, loaded.id, bundle)


def awm(recipe: str, run: Path | None = None, seed: int | None = None, threads: int = 1, bundle: bool = False) -> None:
    """Fit world models of a control problem by a recipe, and package the one that predicts best.

    Args:
        recipe: Name of a recipe in training/recipes/, or path of a TOML file.
        run: Folder of the run; the same folder resumes it. By default runs/RECIPE-SEED.
        seed: Another seed than the recipe's.
        threads: CPU threads to use.
        bundle: Put the finished snapshot among the bundled ones.
    """
    from training.awm.model_recipe import ModelRecipe
    from training.awm.world_model import make_world_model
    from training.recipe import load_recipe

    _use(threads)
    loaded = load_recipe(recipe, ModelRecipe)
    if seed is not None:
        loaded = replace(loaded, seed=seed)
    snapshot = make_world_model(loaded, run or Path("runs") / f"{Path(recipe).stem}-{loaded.seed}")
    _deliver(snapshot, loaded.id, bundle)


def _use(threads: int) -> None:
    import torch

    if threads < 1:
        raise ValueError(f"threads is {threads}, but must be at least 1.")
    torch.set_num_threads(threads)


def _deliver(snapshot: Path, id: str, bundle: bool) -> None:
    """Tell where a snapshot is, and put it among the bundled ones if asked."""
    print(f"The snapshot is in {snapshot}")
    if bundle:
        target = BUNDLED / id
        with replacing(target) as partial:
            shutil.copytree(snapshot, partial)
        print(f"and, bundled, in {target}; complete it with card and film: python -m hub build {target}")


def bpo(recipe: tyro.conf.OmitArgPrefixes[BpoRecipe], run: Path | None = None, threads: int = 1) -> None:
    """Train a policy by backpropagation through a world model, or a rival of it; see training/awm/recipe.py.

    Args:
        recipe: What to do.
        run: Folder of the run; the same folder resumes it. By default runs/bpo-SYSTEM-FAMILY-HORIZON-SEED.
        threads: CPU threads to use.
    """
    from training.awm.run import train_policy

    _use(threads)
    method = "-".join(filter(None, (recipe.family, recipe.backbone)))
    folder = run or Path("runs") / f"bpo-{recipe.system}-{method}-{recipe.horizon}-{recipe.seed}"
    result = train_policy(recipe, folder)
    print(f"Return {result['final']:.4g} ({result['normalized']:.1%} of the way from random to optimal)")
    print(f"The result is in {folder / 'result.json'}")


def experiment(
    name: Annotated[str, tyro.conf.Positional],
    /,
    run: Path | None = None,
    size: Literal["full", "reduced", "quick"] = "full",
    seeds: int | None = None,
    threads: int = 1,
) -> None:
    """Repeat an experiment of a paper: a figure, and a JSON of its numbers.

    Args:
        name: Name of the experiment; an unknown one lists them all.
        run: Folder; the same folder resumes the experiment. By default runs/NAME, or runs/NAME-SIZE.
        size: full takes hours to days; reduced hours of one core; quick only shows that everything runs, in about a
            minute.
        seeds: Number of seeds, counted from 0; by default the experiment's own.
        threads: CPU threads to use.
    """
    from training.experiments import run_experiment

    _use(threads)
    folder = run or Path("runs") / (name if size == "full" else f"{name}-{size}")
    figure, numbers = run_experiment(name, folder, size, seeds)
    print(f"The figure is {figure}, the numbers are in {numbers}")


def ppo(
    run: tyro.conf.OmitArgPrefixes[PpoRun],
    config: tyro.conf.OmitArgPrefixes[PpoConfig],
    folder: Path | None = None,
    device: str = "cpu",
    threads: int = 1,
) -> None:
    """Train an agent by PPO in a learned environment, and judge it in the real one.

    Args:
        run: Who is trained, and where.
        config: How.
        folder: Folder of the run; the same folder resumes it. By default runs/ppo-ID-SEED, or runs/ppo-real-ID-SEED.
        device: Where agent and learned environment compute, such as cpu or cuda.
        threads: CPU threads to use.
    """
    from training.agents.run import train_ppo

    _use(threads)
    name = "-".join(["ppo", *["real"][: run.real], Path(run.id).name, str(run.seed)])
    folder = folder or Path("runs") / name
    result = train_ppo(run, config, folder, device)
    for each in result["evaluations"]:
        earned = f"return {each['mean']:.2f}, sd {each['sd']:.2f}, in {each['episodes']} real episodes"
        print(f"After {each['steps']:,} steps: {earned}")
    print(f"The agent is {folder / 'agent.safetensors'}")


def atari100k(
    game: str | None = None,
    games: str | None = None,
    seed: int = 0,
    seeds: int = 1,
    preset: Preset = "faithful",
    device: str = "cpu",
    run: Path | None = None,
    ablations: tuple[Ablation, ...] = (),
    interactions: int | None = None,
    updates: int | None = None,
    fp32: bool = False,
    threads: int = 2,
    checkpoint_seconds: float = 120.0,
) -> None:
    """Train an agent and its world model on 100,000 interactions with a real game; the same command resumes.

    Args:
        game: ALE name of one game, such as Pong.
        games: Several, separated by commas, or all for the 26 of Atari 100k.
        seed: First seed.
        seeds: How many seeds, counted from the first.
        preset: The paper's model and schedule, or ours for two CPU cores.
        device: Where to train, such as cpu or cuda.
        run: Folder; several runs get a folder each in it. By default runs/atari100k/PRESET-ABLATIONS-GAME-SEED.
        ablations: Parts of the method to leave out; of the faithful preset only.
        interactions: Another number of interactions than 100,000.
        updates: Another number of updates than the preset's; what comes out is a reduced schedule.
        fp32: Compute in float32 throughout, as the authors did, instead of partly in bfloat16.
        threads: CPU threads to use.
        checkpoint_seconds: Time between two checkpoints.
    """
    from learned_envs.device import parse_device
    from training.atari100k import train
    from training.atari100k_config import ablated, game_names, in_float32, reduced
    from training.atari100k_config import preset as make
    from training.loop import RunError

    if (game is None) == (games is None):
        raise RunError("Name either one --game or several --games.")
    if seeds < 1:
        raise RunError(f"seeds is {seeds}, but must be at least 1.")
    _use(threads)
    wanted = [(name, number) for name in game_names(game or games or "") for number in range(seed, seed + seeds)]
    for name, number in wanted:
        config = reduced(ablated(make(preset, name, number), ablations), interactions, updates)
        config = in_float32(config) if fp32 else config
        folder = run or Path("runs") / "atari100k"
        if run is None or len(wanted) > 1:
            folder = folder / "-".join((preset, *ablations, name, str(number)))
        result = train(config, folder, parse_device(device), checkpoint_seconds)
        print(
            f"{name}, seed {number}: {result['score']:.1f} over {len(result['scores'])} games; {folder / 'result.json'}"
        )


def scores(
    runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    name: str = "this project",
    out: Path = Path("runs/scores"),
) -> None:
    """Compare finished runs of Atari 100k with published ones: a table a game, aggregates with intervals, and a plot.

    Args:
        runs: Folders of runs, or folders that hold some; also JSON files of other projects, each with "name" and "runs", which
            gives a list of scores for each game.
        name: What to call the runs in the folders.
        out: Folder for scores.json and scores.png.
    """
    from training.scores import compare

    compare(runs, name, out)


def main() -> None:
    """Run a command; errors of ours are told in one line."""
    import gymnasium

    from training.experience import ExperienceError
    from training.loop import RunError

    try:
        commands = {
            "collect": collect,
            "twm": twm,
            "refit": refit,
            "awm": awm,
            "ppo": ppo,
            "atari100k": atari100k,
            "scores": scores,
            "bpo": bpo,
            "experiment": experiment,
        }
        tyro.extras.subcommand_cli_from_dict(commands, description=__doc__)
    except (ExperienceError, RunError, OSError, ValueError, gymnasium.error.Error) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on from the last checkpoint, if there is one.")


if __name__ == "__main__":
    main()
