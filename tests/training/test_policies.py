"""The policies that gather experience."""

import numpy as np
import pytest

from tests.fidelity.scenes import draw_pong
from training.policies import Policy, PongTracker, RandomPolicy, RepeatedRandomPolicy, mixture

NOTHING = np.zeros((64, 64), np.uint8)
STAY, UP, DOWN = 0, 2, 3


def test_random_policy_takes_every_action_about_as_often() -> None:
    rng = np.random.default_rng(0)
    policy = RandomPolicy(4)
    counts = np.bincount([policy.act(NOTHING, rng) for _ in range(4000)], minlength=4)
    assert len(counts) == 4 and (np.abs(counts - 1000) < 150).all()


def test_repeated_actions_are_held_for_as_long_as_drawn() -> None:
    rng = np.random.default_rng(0)
    policy = RepeatedRandomPolicy(100, longest=5)  # with so many actions, hardly one is drawn twice in a row
    actions = np.array([policy.act(NOTHING, rng) for _ in range(3000)])
    lengths = np.diff(np.flatnonzero(np.diff(actions)))
    assert set(lengths) >= {1, 2, 3, 4, 5} and lengths.mean() == pytest.approx(3, abs=0.3)


def test_mixture_for_pong_plays_rallies_and_for_other_games_at_random() -> None:
    names = {game: set() for game in ("Pong", "Breakout")}
    for seed in range(200):
        for game, found in names.items():
            found.add(mixture(game, 6, np.random.default_rng(seed)).name)
    assert names["Breakout"] == {"random", "repeated-random"}
    assert names["Pong"] == names["Breakout"] | {f"tracker-{noise}" for noise in (0.0, 0.03, 0.1, 0.3)}


def test_mixture_is_drawn_from_the_given_generator_alone() -> None:
    drawn = [[mixture("Pong", 6, np.random.default_rng(seed)).name for seed in range(20)] for _ in range(2)]
    assert drawn[0] == drawn[1]


def _act(ball: list[tuple[int, int]], own: int) -> int:
    """What a tracker without noise does after it has seen a ball fly."""
    tracker, rng = PongTracker(0.0), np.random.default_rng(0)
    return [tracker.act(draw_pong(place, own=own), rng) for place in ball][-1]


def test_tracker_goes_where_the_ball_will_arrive() -> None:
    falling, rising = [(20, 20), (22, 25)], [(40, 20), (38, 25)]  # it arrives at rows 34 and 26
    assert _act(falling, own=20) == DOWN and _act(falling, own=48) == UP
    assert _act(rising, own=14) == DOWN and _act(rising, own=42) == UP


def test_tracker_reckons_with_the_walls() -> None:
    """A ball that would pass the lower wall by far comes back up."""
    steep = [(40, 30), (50, 35)]  # straight on it would arrive at row 90, which the wall folds to 24
    assert _act(steep, own=40) == UP


def test_tracker_stays_while_there_is_no_ball() -> None:
    tracker, rng = PongTracker(0.0), np.random.default_rng(0)
    assert [tracker.act(draw_pong(None), rng) for _ in range(3)] == [STAY] * 3


def test_tracker_plays_rallies_where_random_play_loses_the_ball() -> None:
    pytest.importorskip("ale_py", reason="real Atari games need ale-py")
    from learned_envs.envs.real.atari import make_atari_vec

    def lost(policies: list[Policy]) -> int:
        envs, rng = make_atari_vec("Pong", len(policies)), np.random.default_rng(0)
        observations, _ = envs.reset(seed=0)
        points = 0
        for _ in range(500):
            actions = [policy.act(frames[-1], rng) for policy, frames in zip(policies, observations, strict=True)]
            observations, rewards, *_ = envs.step(np.array(actions))
            points += int((rewards < 0).sum())
        return points

    assert lost([PongTracker(0.1) for _ in range(4)]) < 0.7 * lost([RandomPolicy(6) for _ in range(4)])
