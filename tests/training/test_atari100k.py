"""Whole runs of Atari 100k, with small networks and few steps of the real Breakout: results, interruptions, refusals."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

pytest.importorskip("ale_py", reason="a run plays the real game")

import learned_envs
import training.__main__
import training.agents.collector
import training.atari100k
import training.atari100k_config
from learned_envs.envs.real.atari import make_atari
from learned_envs.policy import Policy, PolicyConfig
from learned_envs.snapshot import read_snapshot
from tests.tiny import tiny_config, tiny_model
from tests.training.sameness import assert_same
from training.agents import requirements
from training.agents.collector import Collector, evaluate
from training.agents.compact_world import CompactTraining
from training.agents.paper_world import PaperTraining
from training.agents.replay import AgentReplay
from training.atari100k import train
from training.atari100k_config import GAMES, Atari100kConfig, ablated, game_names, preset, reduced
from training.loop import RunError
from training.twm.dynamics import DynamicsTraining
from training.twm.joint import JointTraining
from training.twm.observation import ObservationTraining

PRESETS = ["faithful", "compact"]


def tiny_run(kind: Any, **changes: Any) -> Atari100kConfig:
    """A run of half a minute that goes through everything."""
    config = replace(
        preset(kind, "Breakout"),
        steps=260,
        prefill=150,
        evaluate_every=200,
        evaluation_games=2,
        final_games=3,
        paper=PaperTraining(
            joint=JointTraining(batch=4),
            observation_samples=300,
            observation_batch=60,
            dynamics_samples=300,
            agent_samples=300,
            agent_windows=5,
        ),
        compact=CompactTraining(
            observation=ObservationTraining(updates=4, batch=8),
            dynamics=DynamicsTraining(updates=3, batch=3, length=8),
            online=DynamicsTraining(updates=0, batch=3, length=8),
            refresh_every=3,
            refine_every=6,
            refinement=2,
            context=5,
        ),
    )
    agent = replace(config.agent, starts=10, horizon=3, hidden=(16, 16))
    return reduced(replace(config, agent=agent, **changes), None, 20)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small models, and games that are judged after 40 steps."""
    for name, value in _small().items():
        monkeypatch.setattr(name, value)


def _small() -> dict[str, Any]:
    def compact(num_actions: int, reward_values: tuple[float, ...]) -> Any:
        return replace(tiny_config("compact"), num_actions=num_actions, reward_values=reward_values, context=8)

    def faithful(num_actions: int) -> Any:
        return replace(tiny_config("faithful"), num_actions=num_actions, context=17)

    return {
        "training.atari100k_config.compact": compact,
        "training.atari100k_config.faithful": faithful,
        "training.agents.collector.make_atari": partial(make_atari, max_episode_steps=40),
    }


def make_small() -> None:
    """The same outside of pytest."""
    training.atari100k_config.compact = _small()["training.atari100k_config.compact"]
    training.atari100k_config.faithful = _small()["training.atari100k_config.faithful"]
    training.agents.collector.make_atari = _small()["training.agents.collector.make_atari"]


def _final_state(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Keeps what a run ends with, before it is packed away in half precision."""
    states: list[dict[str, Any]] = []
    finish = training.atari100k._Run.finish

    def keep(run: Any) -> Any:
        states.append(
            {"world": run.world.state_dict(), "agent": run.agent.state_dict(), "evaluations": run.evaluations}
        )
        return finish(run)

    monkeypatch.setattr(training.atari100k._Run, "finish", keep)
    return states


@pytest.mark.parametrize("kind", PRESETS)
def test_run_ends_with_a_score_and_a_snapshot_that_plays_and_is_played(tmp_path: Path, kind: Any) -> None:
    config = tiny_run(kind)
    result = train(config, tmp_path)
    assert result == json.loads((tmp_path / "result.json").read_text()) == train(config, tmp_path)
    assert len(result["scores"]) == 3 and result["score"] == pytest.approx(sum(result["scores"]) / 3)
    assert [entry["steps"] for entry in result["evaluations"]] == [150, 200]
    assert result["interactions"] == 260 and result["uncounted_emulator_frames"] > 0
    assert not list(tmp_path.glob("*.pt")), "checkpoints of a finished run are left behind"
    assert list((tmp_path / "logs" / "scores").iterdir()), "nothing for TensorBoard"

    snapshot = tmp_path / "snapshot"
    found = read_snapshot(snapshot)
    assert found.config.id == "LearnedBreakout-v0" and found.config.provenance["atari100k"]["score"] == result["score"]
    learned = gym.make("learned_envs:Learned-v0", model=str(snapshot))
    policy = learned_envs.load_policy(snapshot)
    real = learned_envs.make_real("LearnedBreakout-v0")
    for env in (learned, real):
        observation, _ = env.reset(seed=0)
        for _ in range(5):
            action, _ = policy.predict(observation)
            observation, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                observation, _ = env.reset()


@pytest.mark.parametrize("kind", PRESETS)
def test_run_killed_at_ten_random_points_ends_with_the_same_weights_to_the_last_bit(
    tmp_path: Path, kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, states = tiny_run(kind), _final_state(monkeypatch)
    ticks = _count_ticks(monkeypatch)
    whole = train(config, tmp_path / "whole")
    total, kills, draws = ticks["count"], 0, random.Random(0)
    while True:
        ticks["left"] = draws.randint(1, total // 4) if kills < 10 else 10**9
        try:
            parts = train(config, tmp_path / "parts", checkpoint_seconds=draws.choice([0.0, 0.2]))
            break
        except KeyboardInterrupt:
            kills += 1
    if kills < 10:
        pytest.fail(f"the run was over after {kills} kills")
    assert_same(states[-1], states[0])
    assert parts["scores"] == whole["scores"]
    for name in ("model.safetensors", "policy.safetensors", "starts.safetensors"):
        mine, theirs = (tmp_path / run / "snapshot" / name for run in ("parts", "whole"))
        assert mine.read_bytes() == theirs.read_bytes(), name


def _count_ticks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts steps of the game, gradients and writes, and interrupts when the ticks that are left are used up."""
    ticks = {"count": 0, "left": 10**9}

    def ticking(function: Callable[..., Any]) -> Callable[..., Any]:
        def tick(*arguments: Any, **keywords: Any) -> Any:
            ticks["count"] += 1
            ticks["left"] -= 1
            if ticks["left"] < 0:
                raise KeyboardInterrupt
            return function(*arguments, **keywords)

        return tick

    monkeypatch.setattr(Collector, "_take", ticking(Collector._take))
    monkeypatch.setattr(torch.Tensor, "backward", ticking(torch.Tensor.backward))
    monkeypatch.setattr(torch, "save", ticking(torch.save))
    monkeypatch.setattr(os, "replace", ticking(os.replace))
    return ticks


_CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.training.test_atari100k import make_small, tiny_run
from training.atari100k import train
make_small()
train(tiny_run(sys.argv[1]), Path(sys.argv[2]), checkpoint_seconds=0.2)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", PRESETS)
def test_process_killed_ten_times_ends_with_the_same_snapshot(tmp_path: Path, kind: str) -> None:
    def start(folder: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", _CHILD, kind, str(tmp_path / folder)])

    begin = time.monotonic()
    assert start("whole").wait() == 0
    length, draws, kills = time.monotonic() - begin, random.Random(1), 0
    while kills < 10:
        process = start("parts")
        try:
            assert process.wait(draws.uniform(0.3, 0.9) * length) == 0
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    assert start("parts").wait() == 0 and kills > 0
    for name in ("model.safetensors", "policy.safetensors", "starts.safetensors"):
        mine, theirs = (tmp_path / run / "snapshot" / name for run in ("parts", "whole"))
        assert mine.read_bytes() == theirs.read_bytes(), name


# Playing


def _collector(seed: int = 0) -> Collector:
    return Collector("Breakout", seed, AgentReplay(400))


def _play(collector: Collector, steps: int) -> None:
    for _ in range(steps):
        torch.manual_seed(len(collector.replay))
        collector.random_step()


def test_lost_life_ends_an_episode_and_the_game_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.agents.collector, "make_atari", make_atari)
    collector = _collector()
    _play(collector, 300)
    arrays = collector.replay.arrays
    assert arrays["terminated"][:300].sum() >= 6 and collector.number >= 1, "too short to show it"
    assert collector.number < arrays["terminated"][:300].sum()
    begins = [0, *(arrays["done"][:300].nonzero()[0] + 1)]
    collector.replay.sync()
    for step in begins[:-1]:
        stack = collector.replay.observations(torch.tensor(step))
        assert (stack == stack[0]).all(), "a stack shows frames of another episode"


def test_interrupted_game_is_taken_up_where_it_stood(tmp_path: Path) -> None:
    whole = _collector()
    _play(whole, 190)
    state, steps = whole.state_dict(), whole.replay.save(tmp_path)
    _play(whole, 60)
    resumed = _collector()
    resumed.replay.load(tmp_path, steps)
    resumed.load_state_dict(state, None)
    _play(resumed, 60)
    for name, array in whole.replay.arrays.items():
        assert (array == resumed.replay.arrays[name]).all(), name
    assert (whole.replay.frames == resumed.replay.frames).all()


def test_emulator_that_does_not_repeat_the_recording_is_told(tmp_path: Path) -> None:
    collector = _collector()
    _play(collector, 20)
    state = collector.state_dict()
    collector.replay.frames[collector.replay.num_frames - 1] += 1
    with pytest.raises(RunError, match="does not repeat the recorded game 0 of Breakout"):
        collector.load_state_dict(state, None)


def test_evaluation_plays_whole_games_once_each_and_repeats_itself() -> None:
    torch.manual_seed(0)
    model = tiny_model("faithful", config=replace(tiny_config("faithful"), num_actions=4))
    policy = Policy(model, PolicyConfig((8,))).eval()
    scores = evaluate(policy, "Breakout", 4, 5, "cpu")
    assert len(scores) == 4 and scores == evaluate(policy, "Breakout", 4, 5, "cpu")
    torch.manual_seed(0)
    before = torch.get_rng_state()
    evaluate(policy, "Breakout", 1, 5, "cpu")
    assert torch.equal(before, torch.get_rng_state()), (
        "training would go another way with another number of evaluations"
    )


# Settings


def test_faithful_run_has_the_schedule_of_the_paper() -> None:
    config = preset("faithful", "Pong")
    assert (config.steps, config.prefill, config.updates) == (100_000, 5_000, 125_000)
    assert config.interactions_before(0) == 5_001 and config.interactions_before(config.updates - 1) == 100_000
    assert [config.interactions_before(24), config.interactions_before(25)] == [5_019, 5_020]  # 25 updates in 19 steps
    assert (config.agent.starts, config.agent.horizon, config.paper.joint.batch) == (400, 15, 100)


ABLATIONS: dict[Any, tuple[Callable[[Atari100kConfig], Any], Any]] = {
    "no-reward-tokens": (lambda config: config.reward_tokens, False),
    "uniform-sampling": (lambda config: config.paper.balance, None),
    "short-memory": (lambda config: config.history, 4),
    "plain-entropy": (lambda config: config.agent.entropy_threshold, 1.0),
    "policy-on-features": (lambda config: config.agent.on_features, True),
    "no-consistency": (lambda config: config.paper.joint.consistency_weight, 0.0),
}


@pytest.mark.parametrize("name", ABLATIONS)
def test_ablation_changes_one_thing(name: Any) -> None:
    config = preset("faithful", "Pong")
    changed = ablated(config, (name,))
    for other, (look, value) in ABLATIONS.items():
        assert (look(changed) == value) == (other == name), other
        assert look(config) != value


def test_run_with_all_ablations_goes_to_its_end(tmp_path: Path) -> None:
    config = tiny_run("faithful", final_games=1, evaluation_games=1)
    train(ablated(config, tuple(ABLATIONS)), tmp_path)
    snapshot = read_snapshot(tmp_path / "snapshot")
    assert not snapshot.config.model.reward_tokens and snapshot.config.model.context == 5
    observation, _ = learned_envs.make_real("LearnedBreakout-v0").reset(seed=0)
    policy = learned_envs.load_policy(tmp_path / "snapshot")
    _, memory = policy.predict(observation)
    assert memory is not None, "the agent was to see the transformer's features"


def test_ablations_are_of_the_paper() -> None:
    with pytest.raises(RunError, match="preset is 'compact'"):
        ablated(preset("compact", "Pong"), ("plain-entropy",))
    with pytest.raises(RunError, match="no ablation 'dropout'"):
        ablated(preset("faithful", "Pong"), ("dropout",))  # type: ignore[arg-type]


def test_games_are_named_one_by_one_or_all_together() -> None:
    assert game_names("all") == GAMES and len(GAMES) == 26
    assert game_names("Pong, Boxing") == ("Pong", "Boxing")


# Bad input


@pytest.mark.parametrize(("given", "near"), [("Pnog", "Pong"), ("breakout", "Breakout"), ("Ms_Pacman", "MsPacman")])
def test_unknown_game_is_answered_with_the_nearest(given: str, near: str) -> None:
    with pytest.raises(RunError, match=rf"no game '{given}'\. Did you mean .*{near}"):
        game_names(given)
    with pytest.raises(RunError, match=r"no game 'zzz'\. Known: all, Alien"):
        game_names("zzz")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"game": "Pong"}, "game is 'Breakout' there and 'Pong' here"),
        ({"preset": "compact"}, "preset is 'faithful' there and 'compact' here"),
        ({"seed": 1}, "seed is 0 there and 1 here"),
    ],
)
def test_folder_of_another_run_is_refused(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    config = tiny_run("faithful")
    (tmp_path / "run.json").write_text(
        json.dumps(
            {"atari100k": 1, **training.atari100k.asdict(config), "ale_py": training.atari100k.version("ale-py")}
        )
    )
    with pytest.raises(RunError, match=told):
        train(replace(config, **change), tmp_path)


def test_run_of_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"atari100k": 0, "ale_py": "0.1"}))
    with pytest.raises(RunError, match=r"ale_py is '0.1' there and .*; atari100k|atari100k is 0 there and 1 here"):
        train(tiny_run("faithful"), tmp_path)


def test_checkpoint_that_was_put_there_from_another_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = _count_ticks(monkeypatch)
    for name, seed in (("mine", 0), ("other", 1)):
        ticks["left"] = 160  # the prefill and a little more
        with pytest.raises(KeyboardInterrupt):
            train(tiny_run("faithful", seed=seed), tmp_path / name)
    ticks["left"] = 10**9
    checkpoint = tmp_path / "mine" / "prefill.pt"
    checkpoint.write_bytes((tmp_path / "other" / "prefill.pt").read_bytes())
    with pytest.raises(RunError, match=r"version 1, game Breakout, preset faithful, seed 1, not of .* seed 0"):
        train(tiny_run("faithful"), tmp_path / "mine")
    checkpoint.write_bytes(checkpoint.read_bytes()[:-50])
    with pytest.raises(RunError, match=r"prefill\.pt is no checkpoint, or a damaged one"):
        train(tiny_run("faithful"), tmp_path / "mine")


def test_disk_that_fills_up_is_told_and_the_run_goes_on_when_there_is_room(tmp_path: Path) -> None:
    """The limit on the size of files stands for a full disk: writing fails alike, in the middle of a checkpoint."""
    config = tiny_run("faithful")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        with pytest.raises(RunError, match=r"could not be written .* MiB are free there. Make room"):
            train(config, tmp_path, checkpoint_seconds=0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert not list(tmp_path.rglob("*.partial")), "half a file is left behind"
    assert len(train(config, tmp_path)["scores"]) == 3


def test_too_little_memory_is_told_before_anything_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "_free", lambda device: 2**20)
    with pytest.raises(
        RunError, match=r"needs about \d+\.\d GiB of memory on cpu, where 0\.0 GiB are free.*--preset compact"
    ):
        train(tiny_run("faithful"), tmp_path)
    assert not list(tmp_path.iterdir()), "the folder is claimed by a run that cannot be"


def test_too_small_a_disk_is_told_before_anything_is_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = requirements.shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(requirements.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RunError, match=r"GiB of disk in .*, where 0\.0 GiB are free"):
        train(tiny_run("faithful"), tmp_path)


@pytest.mark.parametrize("change", [{"prefill": 0}, {"prefill": 260}, {"updates": 0}, {"final_games": 0}])
def test_schedule_that_makes_no_run_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(change))} is {next(iter(change.values()))}"):
        replace(tiny_run("faithful"), **change)


# The command


def _command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[tuple[Atari100kConfig, Path]]:
    """The runs that a command would make."""
    made: list[tuple[Atari100kConfig, Path]] = []

    def note(config: Atari100kConfig, folder: Path, *_: Any) -> dict[str, Any]:
        made.append((config, folder))
        return {"score": 0.0, "scores": [0.0]}

    monkeypatch.setattr(training.atari100k, "train", note)
    monkeypatch.setattr(sys, "argv", ["training", "atari100k", "--threads", "1", *arguments])
    training.__main__.main()
    return made


def test_command_names_game_seed_and_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    [(config, folder)] = _command(monkeypatch, "--game", "Pong", "--seed", "3", "--preset", "compact")
    assert config == preset("compact", "Pong", 3) and folder == Path("runs/atari100k/compact-Pong-3")


def test_command_takes_all_games_and_several_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    made = _command(monkeypatch, "--games", "all", "--seeds", "5")
    assert len(made) == 26 * 5 == len({folder for _, folder in made})
    assert {(config.game, config.seed) for config, _ in made} == {(game, seed) for game in GAMES for seed in range(5)}


def test_command_changes_the_schedule_where_it_is_told_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    changes = "--interactions", "20000", "--updates", "100", "--fp32", "--ablations", "plain-entropy", "short-memory"
    [(config, folder)] = _command(monkeypatch, "--game", "Pong", "--run", str(tmp_path), *changes)
    assert folder == tmp_path and (config.steps, config.updates, config.history) == (20_000, 100, 4)
    assert not config.paper.joint.bfloat16 and config.agent.entropy_threshold == 1.0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--game", "Pnog"), "Atari 100k has no game 'Pnog'. Did you mean Pong"),
        ((), "Name either one --game or several --games"),
        (("--game", "Pong", "--games", "all"), "Name either one --game or several --games"),
        (("--game", "Pong", "--device", "gpu"), "gpu"),
        (("--game", "Pong", "--interactions", "5000"), "interactions is 5000, but must be above 5000"),
        (("--game", "Pong", "--preset", "compact", "--ablations", "short-memory"), "Use --preset faithful"),
    ],
)
def test_command_tells_what_does_not_fit_in_one_line(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        _command(monkeypatch, *arguments)
    assert str(caught.value).startswith("error: ") and told in str(caught.value) and "\n" not in str(caught.value)
