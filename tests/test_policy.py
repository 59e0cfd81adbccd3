"""Agents that come with a snapshot: stored and loaded, and used the way libraries expect."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.wrappers import TimeLimit

import learned_envs
from hub.card import write_card
from learned_envs.cli import main
from learned_envs.errors import MissingModelError, SnapshotError
from learned_envs.manifest import write_manifest
from learned_envs.policy import Policy, PolicyConfig
from learned_envs.snapshot import read_snapshot, write_snapshot
from tests.tiny import KINDS, NUM_ACTIONS, TinyKind, tiny_model, tiny_snapshot_config, tiny_starts, write_tiny_snapshot

PIXELS = PolicyConfig((12,), channels=(2, 3, 4))


def _write(folder: Path, kind: TinyKind, sizes: PolicyConfig | None = None) -> Policy:
    torch.manual_seed(5)
    model = tiny_model(kind)
    policy = Policy(model, sizes or PolicyConfig((12, 8))).eval()
    config = replace(tiny_snapshot_config(model.config), policy=policy.config)
    write_snapshot(folder, config, model, tiny_starts(model.config), {}, policy=policy)
    return policy


SIGHTED = [*((kind, None) for kind in KINDS), ("compact", PIXELS)]


@pytest.fixture(params=SIGHTED, ids=[*KINDS, "pixels"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    _write(tmp_path / "snapshot", *request.param)
    return tmp_path / "snapshot"


def _observations(count: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 4, 64, 64), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize(("kind", "sizes"), SIGHTED)
def test_agent_comes_back_as_it_was_written_up_to_half_precision(
    tmp_path: Path, kind: TinyKind, sizes: PolicyConfig | None
) -> None:
    written = _write(tmp_path / "snapshot", kind, sizes)
    read = learned_envs.load_policy(tmp_path / "snapshot")
    assert read.config == written.config and not read.training
    mine, theirs = read.actor.state_dict(), written.actor.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name].half().float()) for name in mine)


def test_prediction_has_the_form_of_the_observation(folder: Path) -> None:
    policy, observations = learned_envs.load_policy(folder), _observations()
    many, state = policy.predict(observations)
    assert state is None and isinstance(many, torch.Tensor) and many.shape == (6,)
    single, _ = policy.predict(observations[0].numpy(), deterministic=True)
    assert isinstance(single, np.ndarray) and single.shape == () and 0 <= int(single) < NUM_ACTIONS
    arrays, _ = policy.predict(observations.numpy(), deterministic=True)
    assert arrays.shape == (6,) and arrays[0] == single
    backwards, _ = policy.predict(np.flip(observations.numpy(), 0), deterministic=True)
    assert np.array_equal(backwards, arrays[::-1])


def test_actions_are_drawn_from_the_policy(folder: Path) -> None:
    torch.manual_seed(0)
    policy, observations = learned_envs.load_policy(folder), _observations(1).expand(600, -1, -1, -1)
    drawn, _ = policy.predict(observations)
    seen = observations[:1] if policy.config.channels else policy.see(observations[:1])
    expected = policy.actor(seen)[0].softmax(-1)
    assert torch.allclose(drawn.bincount(minlength=NUM_ACTIONS) / 600, expected, atol=0.08)


def test_agent_plays_the_learned_game_alone_and_in_a_batch(folder: Path) -> None:
    policy = learned_envs.load_policy(folder)
    env = gym.make("learned_envs:Learned-v0", model=str(folder))
    observation, _ = env.reset(seed=0)
    env.step(policy.predict(observation)[0])
    envs = gym.make_vec("learned_envs:Learned-v0", num_envs=3, model=str(folder), output="torch")
    observations, _ = envs.reset(seed=0)
    envs.step(policy.predict(observations)[0])


def test_stable_baselines_judges_it(folder: Path) -> None:
    evaluation = pytest.importorskip("stable_baselines3.common.evaluation")
    env = TimeLimit(gym.make("learned_envs:Learned-v0", model=str(folder)), 10)
    mean, _ = evaluation.evaluate_policy(learned_envs.load_policy(folder), env, n_eval_episodes=2, warn=False)
    assert np.isfinite(mean)


def test_agent_on_features_remembers_until_an_episode_begins(tmp_path: Path) -> None:
    _write(tmp_path / "snapshot", "faithful", PolicyConfig((12, 8), on_features=True))
    policy, observations = learned_envs.load_policy(tmp_path / "snapshot"), _observations(2)
    _, first = policy.predict(observations, deterministic=True)
    _, second = policy.predict(observations, first, deterministic=True, rewards=[1.0, 0.0])
    assert first is not None and second is not None
    assert not torch.equal(first.features, second.features)
    _, third = policy.predict(observations, second, np.array([True, False]), deterministic=True)
    assert third is not None and torch.allclose(third.features[0], first.features[0], atol=1e-6)
    assert not torch.allclose(third.features[1], first.features[1], atol=1e-6)


@pytest.mark.parametrize(
    ("observation", "told"),
    [
        (np.zeros((3, 64, 64), np.uint8), r"\(3, 64, 64\)"),
        (np.zeros((4, 64, 64), np.float32), "float32"),
        (np.zeros((1, 1, 4, 64, 64), np.uint8), r"\(1, 1, 4, 64, 64\)"),
    ],
)
def test_observation_that_does_not_fit_is_refused(folder: Path, observation: Any, told: str) -> None:
    with pytest.raises(ValueError, match=rf"observation has .*{told}.*, expected \(4, 64, 64\)"):
        learned_envs.load_policy(folder).predict(observation)


def test_snapshot_without_an_agent_says_how_to_train_one(tmp_path: Path) -> None:
    folder = write_tiny_snapshot(tmp_path / "snapshot", "compact")
    with pytest.raises(MissingModelError, match=r"no agent.*python -m training atari100k --game Pong"):
        learned_envs.load_policy(folder)
    with pytest.raises(MissingModelError, match="LearnedPnog-v0"):
        learned_envs.load_policy("LearnedPnog-v0")


def test_damaged_agent_is_told(folder: Path) -> None:
    path = folder / "policy.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(SnapshotError, match=r"policy\.safetensors has .* but manifest\.json says"):
        learned_envs.load_policy(folder)
    path.unlink()
    with pytest.raises(SnapshotError, match=r"policy\.safetensors cannot be read"):
        learned_envs.load_policy(folder)
    learned_envs.load(folder)  # the world model is not to blame


def test_sizes_that_do_not_fit_the_weights_are_told(folder: Path, tmp_path: Path) -> None:
    pixels = bool(learned_envs.load_policy(folder).config.channels)
    wrong = ([9], r"policy\.safetensors: actor") if pixels else ([12, 9], r"policy\.safetensors: layers")
    for hidden, told in (wrong, ([0], r"config\.json: policy"), ("x", r"policy")):
        changed = tmp_path / f"changed-{told[-3:]}{hidden[0]}"
        shutil.copytree(folder, changed)
        content = json.loads((changed / "config.json").read_text())
        content["policy"]["hidden"] = hidden
        (changed / "config.json").write_text(json.dumps(content))
        write_manifest(changed)
        with pytest.raises(SnapshotError, match=told):
            learned_envs.load_policy(changed)


def test_info_tells_whether_there_is_one(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", str(folder)])
    assert "load_policy(" in capsys.readouterr().out
    main(["info", str(write_tiny_snapshot(tmp_path / "without", "compact"))])
    assert "load_policy(" not in capsys.readouterr().out


def test_card_tells_how_to_load_it(folder: Path) -> None:
    assert "learned_envs.load_policy(" in write_card(folder).read_text()


def test_agent_of_bundled_pong_plays_the_real_game() -> None:
    pytest.importorskip("ale_py", reason="plays the real game")
    agent, reals = learned_envs.load_policy("LearnedPong-v0"), learned_envs.make_real_vec("LearnedPong-v0", 4)
    torch.manual_seed(0)
    observations, _ = reals.reset(seed=0)
    points = np.zeros(4)
    for _ in range(400):
        observations, rewards, *_ = reals.step(agent.predict(observations)[0])
        points += rewards
    reals.close()
    assert points.sum() > 0  # random play is 26 points behind by then


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"hidden": (8,), "channels": (4, 4)}, "channels is .* three widths"),
        ({"hidden": (8,), "channels": (4, 0, 4)}, "channels is .* at least 1"),
        ({"hidden": (8, 8), "channels": (4, 4, 4)}, "one hidden layer"),
        ({"hidden": (8,), "channels": (4, 4, 4), "on_features": True}, "no features"),
    ],
)
def test_sizes_that_make_no_policy_are_refused(sizes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        PolicyConfig(**sizes)


def test_model_that_is_saved_again_leaves_its_agent_behind(folder: Path, tmp_path: Path) -> None:
    learned_envs.load(folder).save_pretrained(tmp_path / "again")
    with pytest.raises(MissingModelError, match="no agent"):
        learned_envs.load_policy(tmp_path / "again")


def test_agent_without_its_sizes_is_not_written(folder: Path, tmp_path: Path) -> None:
    snapshot = read_snapshot(folder)
    parts = snapshot.config, snapshot.model, snapshot.starts, snapshot.fidelity
    with pytest.raises(ValueError, match="belong together"):
        write_snapshot(tmp_path / "half", *parts)
    assert not (tmp_path / "half").exists()


def test_agent_on_features_of_single_frames_is_refused() -> None:
    with pytest.raises(ValueError, match="on_features"):
        Policy(tiny_model("compact"), PolicyConfig(hidden=(8,), on_features=True))
