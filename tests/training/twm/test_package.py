"""The recorded starts that go into a snapshot."""

import numpy as np
import pytest
import torch

from learned_envs.starts import StartKind
from tests.training.made_up import made_up_experience
from training.experience import Experience, ExperienceError
from training.twm.package import start_bank

STACK, STEPS = 4, 6


@pytest.fixture(scope="module")
def experience() -> Experience:
    return made_up_experience((30, 45, 40))


def _where(experience: Experience, observations: torch.Tensor) -> list[int]:
    """Rows of the newest frames of some stacks; no two frames of the experience are alike."""
    rows = []
    for newest in observations[:, -1].numpy():
        (found,) = np.flatnonzero((experience.frames == newest).all((1, 2)))
        rows.append(int(found))
    return rows


def test_initial_starts_are_the_first_observations_of_episodes(experience: Experience) -> None:
    observations, actions, rewards = start_bank(experience, STACK, initial=2).contexts("initial")
    assert observations.shape == (2, 1, STACK, 64, 64) and actions.shape == rewards.shape == (2, 0)
    assert _where(experience, observations[:, 0]) == [0, 30 + 1 + 45 + 1], "spread over the recording"
    assert all((stack == stack[-1]).all() for stack in observations[:, 0])


def test_starts_from_anywhere_are_recorded_contexts_within_an_episode(experience: Experience) -> None:
    bank = start_bank(experience, STACK, anywhere=20, steps=STEPS)
    observations, actions, rewards = bank.contexts("anywhere")
    assert observations.shape == (20, STEPS, STACK, 64, 64)
    episode = np.searchsorted(experience.frame_index[experience.episode_starts], np.arange(200), side="right")
    for context in range(20):
        rows = _where(experience, observations[context])
        assert rows == list(range(rows[0], rows[0] + STEPS))
        assert len({episode[row] for row in (rows[0] - STACK + 1, rows[-1])}) == 1
        step = int(np.flatnonzero(experience.frame_index == rows[0]).item())
        between = slice(step, step + STEPS - 1)
        assert actions[context].tolist() == experience.actions[between].tolist()
        assert rewards[context].tolist() == experience.rewards[between].tolist()
        oldest = observations[context, 0, 0].numpy()
        assert np.array_equal(oldest, experience.frames[rows[0] - STACK + 1])


@pytest.mark.parametrize("kind", ["initial", "anywhere"])
def test_no_more_starts_are_kept_than_there_are(experience: Experience, kind: StartKind) -> None:
    bank = start_bank(experience, STACK, steps=28)
    count = len(bank.contexts(kind)[0])
    assert count == (3 if kind == "initial" else sum(max(0, length - STACK + 1 - 28) for length in (30, 45, 40)))


def test_episodes_too_short_for_a_context_are_refused() -> None:
    with pytest.raises(ExperienceError, match="20 steps that a context needs"):
        start_bank(made_up_experience((18, 19)), STACK, steps=16)


def test_later_play_gives_more_of_the_starts_from_anywhere() -> None:
    experience = made_up_experience((60, 60))
    rows = _where(experience, start_bank(experience, STACK, anywhere=30, steps=STEPS).contexts("anywhere")[0][:, 0])
    later = sum(row > 60 for row in rows)
    assert rows == sorted(set(rows)) and 18 <= later <= 27, "nearly three quarters of 30 are expected"
