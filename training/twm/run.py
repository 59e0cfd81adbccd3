"""Make a transformer world model from nothing: record, fit, measure, package.

``python -m training twm --recipe pong``. Every step leaves its result in the run's folder and is skipped when it is found
there, so that the same command resumes a run that was interrupted.
"""

import platform
import subprocess
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import learned_envs
from learned_envs.catalog import CATALOG
from learned_envs.environment import AtariConfig
from learned_envs.envs.real.twin import make_real
from learned_envs.pretrained import Pretrained
from learned_envs.snapshot import SnapshotConfig, write_snapshot
from learned_envs.starts import StartBank
from learned_envs.twm.observation_model import GridObservationModel
from learned_envs.twm.world_model import TransformerWorldModel
from training.collect import CollectConfig, collect
from training.experience import Experience
from training.loop import open_run, run_stage
from training.recipe import TwmRecipe
from training.twm.dynamics import DynamicsStage, encode_all
from training.twm.fidelity import measure_pong, open_loop_picture, recording
from training.twm.joint import JointStage
from training.twm.observation import ObservationStage
from training.twm.package import start_bank
from training.twm.replay import Replay

__all__ = ["train"]

_MOST_REWARD_VALUES = 32


def train(
    recipe: TwmRecipe, folder: Path, device: str | torch.device = "cpu", checkpoint_seconds: float = 120.0
) -> Path:
    """Run a recipe, or go on with a run.

    Args:
        recipe: What to do.
        folder: Folder of the run.
        device: Where to train.
        checkpoint_seconds: Time between two checkpoints.

    Returns:
        Folder of the finished snapshot.

    Raises:
        RunError: If the folder belongs to a run of another recipe.
        ExperienceError: If there is too little experience to train on.
    """
    open_run(folder, asdict(recipe))
    experience = _record(recipe, folder / "experience", recipe.experience.steps, recipe.experience.seed)
    validation = _record(
        recipe, folder / "validation", recipe.experience.validation_steps, recipe.experience.validation_seed
    )
    model = _new_model(recipe, experience).to(device)
    starts = start_bank(experience, model.observation_shape[0])
    if recipe.game == "Pong":
        recording(validation, 1, model.observation_shape[0])  # complains now, not when all is trained
    fit = _fit_compact if recipe.preset == "compact" else _fit_faithful
    fit(model, experience, validation, recipe, folder, checkpoint_seconds)
    return _package(model.cpu().eval(), starts, experience, validation, recipe, folder)


def _record(recipe: TwmRecipe, folder: Path, steps: int, seed: int) -> Experience:
    collect(CollectConfig(recipe.game, steps, seed), folder)
    return Experience.load(folder)


def _new_model(recipe: TwmRecipe, experience: Experience) -> TransformerWorldModel:
    environment = make_real(recipe.id)
    num_actions = int(environment.action_space.n)  # type: ignore[attr-defined]
    environment.close()
    values = np.unique(np.append(experience.rewards, 0.0))
    if len(values) > _MOST_REWARD_VALUES or len(values) == 1:
        values = np.array([])  # too many to tell apart: predict the mean instead
    torch.manual_seed(recipe.seed)
    return TransformerWorldModel(recipe.model_config(num_actions, tuple(values.tolist())))


def _fit_compact(
    model: TransformerWorldModel,
    experience: Experience,
    validation: Experience,
    recipe: TwmRecipe,
    folder: Path,
    seconds: float,
) -> None:
    assert isinstance(model.observation_model, GridObservationModel)
    real = recording(validation, rollouts=3, stack=model.observation_shape[0], horizon=16)
    device = model.reward_values.device
    frames = torch.from_numpy(experience.frames).to(device)
    run_stage(ObservationStage(model.observation_model, frames, recipe.observation), folder, recipe.seed, seconds)
    codes = encode_all(model.observation_model.eval(), frames)
    preview = partial(open_loop_picture, model, real)
    for name, config in (("dynamics", recipe.dynamics), ("refinement", recipe.refinement)):
        if config.updates:
            replay = Replay(experience, model.config.num_actions, config.length, device)
            stage = DynamicsStage(model.dynamics, codes, replay, config, preview, name)
            run_stage(stage, folder, recipe.seed, seconds)


def _fit_faithful(
    model: TransformerWorldModel,
    experience: Experience,
    validation: Experience,
    recipe: TwmRecipe,
    folder: Path,
    seconds: float,
) -> None:
    run_stage(JointStage(model, experience, recipe.joint), folder, recipe.seed, seconds)


def _package(
    model: TransformerWorldModel,
    starts: StartBank,
    experience: Experience,
    validation: Experience,
    recipe: TwmRecipe,
    folder: Path,
) -> Path:
    target = folder / "snapshot"
    model = model.half().float()  # what is measured is what is written
    config = SnapshotConfig(recipe.id, "twm", model.config, _environment(recipe), _provenance(recipe, experience))
    fidelity = measure_pong(Pretrained(model, starts, config), validation) if recipe.game == "Pong" else {}
    write_snapshot(target, config, model, starts, fidelity, replace=True)
    return target


def _environment(recipe: TwmRecipe) -> AtariConfig:
    real = make_real(recipe.id)
    meanings = tuple(real.unwrapped.get_action_meanings())  # type: ignore[attr-defined]
    real.close()
    return AtariConfig(
        kind="atari",
        name=recipe.game,
        options={},
        num_actions=len(meanings),
        action_meanings=meanings,
        max_episode_steps=CATALOG[recipe.id].max_episode_steps,
        reward="score of the game, not clipped",
        packages={"ale-py": version("ale-py")},
    )


def _provenance(recipe: TwmRecipe, experience: Experience) -> dict[str, Any]:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return {
        "recipe": asdict(recipe),
        "real_steps": len(experience),
        "real_episodes": len(experience.episode_starts),
        "policies": sorted(set(experience.policies)),
        "commit": commit.stdout.strip() or None,
        "learned_envs": learned_envs.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
    }
