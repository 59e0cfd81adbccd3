"""One agent, trained in imagination or in reality and judged in both every so often.

A training goes from evaluation to evaluation in stretches. Each begins with new episodes, and with random numbers seeded by the
seed of the training and the number of the stretch. So an interrupted training goes on from the last evaluation, and ends where
an uninterrupted one does.
"""

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize

from learned_envs.files import new_folder, write_json
from learned_envs.transfer.agents import RandomAgent, Settings

__all__ = ["Evaluation", "Judges", "Training", "read"]

Content = TypeVar("Content")

_JUDGES_SEED = 1_000_000
_SCHEDULES = ("lr_schedule", "exploration_schedule")


@dataclass(frozen=True)
class Evaluation:
    """Whole episodes of an agent in imagination and in reality.

    Args:
        steps: Steps that it was trained for.
        imagined: Undiscounted returns in the learned environment.
        real: Undiscounted returns in the real one.
    """

    steps: int
    imagined: tuple[float, ...]
    real: tuple[float, ...]


@dataclass(frozen=True)
class Judges:
    """Where agents are judged.

    Args:
        imagined: Learned environments.
        real: Their real twins.
        episodes: Episodes in each.
    """

    imagined: VecEnv
    real: VecEnv
    episodes: int

    def judge(
        self, agent: Any, steps: int, seed: int, greedy: bool = True, scale: VecNormalize | None = None
    ) -> Evaluation:
        """Let an agent play, always from the same seeds.

        Args:
            agent: Who plays.
            steps: Steps that it was trained for.
            seed: Seed of what it draws.
            greedy: Whether it takes its most likely actions.
            scale: What brought the observations to one scale while it was trained.
        """
        found = []
        for envs in (self.imagined, self.real):
            set_random_seed(seed)
            envs.seed(_JUDGES_SEED)
            seen = envs if scale is None else _scaled_like(scale, envs)
            returns, _ = evaluate_policy(agent, seen, self.episodes, greedy, return_episode_rewards=True, warn=False)
            found.append(tuple(map(float, returns)))  # type: ignore[arg-type]
        return Evaluation(steps, *found)

    def judge_random(self, seed: int) -> Evaluation:
        """What random actions earn."""
        return self.judge(RandomAgent(self.real, seed), 0, seed)


class Training:
    """An agent in one environment.

    Args:
        folder: Where it is kept; a training that is found there is gone on with.
        settings: How the agent is set up.
        make_envs: Makes the environments that it is trained in.
        control: Whether the end of the time is part of the problem, so that nothing follows it; else rewards are those of a game,
            of which an agent is told the sign alone.
        steps: Steps in all, of all environments; rounded down to what the agent takes at once.
        evaluations: How often it is judged.
        seed: Seed of everything.
        device: Where the agent computes.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        make_envs: Callable[[], VecEnv],
        control: bool,
        steps: int,
        evaluations: int,
        seed: int,
        device: str,
    ) -> None:
        self.folder, self.settings, self.control = folder, settings, control
        self.make_envs, self.seed, self.device = make_envs, seed, device
        if steps < settings.fewest:
            raise ValueError(f"steps is {steps:,}, but {settings.needs}.")
        chunk = settings.chunk
        chunks = steps // chunk
        evaluations = min(evaluations, chunks)
        self.ends = [chunks * number // evaluations * chunk for number in range(1, evaluations + 1)]
        self.evaluations = self._found()

    @property
    def steps_done(self) -> int:
        """Steps that are behind it."""
        return self.evaluations[-1].steps if self.evaluations else 0

    @property
    def steps(self) -> int:
        """Steps in all."""
        return self.ends[-1]

    def run(
        self, judges: Judges, progress: Callable[[int], None], judged: Callable[[Evaluation], None]
    ) -> list[Evaluation]:
        """Go on to the end.

        Args:
            judges: Where the agent is judged.
            progress: Told how many steps more were taken.
            judged: Told of every evaluation: those of earlier calls, and new ones once they are kept.

        Returns:
            All evaluations, also those of earlier calls.
        """
        for each in self.evaluations:
            judged(each)
        if len(self.evaluations) == len(self.ends):
            return self.evaluations
        task = _Task(self.make_envs(), self.control)
        envs = self._scaled(task) if self.control else task
        agent = self._load_agent(envs)
        while (number := len(self.evaluations)) < len(self.ends):
            seed = int(np.random.SeedSequence([self.seed, number]).generate_state(1)[0] % 2**31)
            agent.set_env(envs)  # begins new episodes
            agent.set_random_seed(seed)
            self._set_schedules(agent)
            agent.learn(self.ends[number] - agent.num_timesteps, _Progress(progress), reset_num_timesteps=False)
            scale = envs if isinstance(envs, VecNormalize) else None
            found = judges.judge(agent, agent.num_timesteps, seed, self.settings.greedy, scale)
            self._keep(agent, scale, [*self.evaluations, found])
            judged(found)
        envs.close()
        return self.evaluations

    def _scaled(self, envs: VecEnv) -> VecNormalize:
        path = self._checkpoint(len(self.evaluations)) / "scale.pkl"
        return VecNormalize.load(str(path), envs) if path.exists() else VecNormalize(envs)

    def _load_agent(self, envs: VecEnv) -> BaseAlgorithm:
        algorithm, folder = self.settings.algorithm_class, self._checkpoint(len(self.evaluations))
        if not self.evaluations:
            keywords = {name: dict(v) if isinstance(v, dict) else v for name, v in self.settings.keywords.items()}
            return algorithm(env=envs, seed=self.seed, device=self.device, **keywords)  # type: ignore[call-arg]
        if not folder.is_dir():
            raise ValueError(
                f"{folder} is missing, which the training goes on from. Remove {self.folder} to begin it anew."
            )
        agent = algorithm.load(folder / "agent.zip", envs, device=self.device)
        if isinstance(agent, OffPolicyAlgorithm):
            agent.load_replay_buffer(folder / "buffer.pkl")
        return agent

    def _set_schedules(self, agent: BaseAlgorithm) -> None:
        """By the share of the whole training, not of the stretch, which is all that `learn` knows."""
        if self.settings.anneal:
            rate = float(agent.learning_rate)  # type: ignore[arg-type]
            agent.lr_schedule = lambda _: rate * (1 - agent.num_timesteps / self.steps)
        if hasattr(agent, "exploration_schedule"):
            explored: Any = agent
            first, last, share = (
                explored.exploration_initial_eps,
                explored.exploration_final_eps,
                explored.exploration_fraction,
            )
            explored.exploration_schedule = lambda _: max(
                last, first + (last - first) * agent.num_timesteps / (share * self.steps)
            )

    def _checkpoint(self, number: int) -> Path:
        return self.folder / f"checkpoint-{number}"

    def _keep(self, agent: BaseAlgorithm, scale: VecNormalize | None, evaluations: list[Evaluation]) -> None:
        """Write the agent, then what tells that it is there, then remove the last one."""
        target = self._checkpoint(len(evaluations))
        with new_folder(target, replace=True) as partial:
            agent.save(partial / "agent.zip", exclude=[name for name in _SCHEDULES if hasattr(agent, name)])
            if scale is not None:
                scale.save(str(partial / "scale.pkl"))
            if isinstance(agent, OffPolicyAlgorithm):
                agent.save_replay_buffer(partial / "buffer.pkl")
        write_json(self.folder / "evaluations.json", [asdict(each) for each in evaluations])
        shutil.rmtree(self._checkpoint(len(self.evaluations)), ignore_errors=True)
        self.evaluations = evaluations

    def _found(self) -> list[Evaluation]:
        path = self.folder / "evaluations.json"
        if not path.exists():
            return []
        return read(path, TypeAdapter(list[Evaluation]))


def read(path: Path, kind: TypeAdapter[Content]) -> Content:
    """Read what an earlier call wrote.

    Raises:
        ValueError: If the file holds something else.
    """
    try:
        return kind.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(
            f"{path} is damaged, or belongs to something else. Remove it, or use another folder."
        ) from error


class _Task(VecEnvWrapper):
    """What an agent is told while it learns: of games the sign of rewards, of control problems that nothing follows their end."""

    def __init__(self, envs: VecEnv, control: bool) -> None:
        super().__init__(envs)
        self._control = control

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        observations, rewards, dones, infos = self.venv.step_wait()
        if not self._control:
            return observations, np.sign(rewards), dones, infos
        for info in infos:
            info["TimeLimit.truncated"] = False
        return observations, rewards, dones, infos


class _Progress(BaseCallback):
    def __init__(self, progress: Callable[[int], None]) -> None:
        super().__init__()
        self._progress = progress

    def _on_step(self) -> bool:
        self._progress(self.training_env.num_envs)
        return True


def _scaled_like(scale: VecNormalize, envs: VecEnv) -> VecNormalize:
    wrapped = VecNormalize(envs, training=False, norm_reward=False)
    wrapped.obs_rms = scale.obs_rms
    return wrapped
