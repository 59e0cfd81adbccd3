"""Whether a game that runs by itself looks like Pong."""

from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import learned_envs
from learned_envs.fidelity.free_running import LONGEST_ABSENCE, pong_free_running, shows_pong
from tests.fidelity.scenes import draw_pong


def _film(steps: int, gone: dict[str, Any], since: int) -> np.ndarray:
    """One game in which something vanishes at a step, shape (1, steps, 64, 64)."""
    return np.stack([draw_pong(**gone) if step >= since else draw_pong() for step in range(steps)])[None]


@pytest.mark.parametrize(
    ("gone", "name"), [({"ball": None}, "ball"), ({"own": None}, "own_paddle"), ({"opponent": None}, "opponent_paddle")]
)
def test_thing_may_be_gone_as_long_as_in_the_real_game_and_no_longer(gone: dict[str, Any], name: str) -> None:
    good = shows_pong(_film(120, gone, since=30))[0]
    last = 29 + LONGEST_ABSENCE[name]  # it was last seen in step 29
    assert good[: last + 1].all() and not good[last + 1 :].any()


def test_missing_score_is_noticed_at_once() -> None:
    assert shows_pong(_film(5, {"score": False}, since=3))[0].tolist() == [True, True, True, False, False]


def test_games_are_told_apart() -> None:
    films = np.concatenate([_film(60, {}, 60), _film(60, {"ball": None}, 0)])
    good = shows_pong(films)
    assert good[0].all() and not good[1, -1]


class Fake:
    """Two games that show a good picture for half of the time, and score at known steps."""

    num_envs = 2
    single_action_space = gym.spaces.Discrete(6)

    def __init__(self) -> None:
        self.steps = 0

    def _observations(self) -> np.ndarray:
        frame = draw_pong(score=self.steps < 100)
        return np.broadcast_to(frame, (2, 4, 64, 64)).copy()

    def reset(self, *, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        return self._observations(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        assert actions.shape == (2,) and actions.min() >= 0 and actions.max() < 6
        self.steps += 1
        rewards = np.array([float(self.steps % 50 == 0), -float(self.steps % 20 == 0)])
        return self._observations(), rewards, np.zeros(2, bool), np.zeros(2, bool), {}


def test_shares_and_points_are_counted_over_all_games() -> None:
    envs: Any = Fake()
    figures = SimpleNamespace(**pong_free_running(envs, steps=199))
    assert (figures.games, figures.steps) == (2, 199)
    assert figures.looks_like_pong == pytest.approx(100 / 200)
    assert figures.at_the_end == 0
    assert figures.points_won == pytest.approx(3 / (2 * 199) * 1000)
    assert figures.points_lost == pytest.approx(9 / (2 * 199) * 1000)


def test_real_pong_looks_like_pong() -> None:
    pytest.importorskip("ale_py", reason="real Atari games need ale-py")
    figures = pong_free_running(learned_envs.make_real_vec("LearnedPong-v0", 2), steps=400)
    assert figures["looks_like_pong"] == 1
    assert figures["points_lost"] > 0
