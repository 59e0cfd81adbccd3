"""Train an agent by PPO and judge it in the real environment: ``python -m training ppo ID``.

The folder of a run holds ``run.json`` (what was asked for), a checkpoint, logs for TensorBoard and, at the end, the agent,
``agent.safetensors``, and ``result.json``. The same command resumes a run, or returns at once when it is finished.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import tyro
from gymnasium.vector import VectorEnv

from learned_envs.device import parse_device
from learned_envs.envs.real.control import SystemVectorEnv
from learned_envs.envs.real.twin import make_real, make_real_vec
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.files import write_json
from learned_envs.starts import StartKind
from training.agents.agent import Agent, AgentConfig, AgentError, load_agent, save_agent
from training.agents.ppo import PpoConfig, PpoStage
from training.loop import open_run, read_json, run_stage
from training.provenance import digest, model_digest, provenance
from training.ranges import check_ranges

__all__ = ["PpoRun", "earned", "train_ppo"]


@dataclass(frozen=True)
class PpoRun:
    """A training of an agent.

    Args:
        id: Id of the learned environment, folder of a snapshot, or repository on the Hub.
        num_envs: Environments side by side.
        seed: Seed of everything.
        real: Whether to train in the real environment instead of the learned one.
        starts: Where imagined episodes begin: "initial" at the beginnings of real ones, "anywhere" in recorded play.
        max_episode_steps: Steps after which imagined episodes are truncated; left out, as in the real environment.
        agent: Agent to go on from; left out, a new one.
        actions: Actions of a game that a new agent takes, by their words, such as NOOP RIGHT LEFT; left out, all.
        channels: Channels of the convolutions of a new agent.
        hidden: Width of a new agent.
        bf16: Whether a new agent computes in bfloat16 where the device has it, twice as fast on newer CPUs.

    Raises:
        ValueError: If a number lies outside its range, or a setting does not go with ``real``.
    """

    id: tyro.conf.Positional[str]
    num_envs: int = 64
    seed: int = 0
    real: bool = False
    starts: StartKind = "initial"
    max_episode_steps: int | None = None
    agent: str | None = None
    actions: tuple[str, ...] = ()
    channels: tuple[int, int, int] = (16, 32, 32)
    hidden: int = 256
    bf16: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, counts=("num_envs", "hidden"))
        if self.agent is not None and self.actions:
            raise ValueError("actions are of a new agent: leave them out where an agent goes on.")
        if self.real and (self.starts != "initial" or self.max_episode_steps is not None):
            raise ValueError("starts and max_episode_steps are of imagined episodes: leave them out with real.")

    def describe(self) -> dict[str, Any]:
        """What tells this training from others: model and agent by what is in their files, wherever they lie.

        Raises:
            ValueError: If there is no such model.
        """
        description = asdict(self)
        if not self.real:
            description["id"] = model_digest(self.id)
        if self.agent is not None and Path(self.agent).is_file():
            description["agent"] = digest(Path(self.agent))
        return description

    def make_envs(self, device: torch.device) -> VectorEnv:
        """Where the agent is trained."""
        if self.real:
            return make_real_vec(self.id, self.num_envs)
        limit = self.max_episode_steps
        return LearnedVectorEnv(
            self.id, self.num_envs, device=device, output="torch", starts=self.starts, max_episode_steps=limit
        )

    def make_agent(self, envs: VectorEnv) -> Agent:
        """Who is trained.

        Raises:
            AgentError: If an agent that exists does not fit the environments, or an action is unknown.
        """
        sizes = {"channels": self.channels, "hidden": self.hidden, "bf16": self.bf16}
        spaces = envs.single_observation_space, envs.single_action_space
        if self.agent is None:
            agent = Agent(AgentConfig.of(*spaces, **sizes))
            if self.actions:
                agent.take_only(_numbers(self.actions, self.id))
            return agent
        agent = load_agent(Path(self.agent))
        agent.check_fits(*spaces)
        return agent


def train_ppo(
    run: PpoRun, config: PpoConfig, folder: Path, device: str = "cpu", checkpoint_seconds: float = 120.0
) -> dict[str, Any]:
    """Train an agent, or go on with a training.

    Args:
        run: Who is trained, and where.
        config: How.
        folder: Folder of the run; where it is finished, its result is read.
        device: Where the agent and the learned environment compute.
        checkpoint_seconds: Time between two checkpoints.

    Returns:
        What ``result.json`` says: for each evaluation the steps before it, mean, standard deviation and number of episodes,
        their returns and lengths, in the real environment; and where that comes from.

    Raises:
        AgentError: If agent and environment do not fit, an agent cannot be read, or it is not known what follows after the
            ends of episodes.
        RunError: If the folder belongs to another run.
    """
    target = parse_device(device)
    description = run.describe() | asdict(config)
    path = folder / "result.json"
    if path.exists():
        open_run(folder, description)
        return read_json(path)
    torch.manual_seed(run.seed)
    envs = run.make_envs(target)
    judges = make_real_vec(run.id, min(config.evaluation_episodes, 16))
    agent = run.make_agent(envs).to(target)
    config = replace(config, truncation_ends=_truncation_ends(run, config, judges.unwrapped))
    open_run(folder, description)
    stage = PpoStage(config, agent, envs, run.seed, judges)
    run_stage(stage, folder, run.seed, checkpoint_seconds)
    save_agent(agent, folder / "agent.safetensors")
    evaluations = [
        {"steps": steps, "mean": each.mean, "sd": each.sd, "episodes": each.episodes, **asdict(each)}
        for steps, each in stage.evaluations
    ]
    write_json(path, {"run": asdict(run) | asdict(config), "evaluations": evaluations, "provenance": provenance()})
    for each in (envs, judges):
        each.close()
    return read_json(path)


def earned(result: dict[str, Any]) -> dict[str, float]:
    """What an agent earned at last, in short: steps before that, mean, standard deviation and number of episodes."""
    return {name: result["evaluations"][-1][name] for name in ("steps", "mean", "sd", "episodes")}


def _numbers(actions: tuple[str, ...], id: str) -> set[int]:
    """The numbers that a game has for actions."""
    game = make_real(id)
    words = game.unwrapped.get_action_meanings() if hasattr(game.unwrapped, "get_action_meanings") else []  # type: ignore[attr-defined]
    game.close()
    if unknown := sorted(set(actions) - set(words)):
        known = f"those of {id} are {', '.join(words)}" if words else f"those of {id} have no words"
        raise AgentError(f"There is no action {', '.join(unknown)}: {known}.")
    return {words.index(action) for action in actions}


def _truncation_ends(run: PpoRun, config: PpoConfig, twin: VectorEnv) -> bool:
    """Whether nothing follows where episodes are truncated, where the caller leaves that open."""
    if config.truncation_ends is not None or not isinstance(twin, SystemVectorEnv):
        return bool(config.truncation_ends)
    # The time of a control problem is part of it, and of what is observed.
    limit, horizon = run.max_episode_steps, twin.system.horizon
    if limit is None or limit >= horizon:
        return True
    if run.starts == "anywhere":
        raise AgentError(
            f"Episodes that begin anywhere would end after {limit} steps, and something follows, or at the horizon, and nothing "
            "does. Leave out max_episode_steps, begin at the start, or set truncation_ends."
        )
    return False
