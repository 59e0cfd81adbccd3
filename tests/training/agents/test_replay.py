"""The agent's experience: what a sequence shows at the beginning, across episodes, and after it was written and read."""

from pathlib import Path

import numpy as np
import pytest
import torch

from training.agents.replay import AgentReplay
from training.experience import ExperienceError
from training.loop import RunError
from training.twm.replay import BalancedSampler

LENGTHS = (7, 5, 9)  # of episodes; the last goes on


def _frame(number: int) -> np.ndarray:
    return np.full((64, 64), number, np.uint8)


def _fill(replay: AgentReplay, upto: int = sum(LENGTHS)) -> AgentReplay:
    """Frame 10 * e + k is the k-th of episode e; the second episode is cut, the others end."""
    step = 0
    for episode, length in enumerate(LENGTHS):
        for index in range(length + 1):
            if index == 0:
                if len(replay) == step or len(replay) == 0:
                    replay.begin_episode(_frame(10 * episode))
                continue
            if len(replay) <= step < upto:
                last = index == length and episode < 2
                replay.add(
                    step % 4, float(step), last and episode == 0, last and episode == 1, _frame(10 * episode + index)
                )
            step += 1
    replay.sync()
    return replay


@pytest.fixture
def replay() -> AgentReplay:
    return _fill(AgentReplay(30))


def _shown(stacks: torch.Tensor) -> list[list[int]]:
    return stacks[..., 0, 0].tolist()


def test_stacks_are_padded_with_the_first_frame_of_their_episode(replay: AgentReplay) -> None:
    found = _shown(replay.observations(torch.tensor([0, 2, 6, 7, 8, 21])))
    assert found == [[0, 0, 0, 0], [0, 0, 1, 2], [3, 4, 5, 6], [10, 10, 10, 10], [10, 10, 10, 11], [26, 27, 28, 29]]
    assert replay.observation()[:, 0, 0].tolist() == [26, 27, 28, 29], "the present one"


def test_what_an_episode_shows_last_is_followed_by_the_beginning_of_the_next(replay: AgentReplay) -> None:
    sequences = replay.sequences(torch.tensor([4]), 4)
    assert _shown(sequences.observations[0, :, -1:]) == [[3], [4], [5], [6], [10], [11]]
    assert sequences.terminated[0].tolist() == [False, False, False, True, False]
    assert sequences.done[0].tolist() == [False, False, False, True, False]
    assert sequences.episodes[0].tolist() == [0, 0, 0, 0, 1]
    assert sequences.actions[0].tolist() == [3, 0, 1, 2, 3]
    assert sequences.rewards[0].tolist() == [3, 4, 5, 6, 7]
    assert sequences.rewards_before[0].tolist() == [2, 3, 4, 5, 0]


def test_cut_episode_is_done_but_not_terminated(replay: AgentReplay) -> None:
    sequences = replay.sequences(torch.tensor([11]), 2)
    assert sequences.done[0].tolist() == [False, True, False] and not sequences.terminated.any()


def test_before_the_first_step_stands_its_observation_with_action_and_reward_zero(replay: AgentReplay) -> None:
    sequences = replay.sequences(torch.tensor([0]), 3)
    assert _shown(sequences.observations[0, :, -1:]) == [[0], [0], [1], [2], [3]]
    assert sequences.actions[0].tolist() == [0, 0, 1, 2]
    assert sequences.rewards[0].tolist() == [0, 0, 1, 2] and not sequences.rewards_before[0, :3].any()


def test_recording_holds_what_episodes_showed_last(replay: AgentReplay) -> None:
    experience = replay.experience()
    assert experience.episode_starts.tolist() == [0, 7, 12]
    assert experience.frames[experience.frame_index, 0, 0].tolist()[5:9] == [5, 6, 10, 11]
    assert experience.frames[experience.frame_index + 1, 0, 0].tolist()[5:9] == [6, 7, 11, 12]
    assert experience.first.tolist() == [0] * 7 + [7] * 5 + [12] * 9
    earlier = replay.experience(9)
    assert len(earlier) == 9 and earlier.episode_starts.tolist() == [0, 7]


def test_experience_is_written_in_parts_and_read_back_whole(tmp_path: Path) -> None:
    replay = AgentReplay(30)
    for upto in (3, 7, 15, sum(LENGTHS)):
        _fill(replay, upto)
        assert replay.save(tmp_path) == upto == replay.save(tmp_path), "nothing new must write nothing"
    assert len(list(tmp_path.iterdir())) == 4
    other = AgentReplay(30)
    other.load(tmp_path, sum(LENGTHS))
    assert other.num_frames == replay.num_frames and np.array_equal(other.frames, replay.frames)
    for name, array in replay.arrays.items():
        assert np.array_equal(array, other.arrays[name]), name
    other.load(tmp_path, 7)
    assert len(other) == 7
    assert _fill(other, 12).save(tmp_path) == 12
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[-1] == "steps-0000007-0000012.npz", "what a killed run had recorded is still there"


def test_lost_or_damaged_part_is_told(tmp_path: Path, replay: AgentReplay) -> None:
    replay.save(tmp_path)
    with pytest.raises(RunError, match="lacks the steps from 0 on, of 5"):
        AgentReplay(30).load(tmp_path, 5)
    path = next(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match=rf"{path.name} is damaged"):
        AgentReplay(30).load(tmp_path, len(replay))


def test_full_replay_takes_no_more() -> None:
    replay = AgentReplay(1)
    replay.begin_episode(_frame(0))
    replay.add(0, 0.0, False, False, _frame(1))
    with pytest.raises(ExperienceError, match="room for 1 steps"):
        replay.add(0, 0.0, False, False, _frame(2))
    with pytest.raises(ExperienceError, match="Nothing was recorded"):
        AgentReplay(1).experience()


def test_many_short_episodes_find_room() -> None:
    replay = AgentReplay(300)
    for step in range(300):
        replay.begin_episode(_frame(step % 256))
        replay.add(0, 0.0, True, False, _frame(255))
    replay.begin_episode(_frame(7))
    replay.sync()
    assert _shown(replay.observations(torch.tensor([0, 299, 300]))) == [[0] * 4, [43] * 4, [7] * 4]


def test_starts_visited_more_often_are_drawn_less_as_the_softmax_says() -> None:
    torch.manual_seed(0)
    sampler = BalancedSampler(3, temperature=20.0)
    counts = torch.zeros(3)
    for _ in range(6000):
        sampler.visits = torch.tensor([0.0, 20.0, 40.0])
        counts[sampler.draw(1)] += 1
    expected = torch.tensor([1.0, 0.36788, 0.13534])
    assert torch.allclose(counts / 6000, expected / expected.sum(), atol=0.02)


def test_only_starts_are_counted_as_visits_and_new_ones_come_up_first() -> None:
    torch.manual_seed(0)
    sampler = BalancedSampler(50, temperature=0.01)
    for _ in range(5):
        drawn = sampler.draw(10)
        assert len(drawn.unique()) == 10
    assert (sampler.visits == 1).all()
    sampler.grow(60)
    assert sorted(sampler.draw(10).tolist()) == list(range(50, 60))
    sampler.temperature = float("inf")
    drawn = torch.cat([sampler.draw(1) for _ in range(2000)])
    assert drawn.bincount(minlength=60).float().std() < 10, "uniform"
