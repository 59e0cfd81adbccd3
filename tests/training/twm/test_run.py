"""A whole run, from recording to snapshot, with small models and few updates."""

import hashlib
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

pytest.importorskip("ale_py", reason="a run records real experience")

import training.recipe
import training.twm.fidelity
import training.twm.fitting
import training.twm.run
from learned_envs.fidelity.free_running import pong_free_running
from learned_envs.policy import load_policy
from learned_envs.snapshot import read_snapshot
from learned_envs.twm.config import TwmConfig
from tests.tiny import tiny_config
from training.agents.agent import load_agent
from training.agents.ppo import PpoConfig
from training.experience import ExperienceError
from training.loop import RunError
from training.recipe import ExperienceRecipe, RoundsRecipe, TwmRecipe
from training.twm.dynamics import DynamicsTraining
from training.twm.joint import JointTraining
from training.twm.observation import ObservationTraining
from training.twm.run import train

RECIPE = TwmRecipe(
    "LearnedPong-v0",
    temperature=0.5,
    experience=ExperienceRecipe(steps=16 * 80, validation_steps=16 * 80),
    observation=ObservationTraining(updates=4, batch=8),
    dynamics=DynamicsTraining(updates=4, batch=4, length=8),
    rounds=RoundsRecipe(
        count=2,
        real_steps=16 * 20,
        horizon=20,
        temperature=0.0,
        num_envs=2,
        ppo=PpoConfig(steps=16, rollout=4, minibatch=4, epochs=1, evaluation_episodes=1),
        refit=DynamicsTraining(updates=2, batch=4, length=8),
        last_refits=(DynamicsTraining(updates=3, batch=4, length=8), DynamicsTraining(updates=2, batch=4, length=8)),
        decoder=ObservationTraining(updates=2, batch=8),
    ),
    joint=JointTraining(updates=4, batch=4),
)
TOO_LITTLE = replace(RECIPE, experience=ExperienceRecipe(steps=16 * 80, validation_steps=16 * 20))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models with few starts, measured briefly."""

    def compact(num_actions: int, reward_values: tuple[float, ...]) -> Any:
        return replace(tiny_config("compact"), num_actions=num_actions, reward_values=reward_values)

    monkeypatch.setattr(training.recipe, "compact", compact)
    monkeypatch.setattr(training.recipe, "faithful", lambda count: replace(tiny_config("faithful"), num_actions=count))
    starts = partial(training.twm.run.start_bank, initial=8, anywhere=16)  # packing 512 takes longer than all else
    monkeypatch.setattr(training.twm.run, "start_bank", starts)
    measure = training.twm.run.measure_pong
    monkeypatch.setattr(training.twm.run, "measure_pong", partial(measure, rollouts=4, games=1))
    monkeypatch.setattr(training.twm.fidelity, "pong_free_running", partial(pong_free_running, steps=10))


def _weights(snapshot: Path) -> bytes:
    return (snapshot / "model.safetensors").read_bytes()


@pytest.mark.parametrize("preset", ["compact", "faithful"])
def test_run_makes_a_snapshot_that_plays(tmp_path: Path, preset: Any) -> None:
    recipe = RECIPE if preset == "compact" else replace(RECIPE, preset="faithful", rounds=RoundsRecipe())
    snapshot = train(recipe, tmp_path / "run")
    found = read_snapshot(snapshot)
    assert found.config.id == "LearnedPong-v0"
    assert found.config.environment.action_meanings == ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
    provenance = found.config.provenance
    rounds = 2 if preset == "compact" else 0
    assert provenance["real_steps"] == 16 * (80 + 20 * rounds) and provenance["recipe"]["preset"] == preset
    assert [agent["steps"] for agent in provenance["agents_in_the_real_game"]] == [16] * rounds
    assert any(policy.startswith("agent") for policy in provenance["policies"]) == bool(rounds)
    fidelity = json.loads((snapshot / "fidelity.json").read_text())
    assert fidelity["open_loop"]["rollouts"] == 4 and fidelity["free_running"]["games"] == 1
    env = gym.make("learned_envs:Learned-v0", model=str(snapshot))
    env.reset(seed=0)
    assert env.step(0)[0] in env.observation_space


def test_agents_learn_at_the_temperature_of_the_rounds(tmp_path: Path) -> None:
    finished = read_snapshot(train(RECIPE, tmp_path / "run"))
    round_one = read_snapshot(tmp_path / "run" / "round-1" / "snapshot")
    temperatures = [
        model.temperature for found in (finished, round_one) if isinstance(model := found.config.model, TwmConfig)
    ]
    assert temperatures == [0.5, 0.0]


def _began_with(agent: Path) -> str:
    return json.loads((agent / "run.json").read_text())["agent"]


def _is(agent: Path) -> str:
    return "sha256:" + hashlib.sha256((agent / "agent.safetensors").read_bytes()).hexdigest()


def test_agent_that_comes_with_the_model_goes_on_after_each_of_the_last_fits(tmp_path: Path) -> None:
    run = tmp_path / "run"
    snapshot = train(replace(RECIPE, agent=replace(RECIPE.rounds.ppo, steps=24)), run)
    last_round, between, final = (run / name / "agent" for name in ("round-2", "final-1", "final"))
    assert _began_with(between) == _is(last_round) and _began_with(final) == _is(between)
    assert _weights(run / "final-1" / "snapshot") != _weights(snapshot)
    assert _weights(run / "final" / "snapshot") == _weights(snapshot)
    learned_in = read_snapshot(run / "final" / "snapshot").config.model
    assert isinstance(learned_in, TwmConfig) and learned_in.temperature == 0.5
    played = read_snapshot(snapshot).config.provenance["agents_in_the_real_game"]
    assert [each["steps"] for each in played] == [16, 16, 24, 24]
    agent, policy = load_agent(final / "agent.safetensors"), load_policy(snapshot)
    seen = torch.randint(256, (64, 4, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected, _ = agent(seen)
    torch.testing.assert_close(policy.actor(seen).log_softmax(-1), expected.logits, atol=2e-2, rtol=0)


def test_how_often_a_step_was_drawn_is_kept_from_fit_to_fit(tmp_path: Path) -> None:
    train(RECIPE, tmp_path / "run")
    visits = [torch.load(tmp_path / "run" / f"{name}.pt")["state"]["visits"] for name in ("dynamics", "refit-2")]
    assert int(visits[0].sum()) == 4 * 4
    assert int(visits[1].sum()) == 4 * (4 + 2 + 3)
    assert (visits[1][: len(visits[0])] >= visits[0]).all()


def test_how_moves_are_told_is_kept_from_fit_to_fit(tmp_path: Path) -> None:
    """A fit without moved windows in between forgets nothing."""
    plain = RECIPE.rounds.refit
    moved = replace(plain, moved_share=1.0)
    rounds = replace(RECIPE.rounds, count=1, last_refits=(moved, plain, replace(moved, learning_rate=1e-9)))
    train(replace(RECIPE, rounds=rounds), tmp_path / "run")
    told = [
        torch.load(tmp_path / "run" / f"{name}.pt")["state"]["move_embedding"]["weight"]
        for name in ("refit-1", "refit-1-2", "refit-1-3")
    ]
    assert told[0].any() and torch.equal(told[0], told[1]) and torch.allclose(told[0], told[2], atol=1e-6)


def test_later_fits_may_have_longer_windows(tmp_path: Path) -> None:
    """There are then fewer of them."""
    longer = replace(RECIPE.rounds.refit, length=12)
    rounds = replace(RECIPE.rounds, count=1, last_refits=(RECIPE.rounds.refit, longer))
    train(replace(RECIPE, rounds=rounds), tmp_path / "run")
    visits = [torch.load(tmp_path / "run" / f"{name}.pt")["state"]["visits"] for name in ("refit-1", "refit-1-2")]
    assert len(visits[1]) < len(visits[0]) and (visits[1] >= visits[0][: len(visits[1])]).all()


def test_finished_run_may_be_moved_and_is_left_alone(tmp_path: Path) -> None:
    snapshot = train(RECIPE, tmp_path / "here")
    weights = _weights(snapshot)
    (tmp_path / "here").rename(tmp_path / "there")
    snapshot = tmp_path / "there" / "snapshot"
    written = (snapshot / "config.json").stat().st_mtime_ns
    assert train(RECIPE, tmp_path / "there") == snapshot
    assert (snapshot / "config.json").stat().st_mtime_ns == written
    shutil.rmtree(snapshot)
    assert _weights(train(RECIPE, tmp_path / "there")) == weights, "no stage depends on where it lies"


def test_interrupted_run_makes_the_same_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(RECIPE, tmp_path / "whole")
    run, fitting = training.twm.run, training.twm.fitting
    followed_by = {
        "observation": (fitting, "encode_all"),
        "dynamics": (run, "train_ppo"),
        "refit-2": (run, "measure_pong"),
    }
    for name, (module, stage) in followed_by.items():

        def interrupt(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, stage, interrupt)
            train(RECIPE, tmp_path / "parts")
        assert (tmp_path / "parts" / f"{name}.pt").is_file()
    resumed = train(RECIPE, tmp_path / "parts")
    assert _weights(resumed) == _weights(whole)
    assert (resumed / "fidelity.json").read_bytes() == (whole / "fidelity.json").read_bytes()


def test_folder_of_another_recipe_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"id": "LearnedBoxing-v0"}))
    with pytest.raises(RunError, match="another recipe"):
        train(RECIPE, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_too_little_experience_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ExperienceError, match="Collect more"):
        train(TOO_LITTLE, tmp_path)
    assert not list(tmp_path.glob("*.pt"))
