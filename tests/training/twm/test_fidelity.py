"""Real rollouts that a model is measured against."""

import numpy as np
import pytest
import torch

from tests.tiny import tiny_model
from tests.training.made_up import made_up_experience
from training.experience import Experience, ExperienceError
from training.twm.fidelity import open_loop_picture, recording

STACK, CONTEXT, HORIZON = 4, 5, 10


@pytest.fixture(scope="module")
def experience() -> Experience:
    return made_up_experience((30, 18, 16))


def test_rollouts_are_recorded_steps_within_one_episode(experience: Experience) -> None:
    real = recording(experience, 100, STACK, CONTEXT, HORIZON)
    steps = CONTEXT + HORIZON - 1
    # Those that fit: an episode of L steps has L + 1 frames, and a rollout shows 3 + 15 of them.
    assert len(real.frames) == sum(max(0, length + 1 - (STACK - 1 + CONTEXT + HORIZON) + 1) for length in (30, 18, 16))
    assert real.frames.shape[1:] == (STACK - 1 + CONTEXT + HORIZON, 64, 64)
    assert real.actions.shape == real.rewards.shape == (len(real.frames), steps)
    assert real.horizon == HORIZON
    for frames, actions, rewards in zip(real.frames, real.actions, real.rewards, strict=True):
        (row,) = np.flatnonzero((experience.frames == frames[STACK - 1]).all((1, 2)))
        assert np.array_equal(frames, experience.frames[row - STACK + 1 : row + CONTEXT + HORIZON])
        step = int(np.flatnonzero(experience.frame_index == row).item())
        assert experience.first[step] == experience.first[step + steps - 1], "the rollout crosses an end"
        assert actions.tolist() == experience.actions[step : step + steps].tolist()
        assert rewards.tolist() == experience.rewards[step : step + steps].tolist()


def test_choice_of_rollouts_is_seeded_and_without_repeats(experience: Experience) -> None:
    first, again, other = (recording(experience, 6, STACK, CONTEXT, HORIZON, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.frames, again.frames) and not np.array_equal(first.frames, other.frames)
    assert len(np.unique(first.frames.reshape(6, -1), axis=0)) == 6


def test_episodes_too_short_for_a_rollout_are_refused(experience: Experience) -> None:
    with pytest.raises(ExperienceError, match="68 steps that a rollout needs"):
        recording(experience, 3, STACK)


def test_picture_shows_real_rollouts_above_imagined_ones(experience: Experience) -> None:
    real = recording(experience, 2, STACK, CONTEXT, HORIZON)
    real = type(real)(real.frames, real.actions % 3, real.rewards, CONTEXT)
    picture = open_loop_picture(tiny_model("compact"), real, every=5)
    assert picture.shape == (1, 2 * 2 * 64, 2 * 64)
    for rollout in range(2):
        for column, step in enumerate((4, 9)):
            shown = picture[0, 128 * rollout : 128 * rollout + 64, 64 * column : 64 * column + 64]
            assert torch.equal(shown * 255, torch.from_numpy(real.frames[rollout, -HORIZON + step]).float())
