"""The stages of a training: resumed exactly, learning at all, and each part moved only by its own losses."""

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from learned_envs.nn.categorical import most_likely, straight_through
from learned_envs.twm.config import LatentConfig
from learned_envs.twm.dynamics import Forecast
from learned_envs.twm.observation_model import GridObservationModel
from tests.tiny import tiny_config, tiny_model
from tests.training.made_up import made_up_experience
from tests.training.sameness import assert_same, interrupt
from training.experience import Experience
from training.loop import run_stage
from training.twm.dynamics import DynamicsStage, DynamicsTraining, encode_all
from training.twm.joint import JointStage, JointTraining
from training.twm.moves import MOVES, encode_moved, move
from training.twm.observation import DecoderStage, ObservationStage, ObservationTraining, cosine
from training.twm.replay import Replay

NUM_ACTIONS = 6


def _config(kind: Any) -> Any:
    return replace(tiny_config(kind), num_actions=NUM_ACTIONS)


def _model(kind: Any, **changes: Any) -> Any:
    return tiny_model(kind, config=replace(_config(kind), **changes)).train()


def observation_stage(experience: Experience, updates: int) -> ObservationStage:
    model = _model("compact").observation_model
    assert isinstance(model, GridObservationModel)
    return ObservationStage(model, torch.from_numpy(experience.frames), ObservationTraining(updates, batch=16))


def dynamics_stage(experience: Experience, updates: int, **changes: Any) -> DynamicsStage:
    model = _model("compact", **changes)
    codes = encode_all(model.observation_model.eval(), torch.from_numpy(experience.frames))
    # A low temperature lets what was drawn before matter.
    config = DynamicsTraining(updates, batch=6, length=8, sampling_temperature=0.5)
    return DynamicsStage(model.dynamics, codes, Replay(experience, NUM_ACTIONS, config.length), config)


def moved_dynamics_stage(experience: Experience, updates: int) -> DynamicsStage:
    model = _model("compact")
    frames = torch.from_numpy(experience.frames)
    codes, moved = encode_all(model.observation_model.eval(), frames), encode_moved(model.observation_model, frames)
    config = DynamicsTraining(updates, batch=6, length=8, moved_share=0.5)
    return DynamicsStage(model.dynamics, codes, Replay(experience, NUM_ACTIONS, config.length), config, moved=moved)


def joint_stage(experience: Experience, updates: int) -> JointStage:
    stage = JointStage(_model("faithful"), experience, JointTraining(updates, batch=6))
    stage.sampler.temperature = 0.5
    return stage


MAKERS = [observation_stage, dynamics_stage, moved_dynamics_stage, joint_stage]
every_stage = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__.removesuffix("_stage"))
Maker = Callable[[Experience, int], Any]


@pytest.fixture(scope="module")
def experience() -> Experience:
    return made_up_experience()


@every_stage
def test_resumed_stage_ends_with_the_same_weights_to_the_last_bit(
    tmp_path: Path, experience: Experience, make: Maker
) -> None:
    whole = make(experience, 6)
    run_stage(whole, tmp_path / "whole", 0)
    interrupted = make(experience, 6)
    interrupt(interrupted, 4)
    with pytest.raises(KeyboardInterrupt):
        run_stage(interrupted, tmp_path / "parts", 0, checkpoint_seconds=0)
    resumed = make(experience, 6)
    run_stage(resumed, tmp_path / "parts", 0)
    assert_same(resumed.state_dict(), whole.state_dict())


@every_stage
def test_stage_moves_all_its_weights_and_logs_finite_numbers(experience: Experience, make: Maker) -> None:
    stage = make(experience, 3)
    module = next(value for value in vars(stage).values() if isinstance(value, nn.Module))
    before = {name: weight.clone() for name, weight in module.named_parameters()}
    metrics = [stage.update(step) for step in range(3)]
    for name, weight in module.named_parameters():
        # The unknown action of separate tokens does not exist; one that is never met gets no gradient but decay.
        assert not torch.equal(weight, before[name]), f"{name} was not trained"
    for name in metrics[0]:
        assert all(entry[name].isfinite() and not entry[name].requires_grad for entry in metrics), name


@every_stage
def test_pictures_are_images(experience: Experience, make: Maker) -> None:
    for name, picture in make(experience, 3).visualize(0).items():
        assert picture.ndim == 3 and picture.shape[0] == 1, name
        assert picture.min() >= 0 and picture.max() <= 1, name


@torch.no_grad()
def _drawing_error(stage: ObservationStage) -> float:
    """Of the ball and the paddles."""
    pictures = stage.frames.unsqueeze(1).float() / 255
    probabilities = stage.model.encode(pictures).softmax(-1)
    drawn = stage.model.decode(straight_through(probabilities, most_likely(probabilities)))
    return float((drawn - pictures)[(pictures - stage.empty_scene).abs() > 0.1].square().mean())


def test_frames_are_drawn_better_after_a_while(experience: Experience) -> None:
    torch.manual_seed(0)
    config = replace(_config("compact").observation, latent=LatentConfig(64, 16))
    frames = torch.from_numpy(experience.frames)
    stage = ObservationStage(GridObservationModel(config), frames, ObservationTraining(60, batch=32))
    before = _drawing_error(stage)
    for step in range(60):
        stage.update(step)
    assert _drawing_error(stage) < 0.8 * before


def test_empty_scene_is_drawn_from_the_first_update_on(experience: Experience) -> None:
    model = observation_stage(experience, 1).model
    frames = torch.from_numpy(experience.frames).float()
    assert torch.allclose(model.background * 255, frames.median(0).values, atol=1e-3)


def test_frames_that_were_badly_drawn_come_up_more_often(experience: Experience) -> None:
    torch.manual_seed(0)
    stage = observation_stage(experience, 1)
    stage.last_losses = torch.ones(len(experience.frames))
    stage.last_losses[7] = 1000
    assert sum(int((stage._draw() == 7).sum()) for _ in range(20)) > 20 * 16 * 0.5 * 0.8


def test_codes_that_pay_for_their_entropy_settle(experience: Experience) -> None:
    def uncertainty(weight: float) -> float:
        torch.manual_seed(0)
        stage = observation_stage(experience, 40)
        stage.config = replace(stage.config, entropy_weight=weight, learning_rate=0.01)
        return [float(stage.update(step)["observation/entropy"]) for step in range(40)][-1]

    assert uncertainty(100.0) < 0.8 * uncertainty(0.0)


def test_drawing_is_mended_without_a_change_of_codes(experience: Experience) -> None:
    torch.manual_seed(0)
    model = _model("compact").observation_model
    assert isinstance(model, GridObservationModel)
    frames = torch.from_numpy(experience.frames)
    stage = DecoderStage(model, frames, ObservationTraining(60, batch=32))
    codes, background, before = encode_all(model, frames), model.background.clone(), _drawing_error(stage)
    for step in range(60):
        stage.update(step)
    assert torch.equal(encode_all(model, frames), codes) and torch.equal(model.background, background)
    assert _drawing_error(stage) < 0.8 * before


def test_steps_that_were_rarely_drawn_catch_up(experience: Experience) -> None:
    torch.manual_seed(0)
    stage = dynamics_stage(experience, 20)
    stage.sampler.visits[:] = 20
    stage.sampler.visits[40:50] = 0
    for step in range(10):
        stage.update(step)
    assert stage.sampler.visits[40:50].mean() > 5


def test_dynamics_learn_a_deterministic_world() -> None:
    torch.manual_seed(0)
    experience = made_up_experience((40, 40, 40), rewards=(0.0,))
    stage = dynamics_stage(experience, 60)
    stage.config = replace(stage.config, learning_rate=0.01)
    losses = [float(stage.update(step)["dynamics/latent"]) for step in range(60)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_rewards_too_many_to_tell_apart_can_be_learned() -> None:
    experience = made_up_experience(rewards=tuple(float(value) for value in range(50)))
    metrics = dynamics_stage(experience, 2, reward_values=()).update(0)
    assert metrics["dynamics/reward"].isfinite()


def test_codes_keep_the_probabilities_of_the_encoder(experience: Experience) -> None:
    model = tiny_model("compact").observation_model
    frames = torch.from_numpy(experience.frames)
    codes = encode_all(model, frames, batch=50)
    assert codes.dtype == torch.uint8
    expected = model.encode(frames[60:65].unsqueeze(1).float() / 255).softmax(-1)
    assert (codes[60:65] / 255 - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_half_of_the_windows_open_as_environments_do(experience: Experience) -> None:
    """Three frames whose actions and rewards nobody recorded, which are not trained on."""
    torch.manual_seed(0)
    stage = dynamics_stage(experience, 1)
    windows = stage.replay.windows(torch.arange(3, 23))  # all within the first episode
    forgotten = stage._forget_opening(windows)
    opened = (forgotten.actions[:, 0] == NUM_ACTIONS).nonzero().flatten().tolist()
    assert 4 <= len(opened) <= 16
    for row in range(20):
        hidden = 3 if row in opened else 0
        assert (forgotten.actions[row, :hidden] == NUM_ACTIONS).all()
        assert torch.equal(forgotten.actions[row, hidden:], windows.actions[row, hidden:])
        assert forgotten.real[row].tolist() == [False] * hidden + [True] * (8 - hidden)
        assert not forgotten.rewards_before[row, : hidden + (hidden > 0)].any()
        unchanged = slice(hidden + (hidden > 0), None)
        assert torch.equal(forgotten.rewards_before[row, unchanged], windows.rewards_before[row, unchanged])


def test_moved_pictures_keep_their_background() -> None:
    background = torch.linspace(0, 0.5, 64).expand(64, 64)
    picture = background.clone()
    picture[20:22, 60] = 1.0
    there, gone = move(picture[None], background, -4, 3)[0], move(picture[None], background, 0, 4)[0]
    assert (there - background).nonzero().tolist() == [[16, 63], [17, 63]]
    assert torch.equal(gone, background)


def test_moved_windows_show_moved_pictures_and_are_told_so(experience: Experience) -> None:
    stage = moved_dynamics_stage(experience, updates=4)
    nn.init.normal_(stage.move_embedding.weight[1:])
    drawn = stage.replay.windows(torch.arange(200) % len(stage.replay))
    windows = stage._move(drawn)
    ways = windows.frames // len(stage.codes)
    assert torch.equal(ways, windows.next_frames // len(stage.codes)), "the target is moved like the window"
    assert torch.equal(ways, ways[:, :1].expand_as(ways)), "a window is moved as a whole"
    assert set(ways.unique().tolist()) == set(range(len(MOVES) + 1))
    assert 0.35 < (ways > 0).float().mean() < 0.65
    stays = ways[:, 0] == 0
    expected, seen = (stage._probabilities(each.frames) for each in (drawn, windows))
    assert torch.equal(seen[stays], expected[stays])
    assert not torch.equal(seen[~stays], expected[~stays])
    assert stage.moved is not None
    row = int(windows.frames[~stays][0, 0]) - len(stage.codes)  # of the moved codes
    assert torch.equal(seen[~stays][0, 0].argmax(-1).byte(), stage.moved[row])
    stage.dynamics.eval()
    latents = stage._draw(seen)
    told, untold = (
        stage._predict(latents, windows),
        stage.dynamics(latents, windows.actions, windows.rewards_before.tanh(), windows.episodes),
    )
    assert torch.equal(told.latent[stays], untold.latent[stays]), "what is not moved is predicted as in an environment"
    assert not torch.allclose(told.latent[~stays], untold.latent[~stays])


def test_moved_windows_need_moved_codes(experience: Experience) -> None:
    stage = dynamics_stage(experience, updates=4)
    with pytest.raises(ValueError, match=r"moved_share is 0\.5, but there are no codes of moved frames"):
        DynamicsStage(stage.dynamics, stage.codes, stage.replay, replace(stage.config, moved_share=0.5))


def test_learning_rate_rises_and_falls() -> None:
    rates = [cosine(step, 100, 1.0, warm_up=10) for step in range(101)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == pytest.approx(1, rel=0.03) and 8 <= rates.index(max(rates)) <= 10
    assert rates[-1] == pytest.approx(0.01)
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))


# The paper's update


def _joint_windows(stage: JointStage, first: int = 27) -> tuple[Any, Tensor, Forecast]:
    """Two windows that cross the end of an episode, logits and a forecast of noise."""
    windows = stage._sequences(stage.replay.windows(torch.arange(first, first + 2)))
    steps, latent = stage.replay.length, stage.model.config.observation.latent
    torch.manual_seed(0)
    logits = torch.randn(2, steps + 1, latent.variables, latent.classes)
    forecast = Forecast(torch.randn_like(logits[:, 1:]), torch.randn(2, steps, 1), torch.randn(2, steps))
    return windows, logits, forecast


@pytest.mark.parametrize("first", [27, 72], ids=["ended", "cut"])
def test_latent_after_an_end_is_not_predicted_but_reward_and_end_are(experience: Experience, first: int) -> None:
    stage = joint_stage(experience, 1)
    windows, logits, forecast = _joint_windows(stage, first)
    assert windows.terminated.any() == (first == 27)
    done = windows.done
    assert done.nonzero().tolist() == [[0, 2], [1, 1]]
    _, before = stage.learner._dynamics_loss(windows, logits, forecast)
    for row, step in done.nonzero().tolist():
        latent, reward, discount = forecast.latent.clone(), forecast.reward.clone(), forecast.discount.clone()
        latent[row, step] += torch.randn_like(latent[row, step])
        _, after = stage.learner._dynamics_loss(windows, logits, replace(forecast, latent=latent))
        assert torch.equal(after["latent"], before["latent"]), "the latent after an end was predicted"
        reward[row, step] += 1
        discount[row, step] += 1
        _, after = stage.learner._dynamics_loss(windows, logits, replace(forecast, reward=reward, discount=discount))
        assert after["reward"] != before["reward"] and after["discount"] != before["discount"]


def test_context_step_is_not_trained_on(experience: Experience) -> None:
    stage = joint_stage(experience, 1)
    windows, logits, forecast = _joint_windows(stage)
    changed = Forecast(forecast.latent.clone(), forecast.reward.clone(), forecast.discount.clone())
    for part in (changed.latent, changed.reward, changed.discount):
        part[:, 0] += 1
    for name, value in stage.learner._dynamics_loss(windows, logits, forecast)[1].items():
        assert torch.equal(stage.learner._dynamics_loss(windows, logits, changed)[1][name], value), name


def test_dynamics_give_the_encoder_no_gradient(experience: Experience) -> None:
    """The encoder is moved by the decoder, by its entropy and by the consistency term."""
    frozen = JointTraining(1, batch=6, entropy_weight=0.0, consistency_weight=0.0, bfloat16=False)
    torch.manual_seed(0)
    stage = JointStage(_model("faithful"), experience, frozen)
    for parameter in stage.model.observation_model.decoder.parameters():
        parameter.data.zero_()  # then nothing flows back from the picture
    before = [parameter.clone() for parameter in stage.model.observation_model.encoder.parameters()]
    for group in stage.learner.observation_optimizer.param_groups:
        group["weight_decay"] = 0.0
    stage.update(0)
    after = stage.model.observation_model.encoder.parameters()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(after, before, strict=True))


def test_stacks_are_padded_with_the_first_frame_of_the_episode(experience: Experience) -> None:
    stage = joint_stage(experience, 1)
    windows = stage.replay.windows(torch.tensor([0, 30]))  # both episodes' first steps
    stacks = stage._stacks(windows.frames, windows.episodes)
    for row, first in enumerate((0, 31)):
        for step in range(4):
            rows = [max(first, first + step - 3 + offset) for offset in range(4)]
            expected = torch.from_numpy(experience.frames[rows])
            assert torch.equal(stacks[row, step], expected), f"episode {row}, step {step}"
