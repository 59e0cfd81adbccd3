"""Record real experience: ``python -m training collect LearnedPong-v0 --steps 100000``.

Sixteen games run side by side. Each has its share of the steps and plays one episode after the other; an episode's game
and policy are seeded by (seed, game, episode) alone. So a recording that was interrupted and continued is the same, byte
for byte, as one that was not.
"""

import hashlib
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from tqdm import tqdm

from learned_envs.envs.real.atari import make_atari_vec
from training.agents.agent import Agent, load_agent
from training.experience import Episode, ExperienceError, read_manifest, write_manifest
from training.policies import AgentPolicy, Policy, mixture

__all__ = ["CollectConfig", "collect"]


@dataclass(frozen=True)
class CollectConfig:
    """What to record.

    Args:
        game: ALE name of the game.
        steps: Agent steps in all, four emulator frames each; a multiple of ``games``.
        seed: Seed of games and policies.
        games: How many games run side by side; each records ``steps // games`` steps.
        policy: File of the agent that plays, see `training.agents`; None for the mixture of policies that exist without one.
        epsilons: Shares of random actions of the agent; each episode draws one of them.

    Raises:
        ValueError: If ``steps`` is not a positive multiple of ``games``, or a share lies outside [0, 1].
    """

    game: str
    steps: int = 100_000
    seed: int = 0
    games: int = 16
    policy: str | None = None
    epsilons: tuple[float, ...] = (0.0, 0.05, 0.2)

    def __post_init__(self) -> None:
        if not self.epsilons or not all(0 <= epsilon <= 1 for epsilon in self.epsilons):
            raise ValueError(f"epsilons is {self.epsilons}, but must be one or more shares in [0, 1].")
        if self.games < 1 or self.steps < self.games or self.steps % self.games:
            raise ValueError(
                f"steps is {self.steps}, but must be a positive multiple of the {self.games} games that run side by side."
            )

    def describe(self) -> dict[str, Any]:
        """What tells this recording from others: without an agent, nothing of agents; with one, its content."""
        description = asdict(self) | {"epsilons": list(self.epsilons)}
        del description["policy"]
        if self.policy is None:
            del description["epsilons"]
            return description
        return description | {"policy_sha256": hashlib.sha256(Path(self.policy).read_bytes()).hexdigest()}


@dataclass(frozen=True)
class _Casting:
    """Who plays an episode."""

    config: CollectConfig
    num_actions: int
    agent: Agent | None

    def choose(self, rng: np.random.Generator) -> Policy:
        if self.agent is None:
            return mixture(self.config.game, self.num_actions, rng)
        epsilon = float(rng.choice(self.config.epsilons))
        return AgentPolicy(self.agent, epsilon, f"agent-{epsilon:g}")


class _Recorder:
    """The episode that one of the games is playing."""

    def __init__(self, casting: _Casting, slot: int, episode: int) -> None:
        sequence = np.random.SeedSequence([casting.config.seed, slot, episode])
        self.rng = np.random.default_rng(sequence)
        self.seed = int(sequence.generate_state(1)[0] % 2**31)
        self.policy = casting.choose(self.rng)
        self.slot, self.episode = slot, episode
        self.frames: list[np.ndarray] = []
        self.actions: list[int] = []
        self.rewards: list[float] = []

    @property
    def file_name(self) -> str:
        return f"episode-{self.slot:02d}-{self.episode:05d}.npz"

    def act(self) -> int:
        self.actions.append(self.policy.act(self.frames[-1], self.rng))
        return self.actions[-1]

    def finish(self, terminated: bool) -> Episode:
        return Episode(
            np.stack(self.frames),
            np.array(self.actions, np.uint8),
            np.array(self.rewards, np.float32),
            terminated,
            self.policy.name,
            self.seed,
        )


def collect(config: CollectConfig, folder: Path) -> None:
    """Record, or go on with, the experience described by ``config``.

    Args:
        config: What to record.
        folder: Where the episodes go; one folder a recording.

    Raises:
        ExperienceError: If ``folder`` already holds another recording, or one of another version of ale-py.
        AgentError: If the agent cannot be read, or is one for another game.
    """
    agent = None if config.policy is None else load_agent(Path(config.policy))
    if agent is not None:
        with closing(make_atari_vec(config.game, 1)) as envs:
            agent.check_fits(envs.single_observation_space, envs.single_action_space)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"config": config.describe(), "ale_py": version("ale-py"), "complete": False}
    if (folder / "manifest.json").exists():
        found = read_manifest(folder)
        if found["ale_py"] != content["ale_py"]:
            raise ExperienceError(
                f"{folder} was recorded with ale-py {found['ale_py']}, but {content['ale_py']} is installed. "
                "Use another folder, or install that version."
            )
        if found["config"] != content["config"]:
            raise ExperienceError(
                f"{folder} holds a recording of {found['config']}, not of {content['config']}. Use another folder."
            )
        if found["complete"] and sum(_recorded_steps(folder, slot)[1] for slot in range(config.games)) == config.steps:
            print(f"{folder} is complete: {config.steps} steps.")
            return
    write_manifest(folder, content)
    with tqdm(total=config.steps, unit="step", desc=f"Recording {config.game}") as progress:
        _record(config, agent, folder, progress)
    write_manifest(folder, {**content, "complete": True})


def _record(config: CollectConfig, agent: Agent | None, folder: Path, progress: "tqdm[NoReturn]") -> None:
    quota = config.steps // config.games
    envs = make_atari_vec(config.game, config.games)
    casting = _Casting(config, int(envs.single_action_space.n), agent)  # type: ignore[attr-defined]
    recorded = [_recorded_steps(folder, slot) for slot in range(config.games)]  # (episodes, steps) on disk
    progress.update(sum(steps for _, steps in recorded))
    recorders: list[_Recorder | None] = [
        _Recorder(casting, slot, episodes) if steps < quota else None for slot, (episodes, steps) in enumerate(recorded)
    ]
    steps_done = [steps for _, steps in recorded]
    observations, _ = envs.reset(seed=_seeds(recorders))  # type: ignore[arg-type]
    _remember(recorders, observations, range(config.games))
    while any(recorders):
        actions = np.array([recorder.act() if recorder else 0 for recorder in recorders])
        observations, rewards, terminated, truncated, _ = envs.step(actions)
        over = []
        for slot, recorder in enumerate(recorders):
            if recorder is None:
                continue
            recorder.frames.append(observations[slot, -1].copy())
            recorder.rewards.append(float(rewards[slot]))
            steps_done[slot] += 1
            progress.update()
            if terminated[slot] or truncated[slot] or steps_done[slot] == quota:
                recorder.finish(bool(terminated[slot])).save(folder / recorder.file_name)
                follows = steps_done[slot] < quota
                recorders[slot] = _Recorder(casting, slot, recorder.episode + 1) if follows else None
                over.append(slot)
        _restart(envs, recorders, [slot for slot in over if recorders[slot]])
    envs.close()


def _restart(envs, recorders: list[_Recorder | None], slots: list[int]) -> None:
    if not slots:
        return
    mask = np.zeros(len(recorders), bool)
    mask[slots] = True
    observations, _ = envs.reset(seed=_seeds(recorders), options={"reset_mask": mask})
    _remember(recorders, observations, slots)


def _seeds(recorders: list[_Recorder | None]) -> list[int]:
    """One for each game; a game that is done gets any."""
    return [recorder.seed if recorder else 0 for recorder in recorders]


def _remember(recorders: list[_Recorder | None], observations: np.ndarray, slots) -> None:
    for slot in slots:
        if recorder := recorders[slot]:
            recorder.frames.append(observations[slot, -1].copy())


def _recorded_steps(folder: Path, slot: int) -> tuple[int, int]:
    """Episodes and steps of one game that are already on disk, up to the first one that is missing.

    What lies beyond is removed. It comes back as it was, for an episode depends on nothing but its number.
    """
    files = sorted(folder.glob(f"episode-{slot:02d}-*.npz"))
    unbroken = [path for number, path in enumerate(files) if path.stem == f"episode-{slot:02d}-{number:05d}"]
    for path in files[len(unbroken) :]:
        path.unlink()
    return len(unbroken), sum(len(Episode.load(path).actions) for path in unbroken)
