"""Atari 100k: an agent and its world model learn a game from 100,000 interactions.

``python -m training atari100k --game Pong --seed 0`` plays 5,000 random steps, pretrains on them, and then lets acting, world
model and agent take turns (Robine et al., ICLR 2023, algorithm 1). It ends with 100 judged games and a snapshot that holds the
world model and the agent.
"""

from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from learned_envs.errors import SnapshotError
from learned_envs.files import write_json
from learned_envs.snapshot import SnapshotConfig, write_snapshot
from learned_envs.twm.world_model import TransformerWorldModel
from training.agents.actor_critic import ActorCritic
from training.agents.collector import Collector, evaluate
from training.agents.compact_world import CompactWorld
from training.agents.paper_world import PaperWorld
from training.agents.replay import AgentReplay
from training.agents.requirements import check_disk, check_memory
from training.agents.world import World
from training.atari100k_config import Atari100kConfig
from training.loop import RunError, open_run, read_json, run_stage, update_seed
from training.provenance import provenance
from training.twm.package import describe_game, start_bank

__all__ = ["train"]

_VERSION = 1  # of the checkpoints: runs of another cannot be resumed


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
    description = {"atari100k": _VERSION, **asdict(config), "ale_py": version("ale-py")}
    if result.is_file() and (folder / "snapshot" / "config.json").is_file():
        open_run(folder, description)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        run = _Run(config, folder, torch.device(device))  # refuses what cannot be trained before the folder is claimed
        open_run(folder, description)
        for stage in run.stages():
            run_stage(stage, folder, config.seed, checkpoint_seconds)
        run.finish()
    for checkpoint in folder.glob("*.pt"):  # the snapshot holds what is wanted of them
        checkpoint.unlink()
    return read_json(result)


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
        self._package(read_json(path))

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
