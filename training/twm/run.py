"""Make a transformer world model from nothing: record, fit, let agents play, measure, package.

``python -m training twm --recipe pong``. Every step leaves its result in the run's folder and is skipped when it is found
there, so that the same command resumes a run that was interrupted.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from learned_envs.pretrained import Pretrained
from learned_envs.snapshot import SnapshotConfig, write_snapshot
from learned_envs.twm.observation_model import GridObservationModel
from learned_envs.twm.world_model import TransformerWorldModel
from training.agents.agent import load_agent
from training.agents.ppo import PpoConfig
from training.agents.run import PpoRun, earned, train_ppo
from training.collect import CollectConfig, collect
from training.experience import Experience
from training.loop import open_run, run_stage
from training.provenance import provenance
from training.recipe import TwmRecipe
from training.twm.fidelity import measure_pong, recording
from training.twm.fitting import Fitting, record
from training.twm.joint import JointStage
from training.twm.observation import DecoderStage, ObservationStage
from training.twm.package import describe_game, pack_agent, pack_model, reward_classes, start_bank

__all__ = ["train"]


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
    finished = folder / "snapshot"
    if finished.exists():
        return finished
    experience, unseen = record(recipe.game, recipe.experience, folder)
    run = _Run(
        recipe=recipe,
        folder=folder,
        seed=recipe.seed,
        experience=Experience.load(experience),
        validation=Experience.load(unseen),
        checkpoint_seconds=checkpoint_seconds,
    )
    model = _new_model(recipe, run.experience).to(device)
    start_bank(run.experience, model.observation_shape[0])  # complains now, not when all is trained
    if recipe.game == "Pong":
        recording(run.validation, 1, model.observation_shape[0])
    if recipe.preset == "compact":
        _fit_compact(model, run)
    else:
        run_stage(JointStage(model, run.experience, recipe.joint), folder, recipe.seed, checkpoint_seconds)
    if recipe.agent is not None:
        _train_agent(model, run, folder / "final", recipe.agent, model.config.temperature)
    agent = run.agent if recipe.agent is not None else None  # those of the rounds stay in the run
    return _package(model, run, finished, model.config.temperature, finished=True, agent=agent)


@dataclass(kw_only=True)
class _Run(Fitting):
    """A run of a recipe; its experience grows by what agents record."""

    recipe: TwmRecipe
    agents: list[dict[str, float]] = field(default_factory=list)
    agent: Path | None = None  # the newest


def _new_model(recipe: TwmRecipe, experience: Experience) -> TransformerWorldModel:
    values = reward_classes(experience.rewards)
    torch.manual_seed(recipe.seed)
    return TransformerWorldModel(recipe.model_config(describe_game(recipe.game, values).num_actions, values))


def _fit_compact(model: TransformerWorldModel, run: _Run) -> None:
    recipe = run.recipe
    assert isinstance(model.observation_model, GridObservationModel)
    frames = torch.from_numpy(run.experience.frames).to(model.reward_values.device)
    stage = ObservationStage(model.observation_model, frames, recipe.observation)
    run_stage(stage, run.folder, recipe.seed, run.checkpoint_seconds)
    run.fit(model, recipe.dynamics, "dynamics")
    for number in range(1, recipe.rounds.count + 1):
        _let_an_agent_play(model, run, number)
        if number < recipe.rounds.count:
            run.fit(model, recipe.rounds.refit, f"refit-{number}")
        else:
            _fit_all(model, run)


def _fit_all(model: TransformerWorldModel, run: _Run) -> None:
    """Fit all that was recorded: the decoder, then the dynamics, again and again; between two fits the agent goes on."""
    recipe, rounds = run.recipe, run.recipe.rounds
    assert isinstance(model.observation_model, GridObservationModel)
    if rounds.decoder:
        frames = torch.from_numpy(run.experience.frames).to(model.reward_values.device)
        stage = DecoderStage(model.observation_model, frames, rounds.decoder)
        run_stage(stage, run.folder, recipe.seed, run.checkpoint_seconds)
    for number, fit in enumerate(rounds.last_fits, start=1):
        run.fit(model, fit, f"refit-{rounds.count}" if number == 1 else f"refit-{rounds.count}-{number}")
        if number < len(rounds.last_fits) and recipe.agent is not None:
            _train_agent(model, run, run.folder / f"final-{number}", recipe.agent, model.config.temperature)


def _let_an_agent_play(model: TransformerWorldModel, run: _Run, number: int) -> None:
    """Train an agent in the model as it stands, and add what it does in the real game to the experience."""
    recipe, rounds = run.recipe, run.recipe.rounds
    folder = run.folder / f"round-{number}"
    temperature = model.config.temperature if rounds.temperature is None else rounds.temperature
    _train_agent(model, run, folder, rounds.ppo, temperature)
    seed = recipe.experience.seed + number
    collect(CollectConfig(recipe.game, rounds.real_steps, seed, rounds.games, str(run.agent)), folder / "experience")
    played = [run.folder / f"round-{each}" / "experience" for each in range(1, number + 1)]
    run.experience = Experience.load(run.folder / "experience", *played)


def _train_agent(model: TransformerWorldModel, run: _Run, folder: Path, ppo: PpoConfig, temperature: float) -> None:
    """Train an agent in the model as it stands, on from the last one, if there was one."""
    rounds = run.recipe.rounds
    if not (folder / "snapshot").exists():
        _package(model, run, folder / "snapshot", temperature)
    description = PpoRun(
        id=str(folder / "snapshot"),
        num_envs=rounds.num_envs,
        seed=run.recipe.seed,
        starts=rounds.starts,
        max_episode_steps=rounds.horizon,
        agent=None if run.agent is None else str(run.agent),
        bf16=True,
    )
    device = str(model.reward_values.device)
    result = train_ppo(description, ppo, folder / "agent", device, run.checkpoint_seconds)
    run.agents.append(earned(result))
    run.agent = folder / "agent" / "agent.safetensors"


def _package(
    model: TransformerWorldModel,
    run: _Run,
    target: Path,
    temperature: float,
    finished: bool = False,
    agent: Path | None = None,
) -> Path:
    recipe, packed = run.recipe, pack_model(model, temperature)
    policy = None if agent is None else pack_agent(load_agent(agent), packed)
    starts = start_bank(run.experience, model.observation_shape[0])
    environment = describe_game(recipe.game, packed.config.reward_values)
    told = SnapshotConfig(recipe.id, "twm", packed.config, environment, _provenance(run), policy and policy.config)
    measured = finished and recipe.game == "Pong"
    fidelity = measure_pong(Pretrained(packed, starts, told), run.validation) if measured else {}
    write_snapshot(target, told, packed, starts, fidelity, replace=True, policy=policy)
    return target


def _provenance(run: _Run) -> dict[str, Any]:
    experience = run.experience
    return {
        "recipe": asdict(run.recipe),
        "real_steps": len(experience),
        "real_episodes": len(experience.episode_starts),
        "policies": sorted(set(experience.policies)),
        "agents_in_the_real_game": run.agents,
        **provenance(),
    }
