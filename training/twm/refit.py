"""Fit a finished world model of a game further: record, fit, train an agent in it, measure, package.

``python -m training refit --recipe pong-refit``. Codes and recorded starts stay as they are; only the dynamics learn, from what
is recorded and from the recorded starts. The agent that comes with the model is a new one, or that of before.
"""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learned_envs.environment import AtariConfig
from learned_envs.policy import Policy, load_policy
from learned_envs.pretrained import Pretrained, load_pretrained
from learned_envs.snapshot import SnapshotConfig, write_snapshot
from learned_envs.twm.observation_model import GridObservationModel
from learned_envs.twm.world_model import TransformerWorldModel
from training.agents.agent import load_agent
from training.agents.run import PpoRun, earned, train_ppo
from training.experience import Episode, Experience
from training.loop import RunError, open_run
from training.provenance import model_digest, provenance
from training.recipe import AgentRecipe, RefitRecipe
from training.twm.fidelity import measure_pong
from training.twm.fitting import Fitting, record
from training.twm.package import describe_game, pack_agent, pack_model

__all__ = ["refit"]

_SUMMED = ("real_steps", "real_episodes", "policies", "agents_in_the_real_game")  # over the base and what came since


def refit(
    recipe: RefitRecipe, folder: Path, device: str | torch.device = "cpu", checkpoint_seconds: float = 120.0
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
        RunError: If the base is no model of the compact preset of this game, the agent is to take an action that the game does
            not have, or the folder belongs to another run.
        ExperienceError: If there is too little experience to train on.
    """
    base = load_pretrained(recipe.base)
    model = _model(recipe, base)
    open_run(folder, asdict(recipe) | {"base": model_digest(recipe.base)})
    finished = folder / "snapshot"
    if finished.exists():
        return finished
    experience, validation = record(recipe.game, recipe.experience, folder)
    run = Fitting(
        folder=folder,
        seed=recipe.seed,
        experience=Experience.load(experience, behind=_remembered(base, model)),
        validation=Experience.load(validation),
        checkpoint_seconds=checkpoint_seconds,
    )
    before = {name: weights.detach().clone() for name, weights in model.to(device).dynamics.named_parameters()}
    run.fit(model.requires_grad_(True), recipe.dynamics, "dynamics")
    _blend(model, before, recipe.blend)
    packed = pack_model(model, model.config.temperature if recipe.temperature is None else recipe.temperature)
    told = replace(base.config, id=recipe.id, model=packed.config, provenance=_provenance(recipe, base.config, folder))
    result = Pretrained(packed, base.starts, told)
    if recipe.agent is None:
        policy = None if base.config.policy is None else load_policy(recipe.base)
    else:
        result, policy = _train_agent(recipe, recipe.agent, result, run, device)
    fidelity = measure_pong(result, run.validation) if recipe.game == "Pong" else {}
    write_snapshot(finished, result.config, packed, base.starts, fidelity, replace=True, policy=policy)
    return finished


def _model(recipe: RefitRecipe, base: Pretrained) -> TransformerWorldModel:
    """The model to fit, before anything is recorded for it."""
    model, environment, before = base.model, base.config.environment, base.config.provenance
    if not isinstance(model, TransformerWorldModel) or not isinstance(model.observation_model, GridObservationModel):
        raise RunError(f"base is {recipe.base}, but only models of the compact preset are fitted further.")
    assert isinstance(environment, AtariConfig)
    if environment != describe_game(recipe.game, model.config.reward_values):
        raise RunError(
            f"base is {recipe.base}, a model of {environment.name} with the options {environment.options} and the packages "
            f"{environment.packages}, but what is recorded here is plain {recipe.game} of the installed ones."
        )
    wanted = () if recipe.agent is None else recipe.agent.actions
    if unknown := sorted(set(wanted) - set(environment.action_meanings)):  # complains now, not when all is fitted
        raise RunError(
            f"agent.actions names {', '.join(unknown)}, but {recipe.game} has {', '.join(environment.action_meanings)}."
        )
    if untold := [name for name in _SUMMED if name not in before]:
        raise RunError(f"base is {recipe.base}, whose provenance does not tell {', '.join(untold)}.")
    return model


def _remembered(base: Pretrained, model: TransformerWorldModel) -> list[Episode]:
    """What the base still has of its recordings, so that it does not forget what agents did: starts from the middle of play."""
    observations, actions, rewards = base.starts.contexts("anywhere")
    older = model.observation_shape[0] - 1  # frames of the first stack, whose actions nobody knows
    episodes = []
    for stacks, taken, gained in zip(observations.numpy(), actions.numpy(), rewards.numpy(), strict=True):
        frames = np.concatenate([stacks[0], stacks[1:, -1]])
        taken = np.concatenate([np.full(older, model.config.num_actions), taken]).astype(np.uint8)
        gained = np.concatenate([np.zeros(older), gained]).astype(np.float32)
        episodes.append(Episode(frames, taken, gained, terminated=False, policy="", seed=0))
    return episodes


@torch.no_grad()
def _blend(model: TransformerWorldModel, before: dict[str, Tensor], share: float) -> None:
    for name, weights in model.dynamics.named_parameters():
        weights.copy_(before[name].lerp(weights, share))


def _train_agent(
    recipe: RefitRecipe, agent: AgentRecipe, finished: Pretrained, run: Fitting, device: str | torch.device
) -> tuple[Pretrained, Policy]:
    """Train a new agent in the finished model; the model, which now tells of it, and the agent."""
    folder, told = run.folder / "final", replace(finished.config, policy=None)
    if not (folder / "snapshot").exists():
        write_snapshot(folder / "snapshot", told, finished.model, finished.starts, {})
    description = PpoRun(
        id=str(folder / "snapshot"),
        num_envs=agent.num_envs,
        seed=recipe.seed,
        starts=agent.starts,
        max_episode_steps=agent.horizon,
        actions=agent.actions,
        bf16=True,
    )
    result = train_ppo(description, agent.ppo, folder / "agent", str(device), run.checkpoint_seconds)
    assert isinstance(finished.model, TransformerWorldModel)
    policy = pack_agent(load_agent(folder / "agent" / "agent.safetensors"), finished.model)
    agents = [*told.provenance["agents_in_the_real_game"], earned(result)]
    told = replace(told, policy=policy.config, provenance=told.provenance | {"agents_in_the_real_game": agents})
    return replace(finished, config=told), policy


def _provenance(recipe: RefitRecipe, base: SnapshotConfig, folder: Path) -> dict[str, Any]:
    """What the base was made from and with, and what came since; a recording that it knew is not counted again."""
    before = base.provenance
    recorded = None if _knew(base, recipe) else Experience.load(folder / "experience")
    return {
        "recipe": asdict(recipe) | {"base": model_digest(recipe.base)},
        "real_steps": before["real_steps"] + (len(recorded) if recorded else 0),
        "real_episodes": before["real_episodes"] + (len(recorded.episode_starts) if recorded else 0),
        "policies": sorted({*before["policies"], *(recorded.policies if recorded else ())}),
        "agents_in_the_real_game": before["agents_in_the_real_game"],
        **provenance(),
        "base": before,
    }


def _knew(base: SnapshotConfig, recipe: RefitRecipe) -> bool:
    """Whether the base was trained on the very recording: the same steps of the same seed."""
    recorded = base.provenance.get("recipe", {}).get("experience", {})
    return (recorded.get("steps"), recorded.get("seed")) == (recipe.experience.steps, recipe.experience.seed)
