"""Agents trained in imagination, judged in reality: the comparison, its arithmetic, its resuming, its refusals."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from rich.console import Console

from learned_envs.cli import main
from learned_envs.sb3 import make_vec_env
from learned_envs.transfer import TransferConfig, compare, comparison
from learned_envs.transfer.agents import AGENTS, Settings, settings
from learned_envs.transfer.report import rows_of
from learned_envs.transfer.training import Evaluation, Training, _Task
from tests.tiny import CONTROL_HORIZON

NUMBERS = gym.spaces.Box(-1, 1, (3,), np.float32)
OFF_POLICY = ("dqn", "sac", "td3")
PICTURES = gym.spaces.Box(0, 255, (4, 64, 64), np.uint8)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every agent in a size for tests."""
    on_policy = {"n_steps": 4, "policy_kwargs": {"net_arch": [8]}}
    off_policy = {"learning_starts": 4, "buffer_size": 80, "batch_size": 4, "policy_kwargs": {"net_arch": [8]}}
    for name, kinds in AGENTS.items():
        for kind, each in kinds.items():
            sizes = (
                off_policy
                if name in ("dqn", "sac", "td3")
                else on_policy | ({"batch_size": 4} if name == "ppo" else {})
            )
            small = Settings(each.algorithm, 2, each.keywords | sizes, each.anneal, each.greedy)
            monkeypatch.setitem(kinds, kind, small)


def _silent() -> Console:
    return Console(quiet=True)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("agent", ["ppo", "a2c", "sac", "td3"])
def test_comparison_of_a_control_problem_says_what_every_training_came_to(
    tiny_snapshots: dict[str, Path], tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tell_real_steps(monkeypatch, 16)
    config = TransferConfig(str(tiny_snapshots["awm-transformer"]), agent, 24, seeds=2, evaluations=2, episodes=3)
    rows = compare(config, tmp_path, console=_silent())
    assert [(row.trained_in, row.steps, row.real_steps) for row in rows] == [
        ("random", 0, 0),
        ("imagination", 24, 16),
        ("reality, as many real steps", 16, 16),
        ("reality, as many steps", 24, 24),
    ]
    assert all(row.episodes == 6 and row.gap == row.imagined - row.real for row in rows)
    shares = (0, 1) if rows[3].real > rows[0].real else (None, None)  # so little training may lead nowhere
    assert (rows[0].share, rows[3].share) == shares
    found = json.loads((tmp_path / "transfer.json").read_text())
    assert found["config"]["agent"] == agent and found["real_steps_of_the_model"] == 16
    assert [each["steps"] for each in found["evaluations"]["imagination"][0]] == (
        [12, 24] if agent in OFF_POLICY else [8, 24]
    )
    assert all(len(each["real"]) == 3 for runs in found["evaluations"].values() for run in runs for each in run)
    assert "reality, as many real steps" in (tmp_path / "table.txt").read_text()
    assert (tmp_path / "returns.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "imagination-1" / "checkpoint-2" / "agent.zip").is_file()
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("checkpoint-1"))


@pytest.mark.usefixtures("quick")
def test_baseline_of_fewer_steps_than_the_agent_takes_at_once_is_left_out(
    tiny_snapshots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _tell_real_steps(monkeypatch, 7)
    config = TransferConfig(str(tiny_snapshots["markov-mlp"]), "a2c", 8, evaluations=1, episodes=1)
    rows = compare(config, tmp_path)
    assert [row.trained_in for row in rows] == ["random", "imagination", "reality, as many steps"]
    assert rows[1].real_steps == 7
    assert "the model was made from 7, but A2C takes 8 at once with 2 environments" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_every_evaluation_is_told_as_it_comes(
    tiny_snapshots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TransferConfig(str(tiny_snapshots["markov-mlp"]), "a2c", 16, evaluations=2, episodes=2, baselines=False)
    compare(config, tmp_path)
    found = json.loads((tmp_path / "transfer.json").read_text())["evaluations"]["imagination"][0]
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("imagination, seed 0")]
    assert [each["steps"] for each in found] == [8, 16]
    assert told == [
        f"imagination, seed 0, {each['steps']} steps: "
        f"{np.mean(each['imagined']):.2f} ± {np.std(each['imagined']):.2f} in imagination, "
        f"{np.mean(each['real']):.2f} ± {np.std(each['real']):.2f} in reality (2 episodes each)"
        for each in found
    ]
    compare(config, tmp_path)
    assert told[-1] in capsys.readouterr().out, "who resumes does not see what was found before"


@pytest.mark.usefixtures("quick")
def test_baseline_takes_as_many_real_steps_as_the_model_even_if_those_are_more(
    tiny_snapshots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TransferConfig(str(tiny_snapshots["markov-mlp"]), "a2c", 8, evaluations=1, episodes=1)
    _tell_real_steps(monkeypatch, 16)
    rows = compare(config, tmp_path / "more")
    assert [(row.trained_in, row.steps) for row in rows[1:]] == [
        ("imagination", 8),
        ("reality, as many real steps", 16),
        ("reality, as many steps", 8),
    ]
    _tell_real_steps(monkeypatch, 9)
    assert [row.trained_in for row in compare(config, tmp_path / "same")][2:] == ["reality, as many steps"]
    assert "9, which is as many steps as in imagination" in capsys.readouterr().out


@pytest.mark.usefixtures("quick")
def test_real_steps_that_are_no_number_are_unknown(
    tiny_snapshots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tell_real_steps(monkeypatch, "about 16")
    config = TransferConfig(str(tiny_snapshots["markov-mlp"]), "a2c", 8, evaluations=1, episodes=1)
    rows = compare(config, tmp_path)
    assert [row.trained_in for row in rows] == ["random", "imagination", "reality, as many steps"]
    assert rows[1].real_steps is None


def _tell_real_steps(monkeypatch: pytest.MonkeyPatch, steps: Any) -> None:
    load = comparison.load_pretrained

    def told(model: Any) -> Any:
        pretrained = load(model)
        pretrained.config.provenance["real_steps"] = steps
        return pretrained

    monkeypatch.setattr(comparison, "load_pretrained", told)


@pytest.mark.usefixtures("quick")
def test_comparison_is_of_one_model(tiny_snapshots: dict[str, Path], tmp_path: Path) -> None:
    """A folder may hold another one by now: what was found with the old is not mixed with what is found with the new."""
    model = tmp_path / "model"
    config = TransferConfig(str(model), "ppo", 16, evaluations=1, episodes=2, baselines=False)
    copytree(tiny_snapshots["awm-transformer"], model)
    compare(config, tmp_path / "out", console=_silent())
    compare(replace(config, id=f"{model}/"), tmp_path / "out", console=_silent())
    rmtree(model)
    copytree(tiny_snapshots["markov-mlp"], model)
    with pytest.raises(ValueError, match=r"holds another comparison \(it differs in: weights\)"):
        compare(config, tmp_path / "out", console=_silent())


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("agent", ["ppo", "dqn", "sac"])
def test_interrupted_comparison_ends_where_an_uninterrupted_one_does(
    tiny_snapshots: dict[str, Path], tmp_path: Path, agent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "compact" if agent == "dqn" else "awm-transformer"
    if agent == "dqn":  # the small game has three actions, Pong has six: here it is its own twin
        monkeypatch.setattr(comparison, "make_real_vec_env", comparison.make_vec_env)
    config = TransferConfig(str(tiny_snapshots[kind]), agent, 48, evaluations=3, episodes=2, baselines=False)
    compare(config, tmp_path / "whole", console=_silent())
    keep, calls = Training._keep, []

    def interrupted(*arguments: Any) -> None:
        keep(*arguments)
        calls.append(None)
        if len(calls) < 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Training, "_keep", interrupted)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            compare(config, tmp_path / "parts", console=_silent())
    compare(config, tmp_path / "parts", console=_silent())
    assert len(calls) == 3, "a stretch was trained twice"
    whole, parts = (json.loads((tmp_path / name / "transfer.json").read_text()) for name in ("whole", "parts"))
    assert whole == parts
    compare(config, tmp_path / "parts", console=_silent())
    assert len(calls) == 3, "a finished training was trained again"
    with pytest.raises(ValueError, match=r"holds another comparison \(it differs in: steps\)"):
        compare(TransferConfig(config.id, agent, 60, evaluations=3, episodes=2, baselines=False), tmp_path / "parts")


@pytest.mark.usefixtures("quick")
def test_damaged_folder_is_told_by_the_name_of_its_file(tiny_snapshots: dict[str, Path], tmp_path: Path) -> None:
    config = TransferConfig(str(tiny_snapshots["markov-mlp"]), "a2c", 16, evaluations=2, episodes=1, baselines=False)
    compare(config, tmp_path, console=_silent())
    training = tmp_path / "imagination-0"
    kept = json.loads((training / "evaluations.json").read_text())
    (training / "evaluations.json").write_text(json.dumps(kept[:1]))
    with pytest.raises(ValueError, match=r"checkpoint-1 is missing.* Remove .*imagination-0 to begin it anew"):
        compare(config, tmp_path, console=_silent())
    for path in (training / "evaluations.json", tmp_path / "config.json"):  # the latter is looked at after the former
        whole = path.read_text()
        for content in ('{"steps"', '["steps"]'):
            path.write_text(content)
            with pytest.raises(ValueError, match=rf"{path.name} is damaged"):
                compare(config, tmp_path, console=_silent())
        path.write_text(whole)


def test_missing_matplotlib_is_told_before_anything_is_trained(
    tiny_snapshots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r'pip install "learned-envs\[sb3\]"'):
        compare(TransferConfig(str(tiny_snapshots["markov-mlp"])), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("quick")
def test_schedules_span_the_whole_training(tiny_snapshots: dict[str, Path], tmp_path: Path) -> None:
    config = TransferConfig(
        str(tiny_snapshots["awm-transformer"]), "ppo", 32, evaluations=4, episodes=1, baselines=False
    )
    rates: list[float] = []
    keep = Training._keep

    def noted(self: Training, agent: Any, *rest: Any) -> None:
        rates.append(agent.policy.optimizer.param_groups[0]["lr"])
        keep(self, agent, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_keep", noted)
        compare(config, tmp_path, console=_silent())
    assert rates == pytest.approx([3e-4 * share for share in (0.75, 0.5, 0.25, 0.0)], abs=1e-9)


def test_rows_sum_up_the_last_evaluations_of_all_seeds() -> None:
    found = {
        "random": [[Evaluation(0, (0.0, 2.0), (-1.0, 1.0))]] * 2,
        "imagination": [[Evaluation(5, (0.0, 0.0), (0.0, 0.0)), Evaluation(9, (8.0, 8.0), (4.0, 6.0))]] * 2,
        "reality, as many steps": [[Evaluation(9, (3.0, 3.0), (10.0, 10.0))]] * 2,
    }
    random, imagination, reality = rows_of(found, None)
    assert (random.imagined, random.real, random.real_steps, random.share) == (1, 0, 0, 0)
    assert (imagination.steps, imagination.real_steps, imagination.episodes) == (9, None, 4)
    assert (imagination.imagined, imagination.real, imagination.real_sd, imagination.gap) == (8, 5, 1, 3)
    assert (imagination.share, reality.share, reality.real_steps) == (0.5, 1, 9)
    found["reality, as many steps"] = [[Evaluation(9, (0.0,), (-2.0,))]]
    assert [row.share for row in rows_of(found, None)] == [None] * 3, (
        "there is no way to where random actions are better"
    )
    without = rows_of({name: found[name] for name in ("random", "imagination")}, 7)
    assert [row.share for row in without] == [None, None] and without[1].real_steps == 7


def test_agents_that_cannot_learn_there_are_refused(tmp_path: Path) -> None:
    box, discrete = gym.spaces.Box(-1, 1, (2,), np.float32), gym.spaces.Discrete(6)
    with pytest.raises(ValueError, match=r"'dqn', which takes one of several actions, but .* Use ppo, a2c, sac, td3"):
        settings("dqn", "LearnedX", NUMBERS, box)
    with pytest.raises(ValueError, match=r"'sac', which takes numbers.*Use ppo, a2c, dqn\."):
        settings("sac", "LearnedX", PICTURES, discrete)
    with pytest.raises(ValueError, match="agent is 'reinforce', expected one of ppo"):
        settings("reinforce", "LearnedX", PICTURES, discrete)
    with pytest.raises(ValueError, match=r"steps is 1,000, but SAC only collects for the first 1,000\."):
        compare(TransferConfig("LearnedBacteria-v0", "sac", 1000), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for name in ("steps", "seeds", "n_envs", "evaluations", "episodes"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            TransferConfig("LearnedPong-v0", **{name: 0})  # type: ignore[arg-type]


def test_command_line_refuses_in_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments, message in (
        (["LearnedPong-v0", "--agent", "sac"], "which takes numbers as actions, but LearnedPong-v0 has Discrete(6)"),
        (["LearnedPing-v0"], "did you mean LearnedPong-v0"),
        (["LearnedPong-v0", "--device", "nowhere"], "'nowhere' is not available"),
        (["LearnedPong-v0", "--steps", "100"], "steps is 100, but PPO takes 2,048 at once"),
    ):
        with pytest.raises(SystemExit):
            main(["transfer", *arguments, "--out", str(tmp_path / "out")])
        captured = capsys.readouterr().err
        assert message in captured and captured.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("quick")
def test_command_line_compares_learned_pong_with_pong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = {"max_episode_steps": 6}
    for name in ("make_vec_env", "make_real_vec_env"):
        make: Any = getattr(comparison, name)
        monkeypatch.setattr(comparison, name, lambda *given, make=make, **more: make(*given, **more, **short))
    arguments = ["--steps", "16", "--evaluations", "2", "--episodes", "2", "--no-baselines", "--out", str(tmp_path)]
    main(["transfer", "LearnedPong-v0", *arguments])
    printed = capsys.readouterr().out
    assert "PPO in LearnedPong-v0" in printed and "99,920" in printed and str(tmp_path) in printed.replace("\n", "")


def test_horizon_of_a_control_problem_is_an_end_and_rewards_of_games_are_signs(tiny_snapshots: dict[str, Path]) -> None:
    envs = _Task(make_vec_env(tiny_snapshots["awm-transformer"], 2), control=True)
    envs.reset()
    for _ in range(CONTROL_HORIZON - 1):
        assert not envs.step(np.zeros((2, 1), np.float32))[2].any()
    _, _, dones, infos = envs.step(np.zeros((2, 1), np.float32))
    assert dones.all() and infos[0]["TimeLimit.truncated"] is False and "terminal_observation" in infos[0]
    game = _Task(make_vec_env(tiny_snapshots["compact"], 8), control=False)
    game.reset()
    rewards = np.concatenate([game.step(np.zeros(8, int))[1] for _ in range(10)])
    assert set(np.unique(rewards)) <= {-1.0, 0.0, 1.0}
