"""Fitting to recorded episodes: it learns, it resumes, and the loss is the paper's."""

from pathlib import Path

import pytest
import torch

from learned_envs.awm.config import BackboneName, Family
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.envs.real.systems import make_system
from tests.training.sameness import assert_same, interrupt
from training.awm.episodes import Episodes, first_action_plans, record, uniform_plans
from training.awm.fit import FitStage, Fitting, make_model, model_loss, prediction_error
from training.loop import run_stage

SYSTEM = make_system("CancerTreatment", horizon=8)
FORMS: list[tuple[Family, BackboneName]] = [("markov", "mlp"), ("awm", "rnn"), ("awm", "transformer"), ("hwm", "lstm")]
every_form = pytest.mark.parametrize(("family", "backbone"), FORMS, ids=["-".join(form) for form in FORMS])


@pytest.fixture(scope="module")
def episodes() -> Episodes:
    torch.manual_seed(0)
    return record(SYSTEM, uniform_plans(SYSTEM, 64))


def model_of(family: Family, backbone: BackboneName, reward: str = "known") -> ContinuousWorldModel:
    torch.manual_seed(1)
    return make_model(SYSTEM, family, backbone, "compact", reward)  # type: ignore[arg-type]


@every_form
def test_fit_lowers_the_error_of_rollouts_that_were_held_back(
    tmp_path: Path, episodes: Episodes, family: Family, backbone: BackboneName
) -> None:
    torch.manual_seed(2)
    held_back = record(SYSTEM, uniform_plans(SYSTEM, 16))
    stage = FitStage(
        model_of(family, backbone), episodes, Fitting(updates=200, batch=32, learning_rate=5e-3, decay=True)
    )
    before = prediction_error(stage.model, held_back)
    assert before.shape == (8,)
    run_stage(stage, tmp_path, 0)
    assert prediction_error(stage.model, held_back).mean() < 0.25 * before.mean()


def test_learned_reward_is_fitted_too(tmp_path: Path, episodes: Episodes) -> None:
    stage = FitStage(model_of("awm", "rnn", "learned"), episodes, Fitting(updates=150, batch=32, learning_rate=3e-3))

    def error() -> float:
        _, rewards = stage.model.imagine(episodes.observations[:, 0], episodes.actions)
        return float((rewards - episodes.rewards).detach().square().mean())

    before = error()
    run_stage(stage, tmp_path, 0)
    assert error() < 0.3 * before


@pytest.mark.parametrize("reward", ["known", "learned"])
def test_resumed_fit_ends_with_the_same_weights_to_the_last_bit(
    tmp_path: Path, episodes: Episodes, reward: str
) -> None:
    def stage() -> FitStage:
        return FitStage(model_of("awm", "transformer", reward), episodes, Fitting(updates=8, batch=8))

    whole, interrupted, resumed = stage(), stage(), stage()
    run_stage(whole, tmp_path / "whole", 0)
    interrupt(interrupted, 5)
    with pytest.raises(KeyboardInterrupt):
        run_stage(interrupted, tmp_path / "parts", 0, checkpoint_seconds=0)
    run_stage(resumed, tmp_path / "parts", 0)
    assert_same(resumed.state_dict(), whole.state_dict())


def test_loss_is_half_the_mean_square_with_the_clock_counting_as_zero(episodes: Episodes) -> None:
    model = model_of("awm", "rnn")
    model.fit_normalization(episodes.observations)
    predicted = model(episodes.observations[:, :-1], episodes.actions)
    error = (predicted - episodes.observations[:, 1:])[..., 0] / model.target_normalizer.scale
    expected = torch.stack([error, torch.zeros_like(error)], -1).square().mean() / 2
    assert torch.allclose(model_loss(model, episodes), expected, atol=1e-7)


def test_known_reward_is_the_systems_with_its_terminal_cost() -> None:
    for name in ("Bacteria", "InvasivePlant", "Harvest", "OneBounce", "CopyTask"):
        system = make_system(name, horizon=6, fixed="dt")
        played = record(system, uniform_plans(system, 5))
        rewards = make_model(system, "markov").reward(played.observations[:, :-1], played.actions)
        assert torch.allclose(rewards, played.rewards, rtol=1e-5, atol=1e-6), name


def test_windows_are_parts_of_episodes(episodes: Episodes) -> None:
    windows = episodes.windows(200, 3)
    assert windows.observations.shape == (200, 4, 2) and windows.rewards.shape == (200, 3)
    first = windows.observations[:, 0, 1].long()
    assert first.unique().tolist() == [0, 1, 2, 3, 4, 5], "windows begin at every step that leaves room"
    for row in range(5):
        source = (episodes.actions[:, int(first[row])] == windows.actions[row, 0]).flatten().nonzero()[0, 0]
        assert torch.equal(episodes.observations[source, first[row] : first[row] + 4], windows.observations[row])
    assert len(episodes.windows(3).rewards[0]) == 8


def test_oldest_episodes_are_forgotten(episodes: Episodes) -> None:
    both = episodes.add(record(SYSTEM, uniform_plans(SYSTEM, 2)), capacity=3 * 8)
    assert len(both) == 3 and torch.equal(both.actions[0], episodes.actions[-1])


def test_only_the_first_action_is_played() -> None:
    plans = first_action_plans(torch.tensor([[0.5], [-0.5]]), 4)
    assert plans[:, :, 0].tolist() == [[0.5, 0, 0, 0], [-0.5, 0, 0, 0]]


def test_bad_input(episodes: Episodes) -> None:
    with pytest.raises(ValueError, match="updates is 0"):
        Fitting(updates=0)
    with pytest.raises(ValueError, match="no episodes yet"):
        Episodes.none(SYSTEM).windows(3)
    with pytest.raises(ValueError, match="length is 9"):
        episodes.windows(3, 9)
    with pytest.raises(ValueError, match=r"expected \(N, 8, 1\)"):
        record(SYSTEM, torch.zeros(2, 5, 1))
    with pytest.raises(ValueError, match=r"expected \(N, H \+ 1, n\)"):
        Episodes(episodes.observations[:, 1:], episodes.actions, episodes.rewards)
    with pytest.raises(ValueError, match="more than its state and the clock"):
        make_model(make_system("CopyTask", show_phase=True), "markov")
    with pytest.raises(ValueError, match="anywhere is 2"):
        Fitting(anywhere=2)
    with pytest.raises(ValueError, match="backbone is 'mlp'"):
        make_model(SYSTEM, "awm", "mlp")
