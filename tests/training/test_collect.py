"""Recording real experience: the same bytes whether it was interrupted or not."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ale_py", reason="recording needs ale-py")

import training.__main__
import training.collect
from learned_envs.envs.real.atari import make_atari_vec
from training.agents.agent import Agent, AgentConfig, AgentError, save_agent
from training.collect import CollectConfig, collect
from training.experience import Episode, Experience, ExperienceError, read_manifest, write_manifest

# Breakout's batch is Gymnasium's, Pong's is ALE's own; here both have episodes of 40 steps at most.
CONFIGS = [CollectConfig("Breakout", 260, seed=5, games=2), CollectConfig("Pong", 260, seed=5, games=2)]
both_batches = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.game)


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.collect, "make_atari_vec", partial(make_atari_vec, max_episode_steps=40))


def _interrupt_after(monkeypatch: pytest.MonkeyPatch, actions: int) -> None:
    """Break the recording off when so many actions were chosen."""
    left, act = [actions], training.collect._Recorder.act

    def counted(self: Any) -> int:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return act(self)

    monkeypatch.setattr(training.collect._Recorder, "act", counted)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@both_batches
def test_interrupted_recording_ends_up_the_same_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: CollectConfig
) -> None:
    collect(config, tmp_path / "whole")
    for actions in (100, 70):  # in the middle of an episode both times
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            _interrupt_after(patch, actions)
            collect(config, tmp_path / "parts")
        assert not read_manifest(tmp_path / "parts")["complete"]
        with pytest.raises(ExperienceError, match="not finished"):
            Experience.load(tmp_path / "parts")
    collect(config, tmp_path / "parts")
    assert _contents(tmp_path / "parts") == _contents(tmp_path / "whole")


@both_batches
def test_deleted_episode_comes_back(tmp_path: Path, config: CollectConfig) -> None:
    """As the error about a damaged one advises."""
    collect(config, tmp_path)
    whole = _contents(tmp_path)
    for name in ("episode-00-00001.npz", "episode-01-00000.npz"):
        (tmp_path / name).unlink()
        collect(config, tmp_path)
        assert _contents(tmp_path) == whole


@both_batches
def test_every_game_records_its_share_in_whole_episodes(tmp_path: Path, config: CollectConfig) -> None:
    collect(config, tmp_path)
    manifest = read_manifest(tmp_path)
    assert manifest["complete"] and manifest["config"]["game"] == config.game and manifest["ale_py"]
    for slot in range(2):
        files = sorted(tmp_path.glob(f"episode-{slot:02d}-*.npz"))
        assert [path.name for path in files] == [f"episode-{slot:02d}-{index:05d}.npz" for index in range(len(files))]
        episodes = [Episode.load(path) for path in files]
        assert sum(len(episode.actions) for episode in episodes) == 130
        assert len(episodes) >= 4
        for episode in episodes:
            steps = len(episode.actions)
            assert episode.frames.shape == (steps + 1, 64, 64) and episode.frames.dtype == np.uint8
            assert episode.actions.dtype == np.uint8 and episode.actions.max() < 6
            assert episode.rewards.shape == (steps,) and episode.rewards.dtype == np.float32
        assert len({episode.seed for episode in episodes}) == len(episodes)
    assert len(Experience.load(tmp_path)) == 260


@both_batches
def test_recorded_episode_can_be_played_again_from_its_seed(tmp_path: Path, config: CollectConfig) -> None:
    """Also episodes that began in the middle of the recording, by the reset of one game among others."""
    collect(config, tmp_path)
    env = make_atari_vec(config.game, 1)
    for path in sorted(tmp_path.glob("episode-*.npz")):
        episode = Episode.load(path)
        observations, _ = env.reset(seed=[episode.seed])  # type: ignore[arg-type]
        assert np.array_equal(observations[0, -1], episode.frames[0]), path.name
        limited, terminated = len(episode.actions) == 40, np.zeros(1, bool)
        for step, action in enumerate(episode.actions.astype(np.int64)):
            observations, rewards, terminated, _, _ = env.step(np.array([action]))
            assert rewards[0] == episode.rewards[step], f"{path.name}, step {step}"
            if not (limited and step == 39):  # at the time limit ALE leaves frames out of the last picture
                assert np.array_equal(observations[0, -1], episode.frames[step + 1]), f"{path.name}, step {step}"
        assert terminated[0] == episode.terminated


def test_other_seed_records_other_games(tmp_path: Path) -> None:
    for seed in (0, 1):
        collect(CollectConfig("Pong", 80, seed, games=2), tmp_path / str(seed))
    first, second = (Experience.load(tmp_path / str(seed)) for seed in (0, 1))
    assert not np.array_equal(first.actions, second.actions)


def test_finished_recording_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = CollectConfig("Pong", 80, games=2)
    collect(config, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    collect(config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert "is complete: 80 steps" in capsys.readouterr().out


def test_folder_of_another_recording_is_refused(tmp_path: Path) -> None:
    collect(CollectConfig("Pong", 80, games=2), tmp_path)
    before = _contents(tmp_path)
    for other in (
        CollectConfig("Pong", 80, 1, 2),
        CollectConfig("Breakout", 80, 0, 2),
        CollectConfig("Pong", 160, 0, 2),
    ):
        with pytest.raises(ExperienceError, match="Use another folder"):
            collect(other, tmp_path)
    assert _contents(tmp_path) == before


def test_recording_is_not_gone_on_with_by_another_emulator(tmp_path: Path) -> None:
    config = CollectConfig("Pong", 80, games=2)
    collect(config, tmp_path)
    manifest = read_manifest(tmp_path)
    write_manifest(tmp_path, manifest | {"ale_py": "0.0.1"})
    with pytest.raises(ExperienceError, match=r"was recorded with ale-py 0\.0\.1, but .* is installed"):
        collect(config, tmp_path)


@pytest.mark.parametrize(("steps", "games"), [(0, 2), (3, 2), (1, 2), (10, 0)])
def test_steps_must_be_shared_out_evenly(steps: int, games: int) -> None:
    with pytest.raises(ValueError, match=f"steps is {steps}"):
        CollectConfig("Pong", steps, games=games)


def _agent(path: Path, num_actions: int, seed: int = 0) -> str:
    torch.manual_seed(seed)
    save_agent(Agent(AgentConfig((4, 64, 64), True, num_actions, hidden=16)), path)
    return str(path)


def test_agent_records_the_same_bytes_whether_it_was_interrupted_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = _agent(tmp_path / "agent.safetensors", 6)
    config = CollectConfig("Pong", 160, seed=5, games=2, policy=policy, epsilons=(0.0, 0.5))
    collect(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        _interrupt_after(patch, 90)
        collect(config, tmp_path / "parts")
    collect(config, tmp_path / "parts")
    assert _contents(tmp_path / "parts") == _contents(tmp_path / "whole")
    assert set(Experience.load(tmp_path / "whole").policies) == {"agent-0", "agent-0.5"}


def test_recording_is_not_gone_on_with_by_another_agent(tmp_path: Path) -> None:
    config = CollectConfig("Pong", 80, games=2, policy=_agent(tmp_path / "agent.safetensors", 6))
    collect(config, tmp_path / "recording")
    _agent(tmp_path / "agent.safetensors", 6, seed=1)
    with pytest.raises(ExperienceError, match="Use another folder"):
        collect(config, tmp_path / "recording")
    with pytest.raises(AgentError, match="num_actions 4, the environment 6"):
        policy = _agent(tmp_path / "other.safetensors", 4)
        collect(CollectConfig("Pong", 80, games=2, policy=policy), tmp_path / "third")
    assert not (tmp_path / "third").exists()
    with pytest.raises(AgentError, match="holds no agent"):
        collect(CollectConfig("Pong", 80, games=2, policy="nowhere"), tmp_path / "fourth")
    with pytest.raises(ValueError, match=r"epsilons is \(1\.5,\)"):
        CollectConfig("Pong", 80, games=2, epsilons=(1.5,))


def test_control_problem_is_not_looked_for_among_the_games(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"LearnedHarvest-v0 is no game.*python -m training awm"):
        training.__main__.collect("LearnedHarvest-v0")
    assert not list(tmp_path.iterdir())
