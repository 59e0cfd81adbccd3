"""How long an imagined rally stays with the real one, told by models whose mistakes are known."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from learned_envs.fidelity.open_loop import Recording, imagine, pong_open_loop
from learned_envs.fidelity.pong import detect
from learned_envs.world_model import Prediction, State, WorldModel
from tests.fidelity.scenes import draw_pong
from tests.tiny import tiny_model

ROLLOUTS, CONTEXT, HORIZON, STACK = 3, 5, 20, 4


@dataclass(frozen=True)
class FilmState(State):
    """Number of the film and of the frame, int64, shape (B,) each."""

    film: Tensor
    frame: Tensor


class Film(WorldModel):
    """Shows frames and pays rewards that were laid down beforehand, whatever is done."""

    def __init__(self, frames: np.ndarray, rewards: np.ndarray) -> None:
        super().__init__()
        self.frames, self.rewards = torch.from_numpy(frames), torch.from_numpy(rewards)
        self.observation_shape, self.observation_dtype, self.noise_size = (STACK, 64, 64), torch.uint8, 1
        self.asked: list[Tensor] = []

    def start(self, observations: Tensor, actions: Tensor | None = None, rewards: Tensor | None = None) -> FilmState:
        self.context = (observations, actions, rewards)
        return FilmState(torch.arange(len(observations)), torch.full((len(observations),), -1))

    def observe(self, state: FilmState) -> Tensor:
        return self.frames[state.film, state.frame].unsqueeze(1).expand(-1, STACK, -1, -1)

    def step(
        self, state: FilmState, action: Tensor, noise: Tensor, decode: bool = True
    ) -> tuple[FilmState, Prediction]:
        self.asked.append(action)
        after = FilmState(state.film, state.frame + 1)
        reward = self.rewards[after.film, after.frame]
        return after, Prediction(reward, torch.zeros_like(reward))


@pytest.fixture
def recording() -> Recording:
    """Balls that fly to the right, each in a row of its own, and a reward in the tenth imagined step of the first."""
    steps = STACK - 1 + CONTEXT + HORIZON
    frames = [[draw_pong((20 + 5 * film, 10 + step)) for step in range(steps)] for film in range(ROLLOUTS)]
    rewards = np.zeros((ROLLOUTS, CONTEXT + HORIZON - 1), np.float32)
    rewards[0, CONTEXT - 1 + 9] = 1
    actions = np.arange(ROLLOUTS * (CONTEXT + HORIZON - 1)).reshape(ROLLOUTS, -1) % 6
    return Recording(np.array(frames), actions, rewards, CONTEXT)


def _truth(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    return recording.frames[:, -HORIZON:].copy(), recording.rewards[:, -HORIZON:].copy()


def test_model_gets_the_recorded_context_and_the_recorded_actions(recording: Recording) -> None:
    model = Film(*_truth(recording))
    pictures, gains = imagine(model, recording)
    observations, actions, rewards = model.context
    assert observations.shape == (ROLLOUTS, CONTEXT, STACK, 64, 64)
    for step in range(CONTEXT):
        assert np.array_equal(observations[:, step].numpy(), recording.frames[:, step : step + STACK])
    assert actions is not None and rewards is not None
    assert np.array_equal(actions.numpy(), recording.actions[:, : CONTEXT - 1])
    assert np.array_equal(rewards.numpy(), recording.rewards[:, : CONTEXT - 1])
    assert np.array_equal(torch.stack(model.asked, 1).numpy(), recording.actions[:, CONTEXT - 1 :])
    assert np.array_equal(pictures, recording.frames[:, -HORIZON:])
    assert np.array_equal(gains, recording.rewards[:, -HORIZON:])


def test_perfect_model_is_told_so(recording: Recording) -> None:
    figures = pong_open_loop(Film(*_truth(recording)), recording)
    assert figures["rollouts"] == ROLLOUTS and figures["reward_events"] == 1
    assert set(figures["ball"]) == {"1", "2", "5", "10", "15"}, "steps within the horizon"
    assert set(figures["ball"].values()) == set(figures["own_paddle"].values()) == {1.0}
    assert figures["reward_precision"] == figures["reward_recall"] == 1


@pytest.mark.parametrize(("shift", "agrees"), [(2, True), (3, False)])
def test_ball_counts_within_two_pixels(recording: Recording, shift: int, agrees: bool) -> None:
    frames, rewards = _truth(recording)
    first = 10 + STACK - 1 + CONTEXT
    frames[1] = [draw_pong((25 + shift, first + step), own=40 + shift) for step in range(HORIZON)]
    figures = pong_open_loop(Film(frames, rewards), recording)
    assert figures["ball"]["10"] == pytest.approx(1 if agrees else 2 / 3)
    assert figures["own_paddle"]["10"] == pytest.approx(1 if agrees else 2 / 3)


def test_ball_that_is_seen_in_one_picture_alone_is_a_mistake(recording: Recording) -> None:
    frames, rewards = _truth(recording)
    frames[2, 9:] = draw_pong(None)
    figures = pong_open_loop(Film(frames, rewards), recording)
    assert figures["ball"]["5"] == 1 and figures["ball"]["10"] == pytest.approx(2 / 3)


def test_ball_absent_from_both_is_right(recording: Recording) -> None:
    frames, rewards = _truth(recording)
    frames[:] = draw_pong(None)
    real = Recording(
        np.concatenate([recording.frames[:, :-HORIZON], frames], 1), recording.actions, recording.rewards, CONTEXT
    )
    assert np.isnan(detect(frames[0]).ball).all()
    assert pong_open_loop(Film(frames, rewards), real)["ball"]["10"] == 1


@pytest.mark.parametrize(("early", "found"), [(-2, 1), (2, 1), (3, 0), (-3, 0)])
def test_reward_counts_within_two_steps(recording: Recording, early: int, found: float) -> None:
    frames, rewards = _truth(recording)
    figures = pong_open_loop(Film(frames, np.roll(rewards, early, 1)), recording)
    assert figures["reward_precision"] == figures["reward_recall"] == found


def test_reward_of_the_wrong_sign_or_out_of_nothing_is_a_mistake(recording: Recording) -> None:
    frames, rewards = _truth(recording)
    assert pong_open_loop(Film(frames, -rewards), recording)["reward_recall"] == 0
    more = rewards.copy()
    more[2, 3] = -1
    figures = pong_open_loop(Film(frames, more), recording)
    assert (figures["reward_precision"], figures["reward_recall"]) == (0.5, 1)
    assert np.isnan(pong_open_loop(Film(frames, 0 * rewards), recording)["reward_precision"])


@pytest.mark.gpu
def test_model_on_the_gpu_imagines_what_it_does_on_the_cpu(recording: Recording) -> None:
    actions = Recording(recording.frames, recording.actions % 3, recording.rewards, CONTEXT)
    model = tiny_model("faithful")
    pictures, gains = imagine(model, actions)
    again, gained = imagine(model.cuda(), actions)
    assert np.abs(again.astype(int) - pictures).max() <= 1
    assert np.abs(gained - gains).max() < 1e-3
