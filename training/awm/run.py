"""Train a policy by a recipe, or act in another way, and write down what it earned.

``python -m training bpo --system CancerTreatment``. The folder of a run holds ``run.json`` (the recipe), a checkpoint, logs for
TensorBoard and, at the end, ``result.json``. The same command resumes a run, or returns at once when it is finished. Only SAC,
which is Stable-Baselines3's, keeps no checkpoint: it begins again.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from learned_envs.envs.real.systems import System
from learned_envs.files import write_json
from training.awm.bpo import BpoStage
from training.awm.open_loop import optimize_plan
from training.awm.recipe import BpoRecipe
from training.awm.reference import measure_reference
from training.awm.sac import train_sac
from training.loop import open_run, read_json, run_stage
from training.provenance import provenance

__all__ = ["train_and_evaluate", "train_policy"]


def train_and_evaluate(
    recipe: BpoRecipe, folder: Path, system: System | None = None, checkpoint_seconds: float = 120.0
) -> list[list[float]]:
    """Run a recipe, or go on with a run.

    Args:
        recipe: What to do.
        folder: Folder of the run.
        system: The real system; left out, the one that the recipe names.
        checkpoint_seconds: Time between two checkpoints.

    Returns:
        Real steps and mean return in the real system, of each evaluation.

    Raises:
        RunError: If the folder belongs to a run of another recipe, or something that it needs is missing.
        ValueError: If the system does not fit the recipe.
    """
    system = system or recipe.make_system()
    open_run(folder, {**asdict(recipe), "system": repr(system)})
    torch.manual_seed(recipe.seed)
    if recipe.family == "open-loop":
        returns = [(0, optimize_plan(system)[1])]
    elif recipe.family == "sac":
        returns = train_sac(recipe, system)
    else:
        stage = BpoStage(recipe, system)
        run_stage(stage, folder, recipe.seed, checkpoint_seconds)
        returns = stage.returns
    return [[steps, value] for steps, value in returns]


def train_policy(recipe: BpoRecipe, folder: Path, checkpoint_seconds: float = 120.0) -> dict[str, Any]:
    """Run a recipe, compare with random and optimal actions, and write ``result.json``.

    Args:
        recipe: What to do.
        folder: Folder of the run; where it is finished, its result is read.
        checkpoint_seconds: Time between two checkpoints.

    Returns:
        What ``result.json`` says: ``returns``, see `train_and_evaluate`; the last one as ``final``; the same ``normalized``, so
        that 0 is random and 1 optimal; the ``reference``; and where all that comes from.

    Raises:
        RunError: If the folder belongs to a run of another recipe, or something that it needs is missing.
        ValueError: If the system does not fit the recipe.
    """
    system = recipe.make_system()
    open_run(folder, {**asdict(recipe), "system": repr(system)})
    path = folder / "result.json"
    if path.exists():
        return read_json(path)
    began = time.monotonic()
    returns = train_and_evaluate(recipe, folder, system, checkpoint_seconds)
    reference = measure_reference(system)
    result = {
        "recipe": asdict(recipe),
        "returns": returns,
        "final": returns[-1][1],
        "normalized": reference.normalize(returns[-1][1]),
        "reference": asdict(reference),
        "seconds": time.monotonic() - began,
        "provenance": provenance(),
    }
    write_json(path, result)
    return read_json(path)
