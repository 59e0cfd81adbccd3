"""Record, and fit the dynamics, again and again, to recordings that grow."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from learned_envs.twm.observation_model import GridObservationModel
from learned_envs.twm.world_model import TransformerWorldModel
from training.collect import CollectConfig, collect
from training.experience import Experience
from training.loop import run_stage
from training.recipe import ExperienceRecipe
from training.twm.dynamics import DynamicsStage, DynamicsTraining, encode_all
from training.twm.fidelity import open_loop_picture, recording
from training.twm.moves import encode_moved
from training.twm.replay import Replay

__all__ = ["Fitting", "record"]


def record(game: str, recipe: ExperienceRecipe, folder: Path) -> tuple[Path, Path]:
    """Record what a recipe asks for, or what is left of it.

    Args:
        game: ALE name.
        recipe: How much, and from which seeds.
        folder: Folder of the run.

    Returns:
        The recordings to learn from, and to measure with.
    """
    experience, validation = folder / "experience", folder / "validation"
    collect(CollectConfig(game, recipe.steps, recipe.seed), experience)
    collect(CollectConfig(game, recipe.validation_steps, recipe.validation_seed), validation)
    return experience, validation


@dataclass(kw_only=True)
class Fitting:
    """Fits of the dynamics, each of which follows the last: what was never drawn are then the steps that came since.

    Args:
        folder: Folder of the run.
        seed: Seed of the run.
        experience: What to learn from; it may grow between two fits.
        validation: What to draw pictures of, for the log.
        checkpoint_seconds: Time between two checkpoints.
    """

    folder: Path
    seed: int
    experience: Experience
    validation: Experience
    checkpoint_seconds: float = 120.0
    last_fit: DynamicsStage | None = None
    codes: list[torch.Tensor] = field(default_factory=list)  # of all frames, as many at once as were added

    def fit(self, model: TransformerWorldModel, config: DynamicsTraining, name: str) -> None:
        """Take a fit, or what is left of it.

        Args:
            model: Of the compact preset; its dynamics are changed in place.
            config: How to train.
            name: Name of the stage.
        """
        device = model.reward_values.device
        assert isinstance(model.observation_model, GridObservationModel)
        frames = torch.from_numpy(self.experience.frames).to(device)
        uncoded = frames[sum(map(len, self.codes)) :]
        if len(uncoded):
            self.codes.append(encode_all(model.observation_model.eval(), uncoded))
        real = recording(self.validation, rollouts=3, stack=model.observation_shape[0], horizon=16)
        preview = partial(open_loop_picture, model, real)
        replay = Replay(self.experience, model.config.num_actions, config.length, device)
        moved = encode_moved(model.observation_model, frames) if config.moved_share else None
        stage = DynamicsStage(model.dynamics, torch.cat(self.codes), replay, config, preview, name, moved)
        if self.last_fit is not None:
            stage.follow(self.last_fit)
        run_stage(stage, self.folder, self.seed, self.checkpoint_seconds)
        self.last_fit = stage
