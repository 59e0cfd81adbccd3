"""Policies that gather experience.

A world model knows only what it was shown. Random play alone shows Pong's serve and little else, so the mixture adds
repeated random actions, which reach the whole range of the paddle, and trackers of different strength, which play
rallies, win points and lose them. Once an agent was trained, what it does in the real game is what the model should know next.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from learned_envs.fidelity.pong import detect
from training.agents.agent import Agent

__all__ = ["AgentPolicy", "Policy", "PongTracker", "RandomPolicy", "RepeatedRandomPolicy", "mixture"]

_UP, _DOWN, _STAY = 2, 3, 0  # ALE's minimal action set of Pong: NOOP, FIRE, RIGHT, LEFT, RIGHTFIRE, LEFTFIRE
_TRACKER_NOISE = (0.0, 0.03, 0.1, 0.3)


class Policy(Protocol):
    """Chooses one action for one game from its newest frame."""

    name: str

    def act(self, frame: NDArray[np.uint8], rng: np.random.Generator) -> int:
        """Choose an action.

        Args:
            frame: The newest grey frame, uint8 in [0, 255], shape (64, 64).
            rng: Where all randomness comes from.

        Returns:
            An index into the game's action set.
        """
        ...


@dataclass
class RandomPolicy:
    """A new uniformly random action every step.

    Args:
        num_actions: Size of the action set; at least 1.
    """

    num_actions: int
    name: str = "random"

    def act(self, frame: NDArray[np.uint8], rng: np.random.Generator) -> int:
        """See `Policy.act`."""
        return int(rng.integers(self.num_actions))


@dataclass
class RepeatedRandomPolicy:
    """A random action held for a random number of steps.

    Args:
        num_actions: Size of the action set; at least 1.
        longest: Longest time an action is held, in steps; at least 1.
    """

    num_actions: int
    longest: int = 16
    name: str = "repeated-random"
    _action: int = field(default=0, repr=False)
    _left: int = field(default=0, repr=False)

    def act(self, frame: NDArray[np.uint8], rng: np.random.Generator) -> int:
        """See `Policy.act`."""
        if self._left == 0:
            self._action = int(rng.integers(self.num_actions))
            self._left = int(rng.integers(1, self.longest + 1))
        self._left -= 1
        return self._action


@dataclass
class PongTracker:
    """Moves the paddle to where the ball will arrive, some of the time.

    The point of the paddle that should meet the ball is redrawn whenever the ball turns, so that rallies show all angles
    and speeds.

    Args:
        noise: Share of the time spent on bursts of one random action, in [0, 1); 0 is the strongest player.
        name: What the recording calls this policy.
    """

    noise: float
    name: str = "tracker"
    _ball: tuple[float, float] = field(default=(np.nan, np.nan), repr=False)
    _paddle: float = field(default=np.nan, repr=False)
    _push: int = field(default=0, repr=False)
    _approaching: bool = field(default=False, repr=False)
    _aim: float = field(default=0.0, repr=False)
    _burst: tuple[int, int] = field(default=(0, 0), repr=False)

    def act(self, frame: NDArray[np.uint8], rng: np.random.Generator) -> int:
        """See `Policy.act`."""
        scene = detect(frame[None])
        action = self._track(scene.ball[0].astype(float), float(scene.own_paddle[0]), rng)
        held, left = self._burst
        if left == 0 and rng.random() < self.noise / 4:
            held, left = int(rng.integers(6)), int(rng.integers(1, 8))  # four steps on average
        self._burst = (held, max(left - 1, 0))
        action = held if left else action
        self._push = (action in (_DOWN, 5)) - (action in (_UP, 4))
        return action

    def _track(self, ball: NDArray[np.float64], paddle: float, rng: np.random.Generator) -> int:
        row, column = ball
        row_speed, column_speed = row - self._ball[0], column - self._ball[1]
        paddle_speed = paddle - self._paddle
        self._ball, self._paddle = (row, column), paddle
        if np.isnan(column_speed) or np.isnan(paddle_speed):
            return _STAY
        if (column_speed > 0) != self._approaching:
            self._aim = float(rng.uniform(-2.4, 2.4))  # the paddle is about 5 pixels high: now and then a miss
            self._approaching = column_speed > 0
        goal = row
        if column_speed > 0.3:
            goal = _reflect(row + row_speed * (55 - column) / column_speed)
        # A push acts one step late and the paddle coasts on; both figures were measured on the emulator.
        error = goal + self._aim - (paddle + 1.2 * paddle_speed + 3.5 * self._push)
        if abs(error) < 1.5:
            return _STAY
        return _DOWN if error > 0 else _UP


def _reflect(row: float) -> float:
    """Row of a ball that bounces between the walls, rows 11 to 57."""
    folded = (row - 11) % 92
    return 11 + min(folded, 92 - folded)


@dataclass
class AgentPolicy:
    """A trained agent, which draws its actions from what it finds likely, and now and then acts at random.

    Args:
        agent: Who plays; it sees stacks of grey frames.
        epsilon: Share of the steps with a uniformly random action, in [0, 1].
        name: What the recording calls this policy.
    """

    agent: Agent
    epsilon: float
    name: str = "agent"
    _frames: list[NDArray[np.uint8]] = field(default_factory=list, repr=False)

    def act(self, frame: NDArray[np.uint8], rng: np.random.Generator) -> int:
        """See `Policy.act`."""
        stack = self.agent.config.observation_shape[0]
        self._frames = [*(self._frames or [frame] * (stack - 1)), frame][-stack:]
        with torch.inference_mode():
            distribution, _ = self.agent(torch.from_numpy(np.stack(self._frames)).unsqueeze(0))
        likely = distribution.probs[0].double().numpy()  # type: ignore[attr-defined]
        uniform = np.full_like(likely, 1 / len(likely))
        mixed = (1 - self.epsilon) * likely / likely.sum() + self.epsilon * uniform
        return int(rng.choice(len(mixed), p=mixed))


def mixture(game: str, num_actions: int, rng: np.random.Generator) -> Policy:
    """Draw the policy of one episode.

    Two in five episodes are random, in one of two ways, where a tracker for the game exists; the others are played by
    trackers of four strengths.

    Args:
        game: ALE name of the game, such as ``"Pong"``.
        num_actions: Size of the action set.
        rng: Where the choice comes from.
    """
    candidates: list[Policy] = [RandomPolicy(num_actions), RepeatedRandomPolicy(num_actions)]
    if game == "Pong":
        trackers = [PongTracker(noise, f"tracker-{noise}") for noise in _TRACKER_NOISE]
        candidates = [*candidates, *(trackers[rng.integers(len(trackers))] for _ in range(3))]
    return candidates[rng.integers(len(candidates))]
