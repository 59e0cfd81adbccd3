"""Atari 100k: an agent and its world model learn a game from 100,000 interactions.

``python -m training atari100k --game Pong --seed 0`` plays 5,000 random steps, pretrains on them, and then lets acting, world
model and agent take turns (Robine et al., ICLR 2023, algorithm 1). It ends with 100 judged games and a snapshot that holds the
world model and the agent.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from learned_envs.catalog import CATALOG
from learned_envs.errors import SnapshotError
from learned_envs.files import write_json
from learned_envs.snapshot import SnapshotConfig, write_snapshot
from learned_envs.twm.config import TwmConfig, compact, faithful
from learned_envs.twm.world_model import TransformerWorldModel
from training.agents.actor_critic import ActorCritic, ActorCriticTraining
from training.agents.collector import Collector, evaluate
from training.agents.replay import AgentReplay
from training.agents.requirements import check_disk, check_memory
from training.agents.worlds import CompactTraining, CompactWorld, PaperTraining, PaperWorld, World
from training.loop import RunError, open_run, run_stage, update_seed
from training.provenance import provenance
from training.ranges import check_ranges
from training.twm.package import describe_game, reward_classes, start_bank

__all__ = ["GAMES", "Ablation", "Atari100kConfig", "ablated", "game_names", "in_float32", "preset", "reduced", "train"]

GAMES = tuple(entry.real[1] for entry in CATALOG.values() if entry.real[0] == "atari")
_VERSION = 1  # of the checkpoints: runs of another cannot be resumed

Preset = Literal["faithful", "compact"]
Ablation = Literal[
    "no-reward-tokens", "uniform-sampling", "short-memory", "plain-entropy", "policy-on-features", "no-consistency"
]


@dataclass(frozen=True)
class Atari100kConfig:
    """A whole run. The defaults are those of the paper.

    Args:
        game: ALE name of the game.
        seed: Seed of everything.
        preset: ``"faithful"``, the paper's model and schedule, or ``"compact"``, ours for two CPU cores.
        steps: Interactions in all, four emulator frames each.
        prefill: Interactions with random actions, before any training; part of ``steps``.
        updates: Updates of world model and agent, spread evenly over the other interactions.
        history: Steps that the transformer looks back on before the current one; None for the preset's.
        reward_tokens: Whether the transformer is told rewards.
        paper: Schedule of the faithful world model.
        compact: Schedule of the compact one.
        agent: How the agent learns.
        evaluate_every: Interactions between two evaluations; the first comes right after pretraining.
        evaluation_games: Games of each.
        final_games: Games of the last one, whose mean is the score of the run.

    Raises:
        ValueError: If the numbers of steps make no run.
    """

    game: str
    seed: int = 0
    preset: Preset = "faithful"
    steps: int = 100_000
    prefill: int = 5_000
    updates: int = 125_000
    history: int | None = None
    reward_tokens: bool = True
    paper: PaperTraining = field(default_factory=PaperTraining)
    compact: CompactTraining = field(default_factory=CompactTraining)
    agent: ActorCriticTraining = field(default_factory=ActorCriticTraining)
    evaluate_every: int = 5_000
    evaluation_games: int = 10
    final_games: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.prefill < self.steps:
            raise ValueError(f"prefill is {self.prefill}, but must lie between 1 and steps - 1, {self.steps - 1}.")
        check_ranges(self, counts=("updates", "evaluate_every", "evaluation_games", "final_games"))

    def model(self, num_actions: int, rewards: np.ndarray) -> TwmConfig:
        """Sizes of the world model, for a game with so many actions that gave such rewards in random play."""
        if self.preset == "faithful":
            config = faithful(num_actions)
        else:
            config = compact(num_actions, reward_classes(np.append(rewards, [-1.0, 1.0])))
        context = config.context if self.history is None else self.history + 1
        return replace(config, context=context, reward_tokens=self.reward_tokens)

    def interactions_before(self, update: int) -> int:
        """Interactions that precede an update."""
        return self.prefill + -(-(self.steps - self.prefill) * (update + 1) // self.updates)


def preset(name: Preset, game: str, seed: int = 0) -> Atari100kConfig:
    """A run as it is meant to be.

    Args:
        name: ``"faithful"`` or ``"compact"``.
        game: ALE name of the game.
        seed: Seed of everything.
    """
    if name == "faithful":
        return Atari100kConfig(game, seed)
    agent = ActorCriticTraining(
        starts=128,
        hidden=(256, 256),
        actor_learning_rate=3e-4,
        critic_learning_rate=3e-4,
        entropy_weight=0.02,
        entropy_threshold=1.0,
        normalize=True,
    )
    updates = 9_500
    schedule = CompactTraining()
    schedule = replace(schedule, online=replace(schedule.online, updates=updates))
    return Atari100kConfig(game, seed, "compact", updates=updates, agent=agent, compact=schedule)


def ablated(config: Atari100kConfig, ablations: tuple[Ablation, ...]) -> Atari100kConfig:
    """A run without parts of the method (Robine et al., ICLR 2023, section 3.3).

    Args:
        config: A faithful run.
        ablations: Which parts: ``"no-reward-tokens"``, reward tokens say nothing; ``"uniform-sampling"`` of sequences;
            ``"short-memory"``, the transformer looks back on 4 steps instead of 16; ``"plain-entropy"``, an entropy bonus
            without threshold; ``"policy-on-features"``, the agent also sees the transformer's feature;
            ``"no-consistency"``, the encoder is not drawn towards what was predicted.

    Raises:
        RunError: If the preset is not faithful, or an ablation is unknown.
    """
    if ablations and config.preset != "faithful":
        raise RunError(
            f"Ablations are of the paper's method, but the preset is {config.preset!r}. Use --preset faithful."
        )
    for name in ablations:
        paper, agent = config.paper, config.agent
        match name:
            case "no-reward-tokens":
                config = replace(config, reward_tokens=False)
            case "uniform-sampling":
                config = replace(config, paper=replace(paper, balance=None))
            case "short-memory":
                config = replace(config, history=4)
            case "plain-entropy":
                config = replace(config, agent=replace(agent, entropy_threshold=1.0))
            case "policy-on-features":
                config = replace(config, agent=replace(agent, on_features=True))
            case "no-consistency":
                joint = replace(paper.joint, consistency_weight=0.0)
                config = replace(config, paper=replace(paper, joint=joint))
            case _:
                raise RunError(f"There is no ablation {name!r}. Known: {', '.join(get_args(Ablation))}.")
    return config


def reduced(config: Atari100kConfig, interactions: int | None, updates: int | None) -> Atari100kConfig:
    """A run with another number of interactions or updates, where one is given."""
    updates = config.updates if updates is None else updates
    online = replace(config.compact.online, updates=updates)
    return replace(
        config,
        steps=config.steps if interactions is None else interactions,
        updates=updates,
        compact=replace(config.compact, online=online),
    )


def in_float32(config: Atari100kConfig) -> Atari100kConfig:
    """A run that computes in float32 throughout."""
    paper = replace(config.paper, joint=replace(config.paper.joint, bfloat16=False))
    stages = {
        name: replace(getattr(config.compact, name), bfloat16=False) for name in ("observation", "dynamics", "online")
    }
    return replace(config, paper=paper, compact=replace(config.compact, bfloat16=False, **stages))


def game_names(given: str) -> tuple[str, ...]:
    """The games that a comma-separated list names; ``"all"`` names the 26 of Atari 100k.

    Raises:
        RunError: If there is no such game; the message suggests the nearest names.
    """
    if given == "all":
        return GAMES
    names = tuple(name.strip() for name in given.split(","))
    for name in names:
        if name not in GAMES:
            by_lower = {game.lower(): game for game in GAMES}
            near = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: all, {', '.join(GAMES)}."
            raise RunError(f"Atari 100k has no game {name!r}. {hint}")
    return names


def train(
    config: Atari100kConfig, folder: Path, device: torch.device | str = "cpu", checkpoint_seconds: float = 120.0
) -> dict[str, Any]:
    """Train an agent, or go on with its training.

    Args:
        config: What to do.
        folder: Folder of the run. In it: ``run.json``, checkpoints (until the run is finished), ``experience/``, ``logs/`` for
            TensorBoard, ``result.json`` and the ``snapshot/``.
        device: Where to train.
        checkpoint_seconds: Time between two checkpoints.

    Returns:
        What ``result.json`` says: the score, all evaluations, and where they come from.

    Raises:
        RunError: If the folder belongs to another run, or disk or device have not enough room.
    """
    result = folder / "result.json"
    open_run(folder, {"atari100k": _VERSION, **asdict(config), "ale_py": version("ale-py")})
    if result.is_file() and (folder / "snapshot" / "config.json").is_file():
        return json.loads(result.read_text())
    run = _Run(config, folder, torch.device(device))
    for stage in run.stages():
        run_stage(stage, folder, config.seed, checkpoint_seconds)
    run.finish()
    for checkpoint in folder.glob("*.pt"):  # the snapshot holds what is wanted of them
        checkpoint.unlink()
    return json.loads(result.read_text())


class _Run:
    """Everything that one run needs."""

    def __init__(self, config: Atari100kConfig, folder: Path, device: torch.device) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.num_actions = describe_game(config.game, ()).num_actions
        sizes = config.model(self.num_actions, np.zeros(0))
        check_memory(config.agent, sizes, config.steps, config.paper.joint.batch, config.paper.length, device)
        check_disk(sizes, config.steps, folder)
        self.replay = AgentReplay(config.steps, device=device)
        self.collector = Collector(config.game, config.seed, self.replay)
        self.world: World
        self.agent: ActorCritic
        self.evaluations: list[dict[str, Any]] = []

    def stages(self) -> Iterator[Any]:
        """Prefill, pretraining, and the main loop."""
        yield _Prefill(self)
        self.replay.sync()
        self._build()
        yield from self.world.pretraining(self.config.seed)
        yield _MainLoop(self)

    def _build(self) -> None:
        config = self.config
        torch.manual_seed(update_seed(config.seed, "weights", 0))
        rewards = self.replay.arrays["rewards"][: config.prefill]
        self.model = TransformerWorldModel(config.model(self.num_actions, rewards)).to(self.device)
        joint = config.paper.joint
        self.agent = ActorCritic(self.model, config.agent, joint.bfloat16, joint.fused)
        if config.preset == "faithful":
            self.world = PaperWorld(self.model, self.replay, self.agent, config.paper)
        else:
            self.world = CompactWorld(self.model, self.replay, self.agent, config.compact)

    def evaluate(self, games: int, progress: bool = False) -> dict[str, Any]:
        """Judge the agent as it is; the generator that training draws from is left alone."""
        self.model.eval()
        seed = update_seed(self.config.seed, "evaluation", len(self.replay))
        scores = evaluate(self.agent.policy, self.config.game, games, seed, self.device, progress)
        return {"steps": len(self.replay), "mean": float(np.mean(scores)), "scores": scores}

    def finish(self) -> None:
        """The last evaluation, the result and the snapshot."""
        path = self.folder / "result.json"
        with torch.no_grad():  # what is judged is what is written: half precision
            for module in (self.model, self.agent.policy.actor):
                for tensor in module.state_dict().values():
                    tensor.copy_(tensor.half())
        if not path.is_file():
            write_json(path, self._result())
        self._package(json.loads(path.read_text()))

    def _result(self) -> dict[str, Any]:
        config = self.config
        final = self.evaluate(config.final_games, progress=True)
        return {
            "format": "learned_envs.atari100k",
            "version": _VERSION,
            "game": config.game,
            "seed": config.seed,
            "preset": config.preset,
            "score": final["mean"],
            "scores": final["scores"],
            "evaluations": self.evaluations,
            "interactions": len(self.replay),
            "uncounted_emulator_frames": self.collector.uncounted_frames,
            "config": asdict(config),
            "provenance": provenance(),
        }

    def _package(self, result: dict[str, Any]) -> None:
        told = {key: result[key] for key in ("score", "seed", "preset", "interactions", "config", "provenance")}
        model = self.model.cpu().eval()
        real = describe_game(self.config.game, model.config.reward_values, terminal_on_life_loss=True)
        learned_from = {"atari100k": told, "real_steps": len(self.replay)}
        snapshot = SnapshotConfig(
            f"Learned{self.config.game}-v0", "twm", model.config, real, learned_from, self.agent.policy.config
        )
        starts = start_bank(self.replay.experience(), model.config.observation.stack)
        policy = self.agent.policy.cpu()
        try:
            write_snapshot(self.folder / "snapshot", snapshot, model, starts, {}, replace=True, policy=policy)
        except (OSError, SnapshotError) as error:
            raise RunError(
                f"The snapshot could not be written to {self.folder} ({error}). Make room, and run it again."
            ) from error


class _Prefill:
    """Random play."""

    name, log_every = "prefill", 10
    _each = 100  # steps of an update

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.updates = -(-run.config.prefill // self._each)

    def update(self, step: int) -> dict[str, Tensor]:
        until = min((step + 1) * self._each, self.run.config.prefill)
        while len(self.run.replay) < until:
            self.run.collector.random_step()
        rewards = self.run.replay.arrays["rewards"][: len(self.run.replay)]
        return {"prefill/reward": torch.tensor(rewards.mean())}

    def visualize(self, step: int) -> dict[str, Tensor]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return _played(self.run)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _play_again(self.run, state, random=True)


class _MainLoop:
    """Acting, world model and agent in turns."""

    name, log_every = "agent", 50

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.updates = run.config.updates
        self._scores: SummaryWriter | None = None

    def update(self, step: int) -> dict[str, Tensor]:
        run = self.run
        if step == 0:
            self._evaluate()
        self._act(run.config.interactions_before(step))
        world = run.world.update(step)
        agent = run.agent.update(run.world.imagine())
        metrics = {f"world/{name}": value for name, value in world.items()}
        return {**metrics, **{f"agent/{name}": value for name, value in agent.items()}}

    def _act(self, until: int) -> None:
        run = self.run
        run.model.eval()
        while len(run.replay) < until:
            score = run.collector.step(run.agent.policy)
            if score is not None:
                self._log("score/training", score)
            if len(run.replay) % run.config.evaluate_every == 0:
                self._evaluate()
        run.replay.sync()

    def _evaluate(self) -> None:
        run = self.run
        run.evaluations.append(run.evaluate(run.config.evaluation_games))
        self._log("score/evaluation", run.evaluations[-1]["mean"])

    def _log(self, name: str, value: float) -> None:
        """Scores are drawn over interactions."""
        run = self.run
        if self._scores is None:  # what a killed run wrote after its last checkpoint is written again
            folder = str(run.folder / "logs" / "scores")
            self._scores = SummaryWriter(folder, purge_step=len(run.replay), flush_secs=10)
        self._scores.add_scalar(name, value, len(run.replay))

    def visualize(self, step: int) -> dict[str, Tensor]:
        return {"reconstructions": self.run.world.picture()}

    def state_dict(self) -> dict[str, Any]:
        run = self.run
        return {
            **_played(run),
            "world": run.world.state_dict(),
            "agent": run.agent.state_dict(),
            "evaluations": run.evaluations,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        run = self.run
        _play_again(run, state)
        run.world.load_state_dict(state["world"])
        run.agent.load_state_dict(state["agent"])
        run.evaluations = state["evaluations"]


def _played(run: _Run) -> dict[str, Any]:
    steps = run.replay.save(run.folder / "experience")
    return {"run": _identity(run), "steps": steps, "collector": run.collector.state_dict()}


def _identity(run: _Run) -> dict[str, Any]:
    config = run.config
    return {"version": _VERSION, "game": config.game, "preset": config.preset, "seed": config.seed}


def _play_again(run: _Run, state: dict[str, Any], random: bool = False) -> None:
    if state["run"] != _identity(run):
        found, wanted = (
            ", ".join(f"{key} {value}" for key, value in given.items()) for given in (state["run"], _identity(run))
        )
        raise RunError(
            f"A checkpoint in {run.folder} is of another run: of {found}, not of {wanted}. Use another --run folder."
        )
    run.replay.load(run.folder / "experience", state["steps"])
    run.collector.load_state_dict(state["collector"], None if random else run.agent.policy)
    run.replay.sync()
