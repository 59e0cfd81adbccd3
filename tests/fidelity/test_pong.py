"""The detectors of ball, paddles and score, on frames drawn by hand and on the real game, whose memory knows the truth."""

import numpy as np
import pytest

from learned_envs.fidelity.pong import BACKGROUND, detect
from tests.fidelity.scenes import draw_pong, play_real_pong


def _one(frame: np.ndarray) -> tuple[list[float], float, float, bool]:
    scene = detect(frame[None])
    return (
        scene.ball[0].tolist(),
        float(scene.own_paddle[0]),
        float(scene.opponent_paddle[0]),
        bool(scene.score[0]),
    )


def test_everything_is_found_where_it_was_drawn() -> None:
    assert _one(draw_pong((30, 25), own=40, opponent=17)) == ([30, 25], 40, 17, True)


@pytest.mark.parametrize("place", [(11, 9), (11, 54), (57, 9), (57, 54), (34, 32)])
def test_ball_is_found_anywhere_between_walls_and_paddles(place: tuple[int, int]) -> None:
    assert _one(draw_pong(place))[0] == list(place)


def test_ball_between_pixels_is_found_at_its_centre_of_mass() -> None:
    frame = draw_pong(None)
    frame[30, 20], frame[30, 21], frame[31, 20], frame[31, 21] = (BACKGROUND + mass for mass in (60, 20, 60, 20))
    assert _one(frame)[0] == pytest.approx([30.5, 20.25])


def test_what_is_not_drawn_is_absent() -> None:
    ball, own, opponent, score = _one(draw_pong(None, own=None, opponent=None, score=False))
    assert np.isnan([*ball, own, opponent]).all()
    assert not score


def test_faint_specks_are_no_ball_and_move_no_paddle() -> None:
    frame = draw_pong(None)
    frame[50, 30] += 20
    frame[15, 56] += 24  # in the column of the paddle, far from it
    ball, own, _, _ = _one(frame)
    assert np.isnan(ball).all() and own == 40


def test_ball_in_front_of_a_paddle_is_neither_a_ball_nor_moves_the_paddle() -> None:
    frame = draw_pong((20, 56), own=40)
    ball, own, _, _ = _one(frame)
    assert np.isnan(ball).all() and own == 40


def test_frames_of_a_batch_are_looked_at_one_by_one() -> None:
    frames = np.stack([draw_pong((20 + index, 30)) for index in range(5)] + [draw_pong(None)])
    scene = detect(frames)
    assert scene.ball[:5].tolist() == [[20 + index, 30] for index in range(5)]
    assert np.isnan(scene.ball[5]).all()


@pytest.mark.parametrize("shape", [(64, 64), (1, 84, 84), (1, 4, 64, 64)])
def test_other_sizes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="64x64"):
        detect(np.zeros(shape, np.uint8))


def _fit(truth: np.ndarray, found: np.ndarray) -> tuple[float, float]:
    """Slope of the found positions over the true ones, and the error that 95% of them stay below."""
    slope, offset = np.polyfit(truth, found, 1)
    return slope, float(np.percentile(np.abs(slope * truth + offset - found), 95))


def test_positions_in_the_real_game_are_those_in_its_memory() -> None:
    pytest.importorskip("ale_py", reason="real Atari games need ale-py")
    frames, truth = play_real_pong(800)
    scene = detect(frames)
    assert scene.score.all()
    lines, columns = 64 / 210, 64 / 160  # pixels a line and a column of the console's picture

    in_play = (truth["ball_y"] > 46) & (truth["ball_y"] < 203) & (truth["ball_x"] > 70) & (truth["ball_x"] < 185)
    seen = ~np.isnan(scene.ball[:, 0])
    assert seen[in_play].mean() > 0.98
    between_points = (truth["ball_y"] == 0) & (np.roll(truth["ball_y"], 1) == 0)
    assert between_points.sum() > 50 and not seen[between_points].any()
    for axis, name, scale in ((0, "ball_y", lines), (1, "ball_x", columns)):
        slope, error = _fit(truth[name][seen & in_play], scene.ball[seen & in_play, axis])
        assert slope == pytest.approx(scale, rel=0.02), name
        assert error < 0.6, name

    # The own paddle is fast and smeared while it moves; the walls hide one that touches them.
    still = np.r_[False, np.diff(truth["own_y"]) == 0]
    still &= np.roll(still, 1)
    for name, found, clear in (("own_y", scene.own_paddle, still), ("opponent_y", scene.opponent_paddle, True)):
        chosen = clear & (truth[name] > 60) & (truth[name] < 180) & ~np.isnan(found)
        assert chosen.sum() > 50, name
        slope, error = _fit(truth[name][chosen], found[chosen])
        assert slope == pytest.approx(lines, rel=0.03), name
        assert error < 0.8, name
