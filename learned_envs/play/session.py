"""A learned environment and its real twin, stepped with the same actions, with a past that can be gone back to.

    session = Session("LearnedPong-v0")
    session.step(2)
    session.take_over()         # the dream goes on from what the real game shows
    session.fork(0)             # back to the beginning; what was played stays as a branch

Both games are deterministic once their seeds and actions are given. So an earlier state is restored exactly: the learned one
from the nearest state that was kept, the real one by playing its actions again.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from learned_envs.environment import SystemConfig
from learned_envs.envs.batched import EnvState
from learned_envs.envs.real.twin import find_twin
from learned_envs.envs.single import LearnedEnv
from learned_envs.envs.unbatched import UnbatchedEnv
from learned_envs.pretrained import find_snapshot
from learned_envs.snapshot import read_config

__all__ = ["End", "Moment", "Session", "View"]

Action = int | NDArray[np.float32]
End = Literal["", "terminated", "truncated"]

_CONTEXT_STEPS = 24  # newest real observations that are handed to the dream
_KEPT_EVERY = 32  # steps; a state of LearnedPong-v0 takes 0.2 MB, and its episodes may have 27,000 steps


@dataclass(frozen=True, eq=False)
class View:
    """What one of the games shows.

    Args:
        observation: Of a game the newest frame, uint8, shape (1, height, width); else the numbers, float32, shape (n,).
        reward: Reward of the step.
        score: Sum of rewards since the episode began.
        end: Whether and how the episode has ended.
    """

    observation: NDArray[Any]
    reward: float = 0.0
    score: float = 0.0
    end: End = ""


@dataclass(frozen=True, eq=False)
class Moment:
    """One step of both games.

    Args:
        step: Steps since the beginning.
        learned: What the learned game shows.
        real: What the real game shows; None without one.
        action: What led here; None at the beginning.
        parent: The moment before; None at the beginning.
        taken_over: Whether the learned game was put into the state of the real one here.
        state: The state of the learned game, if it was kept.
    """

    step: int
    learned: View
    real: View | None
    action: Action | None = None
    parent: "Moment | None" = field(default=None, repr=False)
    taken_over: bool = False
    state: EnvState | None = field(default=None, repr=False)

    @property
    def over(self) -> bool:
        """Whether there is nothing left to play."""
        return bool(self.learned.end and (self.real is None or self.real.end))

    def history(self) -> list["Moment"]:
        """All moments from the beginning to this one."""
        moments, moment = [], self
        while moment is not None:
            moments.append(moment)
            moment = moment.parent
        return moments[::-1]


class Session:
    """Both games, where they stand, and how they came there.

    With a real twin the learned game begins at what the real one shows first; without, at a recorded start.

    Args:
        model: Id, folder of a snapshot, or repository on the Hub.
        device: Where the model runs.
        seed: Seed of both games, at least 0.
        real: Whether to play the real twin beside it, if it is to be had.
        revision: Branch, tag or commit of a model on the Hub.

    Attributes:
        config: What the snapshot says of itself.
        system: The control problem; None for a game.
        missing_twin: Why there is no real twin; empty if there is one.
        seed: Seed of the running episode.
        moments: From the beginning to where the games stand.
        branches: Moments at which earlier attempts were left, oldest first.

    Raises:
        ValueError: If an argument lies outside its range.
        MissingModelError: If the model is not to be had.
        SnapshotError: If the model's files are damaged.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        device: str = "cpu",
        seed: int = 0,
        real: bool = True,
        revision: str | None = None,
    ) -> None:
        folder = find_snapshot(model, revision)  # once: a branch of the Hub may move
        self.config = read_config(folder)
        environment = self.config.environment
        self.system = environment.system if isinstance(environment, SystemConfig) else None
        self._learned = LearnedEnv(folder, device=device)
        self._real, self.missing_twin = _make_twin(folder, self._learned) if real else (None, "It was not asked for.")
        self.reset(seed)

    @property
    def now(self) -> Moment:
        """Where the games stand."""
        return self.moments[-1]

    @property
    def action_space(self) -> gym.Space:
        """Space of one action."""
        return self._learned.action_space

    def reset(self, seed: int | None = None) -> Moment:
        """Begin anew; all that was played is forgotten.

        Args:
            seed: Seed of both games, at least 0; None takes the one after the last.

        Raises:
            ValueError: If the seed lies outside its range.
        """
        seed = (self.seed + 1) % 2**31 if seed is None else seed
        if not 0 <= seed < 2**31:
            raise ValueError(f"seed is {seed}, expected a whole number from 0 to {2**31 - 1}.")
        real = None if self._real is None else View(self._newest(self._real.begin(seed)))
        observation, _ = self._learned.reset(seed=seed, options=None if self._real is None else self._real.context())
        self.seed = seed
        self.moments = [Moment(0, View(self._newest(observation)), real, state=self._learned.get_state())]
        self.branches: list[Moment] = []
        return self.now

    def step(self, action: int | Iterable[float]) -> Moment:
        """Advance both games by one step with the same action. A game that has ended stays as it is.

        Raises:
            ValueError: If the action lies outside the action space, or both games have ended.
        """
        taken, before = self.parse_action(action), self.now
        if before.over:
            raise ValueError("The episode is over. Reset, or go back to an earlier step.")
        learned, real, state = before.learned, before.real, None
        if not learned.end:
            learned = self._follow(learned, self._learned.step(taken))
            state = self._learned.get_state() if (before.step + 1) % _KEPT_EVERY == 0 else None
        if self._real is not None and real is not None and not real.end:
            real = self._follow(real, self._real.step(taken))
        self.moments.append(Moment(before.step + 1, learned, real, taken, before, state=state))
        return self.now

    def take_over(self) -> Moment:
        """Put the learned game into the state of the real one: it is shown the newest real steps, and goes on from there.

        Raises:
            ValueError: If there is no real game, or it has ended.
        """
        now = self.now
        if self._real is None or now.real is None:
            raise ValueError(f"There is no real game to take over from. {self.missing_twin}")
        if now.real.end:
            raise ValueError("The real episode is over: there is nothing to take over. Go back to an earlier step.")
        observation, _ = self._learned.reset(options=self._real.context())
        learned = View(self._newest(observation), now.real.reward, now.real.score)
        state = self._learned.get_state()
        self.moments[-1] = replace(now, learned=learned, taken_over=True, state=state)
        return self.now

    def fork(self, step: int) -> Moment:
        """Go back to an earlier step of this attempt, which stays as a branch.

        Raises:
            ValueError: If there is no such step.
        """
        moment = self.look(step)
        if moment is not self.now:
            left = self.now
            self._go_to(moment)
            self.branches.append(left)
        return moment

    def switch(self, branch: int) -> Moment:
        """Go on where an earlier attempt was left; this one becomes a branch in its place, unless that one contains it.

        Raises:
            ValueError: If there is no such branch.
        """
        if not 0 <= branch < len(self.branches):
            raise ValueError(f"branch is {branch}, but there are {len(self.branches)}.")
        target, left = self.branches[branch], self.now
        self._go_to(target)
        kept = [] if any(moment is left for moment in self.moments) else [left]
        self.branches[branch : branch + 1] = kept
        return target

    def look(self, step: int) -> Moment:
        """A moment of this attempt, without going there.

        Raises:
            ValueError: If there is no such step.
        """
        if not 0 <= step < len(self.moments):
            raise ValueError(f"step is {step}, but the steps go from 0 to {self.now.step}.")
        return self.moments[step]

    def parse_action(self, action: int | Iterable[float]) -> Action:
        """Check an action: an index, or numbers in [-1, 1].

        Raises:
            ValueError: If it lies outside the action space.
        """
        space = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            if isinstance(action, bool) or not isinstance(action, int | np.integer) or not 0 <= action < space.n:
                raise ValueError(f"action is {action!r}, expected a whole number from 0 to {space.n - 1}.")
            return int(action)
        numbers = [float(number) for number in action] if isinstance(action, Iterable) else [math.nan]
        parsed = np.array(numbers, np.float32)
        if not space.contains(parsed):
            raise ValueError(f"action is {action!r}, expected {space.shape[0]} numbers in [-1, 1].")  # type: ignore[index]
        return parsed

    def close(self) -> None:
        """Free what the games hold."""
        self._learned.close()
        if self._real is not None:
            self._real.close()

    def _go_to(self, moment: Moment) -> None:
        """Put both games into the state of a moment."""
        path = moment.history()
        kept = max(place for place, passed in enumerate(path) if passed.state is not None)
        state = path[kept].state
        assert state is not None
        self._learned.set_state(state)
        for before, after in pairwise(path[kept:]):
            if not before.learned.end:
                self._learned.step(after.action)
        if self._real is not None:
            played = [after.action for before, after in pairwise(path) if before.real and not before.real.end]
            self._real.replay(self.seed, played)
        self.moments = path

    def _follow(self, before: View, result: tuple[Any, Any, bool, bool, dict[str, Any]]) -> View:
        observation, reward, terminated, truncated, _ = result
        end: End = "terminated" if terminated else "truncated" if truncated else ""
        return View(self._newest(observation), float(reward), before.score + float(reward), end)

    def _newest(self, observation: NDArray[Any]) -> NDArray[Any]:
        """What is worth keeping: the older frames of a stack were seen before."""
        return np.array(observation if self.system is not None else observation[-1:])


class _Twin:
    """The real game, which can be put back to an earlier step, and tells what was last seen of it."""

    def __init__(self, env: gym.Env) -> None:
        self._env = env
        self._recent: deque[tuple[NDArray[Any], Any, float]] = deque(maxlen=_CONTEXT_STEPS)

    def begin(self, seed: int) -> NDArray[Any]:
        observation, _ = self._env.reset(seed=seed)
        self._recent.clear()
        self._recent.append((observation, None, 0.0))  # what led here does not count
        return observation

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        result = self._env.step(action)
        self._recent.append((result[0], action, float(result[1])))
        return result

    def replay(self, seed: int, actions: Iterable[Any]) -> None:
        self.begin(seed)
        for action in actions:
            self.step(action)

    def context(self) -> dict[str, Any]:
        """The newest steps, as `LearnedEnv.reset` takes them."""
        observations, actions, rewards = zip(*self._recent, strict=True)
        shape = self._env.action_space.shape or ()
        return {
            "observations": np.stack(observations),
            "actions": np.array(actions[1:], self._env.action_space.dtype).reshape(-1, *shape),
            "rewards": np.array(rewards[1:], np.float32),
        }

    def close(self) -> None:
        self._env.close()


def _make_twin(model: Path, learned: UnbatchedEnv) -> tuple[_Twin | None, str]:
    """The real twin of a model, or why there is none."""
    env, reason = find_twin(model, learned)
    return None if env is None else _Twin(env), reason
