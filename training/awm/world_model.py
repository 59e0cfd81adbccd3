"""Make a world model of a control problem from nothing: record, fit the candidates, measure, choose, package.

``python -m training awm --recipe cancertreatment``. Every step leaves its result in the run's folder and is not done again when
it is found there, so that the same command resumes a run that was interrupted.
"""

import math
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.environment import SystemConfig
from learned_envs.envs.real.systems import System
from learned_envs.files import write_json
from learned_envs.snapshot import SnapshotConfig, write_snapshot
from learned_envs.starts import StartBank
from training.awm.episodes import Episodes, record
from training.awm.fit import FitStage
from training.awm.measure import measure_model
from training.awm.model_recipe import ModelRecipe
from training.awm.plans import mixed_plans
from training.awm.transfer import PolicyStage, measure_transfer
from training.loop import open_run, read_json, run_stage, update_seed
from training.provenance import provenance

__all__ = ["make_world_model", "start_bank"]

_BEGINNINGS, _MIDDLES = 16, 128  # at most so many recorded contexts
_CONTEXT = 8  # observations in those from the middle, at most


def make_world_model(recipe: ModelRecipe, folder: Path, checkpoint_seconds: float = 120.0) -> Path:
    """Run a recipe, or go on with a run.

    Args:
        recipe: What to do.
        folder: Folder of the run.
        checkpoint_seconds: Time between two checkpoints.

    Returns:
        Folder of the finished snapshot.

    Raises:
        RunError: If the folder belongs to a run of another recipe.
        ValueError: If the system has noise, which a policy cannot be compared in.
    """
    system = recipe.make_system()
    if system.noise_size:
        raise ValueError(
            f"{recipe.id} is noisy with these options, but a policy is judged by one episode: leave noise out."
        )
    open_run(folder, asdict(recipe))
    finished = folder / "snapshot"
    if finished.exists():
        return finished
    seen, unseen = (_record(recipe, system, kind) for kind in ("episodes", "unseen"))
    models: dict[str, ContinuousWorldModel] = {}
    measured: dict[str, dict[str, Any]] = {}
    for name in recipe.candidates:
        models[name], measured[name] = _fit(recipe, name, seen, unseen, folder / name, checkpoint_seconds)
    best = min(measured, key=lambda name: _total_error(measured[name]))
    chosen = recipe.choose or best
    torch.manual_seed(update_seed(recipe.seed, "policy", -1))
    beginnings, observations = seen.observations[:, 0], seen.observations
    stage = PolicyStage(models[chosen], beginnings, observations, recipe.policy)
    transfer = measure_transfer(stage, system, folder, recipe.seed, checkpoint_seconds)
    config = SnapshotConfig(
        recipe.id, "awm", models[chosen].config, _environment(recipe, system), _provenance(recipe, seen, chosen, best)
    )
    fidelity = _fidelity(measured, len(unseen), chosen) | {"transfer": transfer}
    write_snapshot(finished, config, models[chosen], start_bank(seen), fidelity)
    return finished


def start_bank(episodes: Episodes) -> StartBank:
    """Choose contexts from recorded episodes, evenly over them.

    Args:
        episodes: What was recorded.

    Returns:
        Up to 16 different beginnings, and up to 128 contexts that end anywhere in an episode but at its end.
    """
    first = episodes.observations[:, 0].unique(dim=0)
    first = first[torch.linspace(0, len(first) - 1, min(_BEGINNINGS, len(first))).long()]
    length = min(_CONTEXT, episodes.horizon)
    count = min(_MIDDLES, len(episodes))
    rows = torch.linspace(0, len(episodes) - 1, count).long().unsqueeze(1)
    # A golden-section sequence: middles are spread over the episode, whatever kinds of plans the rows are of.
    share = torch.arange(count) * 0.6180339887 % 1
    steps = (share * (episodes.horizon - length + 1)).long().unsqueeze(1) + torch.arange(length)
    empty = torch.empty(len(first), 0)
    return StartBank.from_contexts(
        {
            "initial": (first.unsqueeze(1), empty.unsqueeze(-1).expand(-1, -1, episodes.actions.shape[2]), empty),
            "anywhere": (
                episodes.observations[rows, steps],
                episodes.actions[rows, steps[:, :-1]],
                episodes.rewards[rows, steps[:, :-1]],
            ),
        }
    )


def _record(recipe: ModelRecipe, system: System, kind: str) -> Episodes:
    """Real episodes; they take a second, so that they are recorded anew when a run is resumed."""
    torch.manual_seed(update_seed(recipe.seed, kind, 0))
    return record(system, mixed_plans(system, getattr(recipe.plans, kind), recipe.plans.kinds))


def _fit(
    recipe: ModelRecipe, name: str, seen: Episodes, unseen: Episodes, folder: Path, seconds: float
) -> tuple[ContinuousWorldModel, dict[str, Any]]:
    """A fitted candidate, and how well it predicts."""
    torch.manual_seed(update_seed(recipe.seed, name, -1))
    model = recipe.make_candidate(name)
    model.use_bounds(recipe.make_system().observation_bounds)
    stage = FitStage(model, seen, recipe.candidates[name].fitting, name)
    path = folder / "measured.json"
    run_stage(stage, folder, recipe.seed, seconds)
    model.eval().requires_grad_(False)
    if not path.exists():
        parameters = sum(parameter.numel() for parameter in model.parameters())
        figures = measure_model(model, unseen) | {"parameters": parameters}
        write_json(path, figures)
    return model, read_json(path)


def _total_error(figures: dict[str, Any]) -> float:
    """By what candidates are compared; infinite where one diverged."""
    errors = figures["state_error"], figures["anywhere_error"]
    return sum(math.inf if error is None else error for error in errors)


def _fidelity(measured: dict[str, dict[str, Any]], unseen: int, chosen: str) -> dict[str, Any]:
    """What was measured of each candidate, a table a figure."""
    names = ("state_error", "anywhere_error", "return_error", "parameters")
    tables = {name: {candidate: figures[name] for candidate, figures in measured.items()} for name in names}
    curves = {candidate: figures["curve"] for candidate, figures in measured.items()}
    return {"open_loop": {"episodes": unseen, "chosen": chosen, **curves}, **tables}


def _environment(recipe: ModelRecipe, system: System) -> SystemConfig:
    reward = {
        "known": "that of the real system, computed from predicted states by its formula",
        "learned": "that of the real system, predicted by a network",
    }
    return SystemConfig(
        kind="system",
        name=type(system).__name__,
        options={"horizon": system.horizon, **recipe.options},
        reward=reward[recipe.reward],
        packages={"learned-envs": version("learned-envs")},
    )


def _provenance(recipe: ModelRecipe, seen: Episodes, chosen: str, best: str) -> dict[str, Any]:
    return {
        "recipe": asdict(recipe),
        "real_steps": seen.rewards.numel(),
        "real_episodes": len(seen),
        "policies": list(recipe.plans.kinds),
        "chosen": chosen,
        "predicts_best": best,
        **provenance(),
    }
