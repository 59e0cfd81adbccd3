"""``python -m training ppo``: trained inside a model, judged in reality."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.tiny import CONTROL_HORIZON
from training.agents.agent import AgentError, load_agent
from training.agents.ppo import PpoConfig
from training.agents.run import PpoRun, train_ppo
from training.loop import RunError

CONFIG = PpoConfig(2 * 2 * 8, rollout=8, minibatch=16, epochs=1, evaluation_episodes=2)


@pytest.mark.parametrize("real", [False, True])
def test_agent_of_a_control_problem_is_trained_judged_and_kept(
    tiny_snapshots: dict[str, Path], tmp_path: Path, real: bool
) -> None:
    run = PpoRun(str(tiny_snapshots["awm-transformer"]), num_envs=2, real=real, hidden=16)
    result = train_ppo(run, CONFIG, tmp_path)
    (evaluation,) = result["evaluations"]
    assert evaluation["steps"] == 32 and evaluation["episodes"] == 2 and evaluation["lengths"] == [30, 30]
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert load_agent(tmp_path / "agent.safetensors").config.hidden == 16
    assert train_ppo(run, CONFIG, tmp_path) == result, "a finished run is read"
    with pytest.raises(RunError, match="differs in: seed"):
        train_ppo(PpoRun(run.id, num_envs=2, seed=1, real=real, hidden=16), CONFIG, tmp_path)


def test_training_goes_on_from_an_agent_that_fits(tiny_snapshots: dict[str, Path], tmp_path: Path) -> None:
    id = str(tiny_snapshots["awm-transformer"])
    train_ppo(PpoRun(id, num_envs=2, hidden=16), CONFIG, tmp_path / "first")
    path = str(tmp_path / "first" / "agent.safetensors")
    train_ppo(PpoRun(id, num_envs=2, agent=path), CONFIG, tmp_path / "second")
    assert load_agent(tmp_path / "second" / "agent.safetensors").config.hidden == 16
    with pytest.raises(AgentError, match="trained for another"):
        train_ppo(PpoRun(str(tiny_snapshots["markov-mlp"]), num_envs=2, agent=path), CONFIG, tmp_path / "third")


@pytest.mark.parametrize("real", [False, True])
def test_new_agent_takes_the_actions_that_it_is_told(
    tiny_snapshots: dict[str, Path], tmp_path: Path, real: bool
) -> None:
    pytest.importorskip("ale_py", reason="the words of a game's actions are its emulator's")
    run = PpoRun("LearnedPong-v0" if real else str(tiny_snapshots["compact"]), num_envs=2, real=real, hidden=16)
    run = replace(run, actions=("NOOP", "RIGHT"))
    envs = run.make_envs(torch.device("cpu"))
    agent = run.make_agent(envs)
    assert set(agent.act(torch.randint(256, (100, 4, 64, 64), dtype=torch.uint8)).tolist()) == {0, 2}
    with pytest.raises(AgentError, match=r"There is no action JUMP: .* NOOP, FIRE, RIGHT"):
        replace(run, actions=("NOOP", "JUMP")).make_agent(envs)
    envs.close()


def test_actions_that_an_agent_cannot_be_told_are_refused(tiny_snapshots: dict[str, Path], tmp_path: Path) -> None:
    run = PpoRun(str(tiny_snapshots["markov-mlp"]), num_envs=2, hidden=16, actions=("NOOP",))
    with pytest.raises(AgentError, match="have no words"):
        train_ppo(run, CONFIG, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="actions are of a new agent"):
        replace(run, agent="agent.safetensors")


def test_ends_that_mean_different_things_are_refused(tiny_snapshots: dict[str, Path], tmp_path: Path) -> None:
    """By the clock, after which nothing follows, and by the limit, after which something does."""
    run = PpoRun(
        str(tiny_snapshots["awm-transformer"]),
        num_envs=2,
        hidden=16,
        starts="anywhere",
        max_episode_steps=CONTROL_HORIZON - 1,
    )
    with pytest.raises(AgentError, match="or at the horizon, and nothing does"):
        train_ppo(run, CONFIG, tmp_path)
    train_ppo(run, replace(CONFIG, truncation_ends=True), tmp_path)
    train_ppo(replace(run, max_episode_steps=CONTROL_HORIZON), CONFIG, tmp_path / "whole")


def test_run_is_told_apart_by_what_its_model_is_not_by_its_name(tiny_snapshots: dict[str, Path]) -> None:
    bundled, folder = PpoRun("LearnedHarvest-v0"), PpoRun(str(tiny_snapshots["markov-mlp"]))
    digests = {run.describe()["id"] for run in (bundled, folder)}
    assert len(digests) == 2 and all(digest.startswith("sha256:") for digest in digests)
    assert PpoRun("LearnedHarvest-v0", real=True).describe()["id"] == "LearnedHarvest-v0"
