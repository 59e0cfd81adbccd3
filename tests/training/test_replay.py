"""The replay: windows of recorded steps, and a sampler that favours what it has rarely drawn."""

import numpy as np
import pytest
import torch

from tests.training.made_up import made_up_experience
from training.experience import ExperienceError
from training.twm.replay import BalancedSampler, Replay

NUM_ACTIONS = 6


def test_every_episode_opens_with_still_steps_that_show_its_first_frame() -> None:
    experience = made_up_experience((4, 5))
    steps = Replay(experience, NUM_ACTIONS, length=3).steps
    assert steps.real.tolist() == [False] * 3 + [True] * 4 + [False] * 3 + [True] * 5
    assert steps.episodes.tolist() == [0] * 7 + [1] * 8
    assert steps.frames.tolist() == [0, 0, 0, 0, 1, 2, 3, 5, 5, 5, 5, 6, 7, 8, 9]
    assert steps.next_frames.tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9, 10]
    actions, rewards = experience.actions.tolist(), experience.rewards.tolist()
    unknown = [NUM_ACTIONS] * 3
    assert steps.actions.tolist() == [*unknown, *actions[:4], *unknown, *actions[4:]]
    assert steps.rewards.tolist() == [0, 0, 0, *rewards[:4], 0, 0, 0, *rewards[4:]]
    before = [0, 0, 0, 0, *rewards[:3], 0, 0, 0, 0, *rewards[4:8]]
    assert steps.rewards_before.tolist() == before, "nothing is gained on the way to an episode's first step"
    assert steps.terminated.nonzero().flatten().tolist() == [6], "the second episode was cut, not ended"


def test_faithful_replay_has_the_recorded_steps_alone() -> None:
    experience = made_up_experience((4, 5))
    replay = Replay(experience, NUM_ACTIONS, length=3, still=0)
    assert replay.steps.frames.tolist() == experience.frame_index.tolist()
    assert replay.steps.real.all()
    assert len(replay) == 9 - 3 + 1


def test_windows_are_consecutive_steps() -> None:
    replay = Replay(made_up_experience((4, 5)), NUM_ACTIONS, length=4)
    windows = replay.windows(torch.tensor([0, 5, len(replay) - 1]))
    for row, start in enumerate((0, 5, len(replay) - 1)):
        for name, values in vars(windows).items():
            assert torch.equal(values[row], vars(replay.steps)[name][start : start + 4]), name


def test_too_little_experience_for_a_window_is_refused() -> None:
    with pytest.raises(ExperienceError, match="9 steps, but one training window alone has 10"):
        Replay(made_up_experience((4, 5)), NUM_ACTIONS, length=10)


def test_too_little_experience_for_a_batch_is_refused() -> None:
    sampler = BalancedSampler(5)
    assert sorted(sampler.draw(5).tolist()) == [0, 1, 2, 3, 4]
    with pytest.raises(ExperienceError, match=r"6 different windows .* only 5 exist"):
        sampler.draw(6)


def test_starts_of_a_batch_are_distinct_and_counted_once() -> None:
    torch.manual_seed(0)
    sampler = BalancedSampler(50)
    drawn = torch.cat([sampler.draw(20) for _ in range(10)])
    for batch in drawn.view(10, 20):
        assert len(batch.unique()) == 20
    assert torch.equal(sampler.visits, torch.bincount(drawn, minlength=50).float())


def test_probability_falls_exponentially_with_the_visits() -> None:
    """After 20 ln 3 visits at temperature 20 a start is three times rarer."""
    torch.manual_seed(0)
    sampler, counts = BalancedSampler(2), np.zeros(2)
    for _ in range(4000):
        sampler.visits = torch.tensor([0.0, 20 * np.log(3)])
        counts[int(sampler.draw(1))] += 1
    assert counts[0] / 4000 == pytest.approx(0.75, abs=4 * (0.1875 / 4000) ** 0.5)


def test_all_starts_are_drawn_about_equally_often_and_late_ones_catch_up() -> None:
    torch.manual_seed(0)
    sampler = BalancedSampler(100)
    for _ in range(1000):
        sampler.draw(10)
    even = torch.multinomial(torch.ones(100), 10_000, replacement=True).bincount(minlength=100).float()
    assert sampler.visits.mean() == 100
    assert sampler.visits.std() < 0.7 * even.std(), "no more even than drawing blindly"
    sampler.visits = torch.cat([sampler.visits, torch.zeros(10)])  # new experience
    before = sampler.visits.clone()
    for _ in range(50):
        sampler.draw(10)
    gained = sampler.visits - before
    assert gained[100:].mean() > 5 * gained[:100].mean()
