"""Both games under the same actions, and the way back to an earlier state."""

import sys
from pathlib import Path
from shutil import copytree
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import learned_envs
from learned_envs.envs.single import LearnedEnv
from learned_envs.play.session import Moment, Session
from tests.tiny import CONTROL_HORIZON


def _same(mine: Moment, theirs: Moment) -> bool:
    """Whether two moments show the same in both games."""
    if (mine.step, mine.real is None) != (theirs.step, theirs.real is None):
        return False
    pairs = [(mine.learned, theirs.learned)]
    if mine.real is not None and theirs.real is not None:
        pairs.append((mine.real, theirs.real))
    return all(
        np.array_equal(a.observation, b.observation) and (a.reward, a.score, a.end) == (b.reward, b.score, b.end)
        for a, b in pairs
    )


def _push(session: Session, count: int) -> None:
    """Take steps whose actions depend on where the session stands."""
    for _ in range(count):
        session.step([np.sin(session.now.step)])


def test_both_games_begin_alike_and_get_the_same_actions(control: str) -> None:
    session = Session(control, seed=3)
    learned, real = LearnedEnv(control), learned_envs.make_real(control)
    begin, _ = real.reset(seed=3)
    learned.reset(seed=3, options={"observations": begin[None]})
    assert session.now.real is not None
    assert np.array_equal(session.now.learned.observation, begin)
    total = 0.0
    for step in range(10):
        action = np.array([np.sin(step)], np.float32)
        moment, imagined, happened = session.step(action.tolist()), learned.step(action), real.step(action)
        total += imagined[1]
        assert np.array_equal(moment.learned.observation, imagined[0])
        assert moment.real is not None and np.array_equal(moment.real.observation, happened[0])
        assert (moment.learned.reward, moment.real.reward) == (imagined[1], happened[1])
    assert session.now.learned.score == pytest.approx(total)


def test_folder_named_like_an_id_is_played(
    tiny_snapshots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copytree(tiny_snapshots["compact"], tmp_path / "LearnedHarvest-v0")
    monkeypatch.chdir(tmp_path)
    assert Session("./LearnedHarvest-v0").action_space == gym.spaces.Discrete(3)


def test_episode_ends_in_both_games_and_then_no_more_steps(control: str) -> None:
    session = Session(control)
    _push(session, CONTROL_HORIZON)
    assert session.now.over
    assert session.now.real is not None and session.now.learned.end == session.now.real.end == "truncated"
    with pytest.raises(ValueError, match=r"episode is over.*Reset"):
        session.step([0.0])
    assert not session.reset().over
    assert (session.now.step, session.seed, session.branches) == (0, 1, [])


def test_fork_restores_both_games_exactly(control: str) -> None:
    session = Session(control)
    _push(session, 20)
    first = session.now
    session.fork(7)
    assert (session.now.step, session.branches) == (7, [first])
    session.step([1.0])
    assert not _same(session.now, first.history()[8])
    session.fork(7)
    _push(session, 13)
    assert _same(session.now, first)


def test_fork_goes_back_over_a_take_over(control: str) -> None:
    """The dream after it follows from what the real game had shown by then."""
    session = Session(control)
    _push(session, 6)
    session.take_over()
    _push(session, 6)
    end = session.now
    session.fork(9)
    _push(session, 3)
    assert _same(session.now, end)


def test_fork_to_where_the_games_stand_leaves_nothing(control: str) -> None:
    session = Session(control)
    _push(session, 3)
    session.fork(3)
    assert session.branches == []


def test_earlier_attempts_can_be_gone_on_with(control: str) -> None:
    session = Session(control)
    _push(session, 8)
    first = session.now
    session.fork(5)
    session.step([-1.0])
    second = session.now
    session.switch(0)
    assert session.now is first and session.branches == [second]
    assert [moment.step for moment in session.moments] == list(range(9))
    _push(session, 2)
    again = Session(control)
    _push(again, 10)
    assert _same(session.now, again.now)


def test_switching_from_the_stem_of_a_branch_keeps_the_branch_only(control: str) -> None:
    session = Session(control)
    _push(session, 4)
    session.fork(2)
    session.switch(0)
    assert session.now.step == 4 and session.branches == []


def test_take_over_puts_the_dream_where_the_real_game_stands(control: str) -> None:
    session = Session(control)
    _push(session, 12)
    before = session.now
    assert before.real is not None
    assert not np.allclose(before.learned.observation, before.real.observation)
    after = session.take_over()
    assert np.array_equal(after.learned.observation, before.real.observation)
    assert after.learned.score == before.real.score
    assert after.real is before.real and after.step == 12 and session.moments[12] is after
    _push(session, 1)


def test_pictures_of_both_games(tiny_pong: Path) -> None:
    pytest.importorskip("ale_py")
    session = Session(str(tiny_pong), seed=5)
    real = learned_envs.make_real(tiny_pong)
    begin, _ = real.reset(seed=5)
    assert session.now.real is not None
    assert np.array_equal(session.now.real.observation, begin[-1:])
    for step in range(40):
        observation, *_ = real.step(step % 6)
        now = session.step(step % 6)
        assert now.real is not None and np.array_equal(now.real.observation, observation[-1:])
    end, learned_end = session.now, session.now.learned.end
    assert learned_end, "the small model's episodes are short, and the real game goes on without it"
    assert not end.over
    session.fork(35)
    for step in range(35, 40):
        session.step(step % 6)
    assert _same(session.now, end)
    session.take_over()
    assert session.now.learned.end == "", "the dream is alive again"
    assert np.abs(session.now.learned.observation.astype(int) - end.learned.observation).max() > 0


def test_states_are_restored_between_those_that_were_kept(control: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learned_envs.play.session._KEPT_EVERY", 4)
    session = Session(control)
    _push(session, 11)
    assert [moment.step for moment in session.moments if moment.state is not None] == [0, 4, 8]
    end = session.now
    session.fork(6)
    _push(session, 5)
    assert _same(session.now, end)


def test_without_the_emulator_the_dream_is_played_alone(tiny_pong: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    session = Session(str(tiny_pong))
    assert 'pip install "learned-envs[atari]"' in session.missing_twin
    assert session.step(0).real is None
    with pytest.raises(ValueError, match=r"no real game to take over from.*learned-envs\[atari\]"):
        session.take_over()
    session.fork(0)


def test_twin_with_other_actions_is_no_twin(tiny_snapshots: dict[str, Path]) -> None:
    pytest.importorskip("ale_py")
    session = Session(str(tiny_snapshots["compact"]))
    assert "other actions" in session.missing_twin and "Discrete(6), not Discrete(3)" in session.missing_twin


def test_nothing_to_take_over_from_an_ended_game(control: str) -> None:
    session = Session(control)
    _push(session, CONTROL_HORIZON)
    with pytest.raises(ValueError, match="nothing to take over"):
        session.take_over()


@pytest.mark.parametrize("action", [3, [0.0, 0.0], [1.5], [float("nan")], [], None], ids=str)
def test_wrong_numbers_are_refused(control: str, action: Any) -> None:
    session = Session(control)
    with pytest.raises(ValueError, match=r"action is .*expected 1 numbers in \[-1, 1\]"):
        session.step(action)
    assert session.now.step == 0


@pytest.mark.parametrize("action", [6, -1, 0.5, True, [0], None], ids=str)
def test_wrong_indices_are_refused(tiny_pong: Path, action: Any) -> None:
    session = Session(str(tiny_pong), real=False)
    with pytest.raises(ValueError, match=r"action is .*expected a whole number from 0 to 5"):
        session.step(action)


def test_places_that_are_not_there(control: str) -> None:
    session = Session(control)
    for step in (-1, 1):
        with pytest.raises(ValueError, match=f"step is {step}, but the steps go from 0 to 0"):
            session.fork(step)
    with pytest.raises(ValueError, match="branch is 0, but there are 0"):
        session.switch(0)
    with pytest.raises(ValueError, match="seed is -1"):
        session.reset(-1)


def test_after_the_last_seed_comes_the_first(control: str) -> None:
    session = Session(control)
    session.reset(2**31 - 1)
    session.reset()
    assert session.seed == 0
