"""The factory's command line: ``python -m training COMMAND --help``."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from learned_envs.catalog import BUNDLED, entry

__all__ = ["main"]


def collect(
    id: Annotated[str, tyro.conf.Positional], /, steps: int = 100_000, seed: int = 0, folder: Path | None = None
) -> None:
    """Record real experience of a game with a mixture of policies.

    Args:
        id: Id of the learned environment, such as LearnedPong-v0.
        steps: Agent steps in all, four emulator frames each.
        seed: Seed of games and policies.
        folder: Where it goes; by default data/ID-SEED.
    """
    from training.collect import CollectConfig
    from training.collect import collect as record

    record(CollectConfig(entry(id).real[1], steps, seed), folder or Path("data") / f"{id}-{seed}")


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
    import torch

    from learned_envs.envs.batched import parse_device
    from training.recipe import load_recipe
    from training.twm.run import train

    torch.set_num_threads(threads)
    loaded = load_recipe(recipe)
    if seed is not None:
        loaded = replace(loaded, seed=seed)
    snapshot = train(loaded, run or Path("runs") / f"{Path(recipe).stem}-{loaded.seed}", parse_device(device))
    print(f"The snapshot is in {snapshot}")
    if bundle:
        target = BUNDLED / loaded.id
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(snapshot, partial)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
        print(f"and, bundled, in {target}")


def main() -> None:
    """Run a command; errors of ours are told in one line."""
    import gymnasium

    from training.experience import ExperienceError
    from training.loop import RunError

    try:
        tyro.extras.subcommand_cli_from_dict({"collect": collect, "twm": twm}, description=__doc__)
    except (ExperienceError, RunError, ValueError, gymnasium.error.Error) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on from the last checkpoint.")


if __name__ == "__main__":
    main()
