"""``python -m training refit``: only the dynamics of a finished model change, and nothing is counted twice."""

import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("ale_py", reason="a refit records real experience")

import training.twm.fidelity
import training.twm.fitting
import training.twm.refit
from learned_envs.fidelity.free_running import pong_free_running
from learned_envs.policy import Policy, PolicyConfig, load_policy
from learned_envs.pretrained import load_pretrained
from learned_envs.snapshot import SnapshotConfig, read_snapshot, write_snapshot
from learned_envs.twm.config import TwmConfig
from tests.tiny import tiny_config, tiny_model, tiny_starts, write_tiny_snapshot
from training.agents.ppo import PpoConfig
from training.collect import CollectConfig, collect
from training.experience import Experience
from training.loop import RunError
from training.provenance import model_digest
from training.recipe import AgentRecipe, ExperienceRecipe, RefitRecipe
from training.twm.dynamics import DynamicsTraining
from training.twm.package import describe_game
from training.twm.refit import refit
from training.twm.replay import Replay

CONFIG = replace(tiny_config("compact"), num_actions=6, reward_values=(-1.0, 0.0, 1.0))
BEFORE = {"real_steps": 5000, "real_episodes": 4, "policies": ["random"], "agents_in_the_real_game": [{"steps": 9}]}
RECORDED = ExperienceRecipe(steps=16 * 80, validation_steps=16 * 80)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a run in which all is recorded, and nothing is fitted."""
    folder = tmp_path_factory.mktemp("recordings")
    collect(CollectConfig("Pong", RECORDED.steps, RECORDED.seed), folder / "experience")
    collect(CollectConfig("Pong", RECORDED.validation_steps, RECORDED.validation_seed), folder / "validation")
    return folder


@pytest.fixture
def run(tmp_path: Path, recordings: Path) -> Path:
    """A folder of a run of one's own."""
    return shutil.copytree(recordings, tmp_path / "run")


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured briefly."""
    measure = training.twm.refit.measure_pong
    monkeypatch.setattr(training.twm.refit, "measure_pong", partial(measure, rollouts=4, games=1))
    monkeypatch.setattr(training.twm.fidelity, "pong_free_running", partial(pong_free_running, steps=10))


def _base(folder: Path, recorded: ExperienceRecipe | None = None) -> Path:
    """A model with an agent, made from a recording or of nobody knows what."""
    model = tiny_model("compact", config=CONFIG)
    policy = PolicyConfig((8,), channels=(2, 2, 2))
    provenance = BEFORE if recorded is None else BEFORE | {"recipe": {"experience": asdict(recorded)}}
    environment = describe_game("Pong", CONFIG.reward_values)
    told = SnapshotConfig("LearnedPong-v0", "twm", CONFIG, environment, provenance, policy)
    torch.manual_seed(0)
    write_snapshot(folder, told, model, tiny_starts(CONFIG), {}, policy=Policy(model, policy))
    return folder


def _recipe(base: Path, recorded: ExperienceRecipe = RECORDED) -> RefitRecipe:
    learning = DynamicsTraining(updates=4, batch=4, length=8, moved_share=0.5)
    return RefitRecipe("LearnedPong-v0", str(base), experience=recorded, dynamics=learning)


def test_only_the_dynamics_change(tmp_path: Path, run: Path) -> None:
    base = _base(tmp_path / "base")
    snapshot = refit(_recipe(base), run)
    before, after = (load_file(folder / "model.safetensors") for folder in (base, snapshot))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"dynamics"}
    for name in ("starts.safetensors", "policy.safetensors"):
        assert (snapshot / name).read_bytes() == (base / name).read_bytes(), name
    fidelity = json.loads((snapshot / "fidelity.json").read_text())
    assert fidelity["open_loop"]["rollouts"] == 4 and fidelity["free_running"]["games"] == 1
    env = gym.make("learned_envs:Learned-v0", model=str(snapshot))
    env.reset(seed=0)
    assert env.step(0)[0] in env.observation_space


def test_weights_lie_between_those_of_before_and_after(tmp_path: Path, run: Path) -> None:
    recipe = _recipe(base := _base(tmp_path / "base"))
    between = refit(replace(recipe, blend=0.25), Path(shutil.copytree(run, tmp_path / "between")))
    first, mixed, last = (load_file(each / "model.safetensors") for each in (base, between, refit(recipe, run)))
    for name in first:
        expected = 0.75 * first[name].float() + 0.25 * last[name].float()
        torch.testing.assert_close(mixed[name].float(), expected, atol=2e-3, rtol=2e-3, msg=name)


def test_new_agent_learns_in_the_fitted_model_and_comes_with_it(tmp_path: Path, run: Path) -> None:
    learning = PpoConfig(2 * 2 * 4, rollout=4, minibatch=8, epochs=1, evaluation_episodes=1)
    agent = AgentRecipe("anywhere", 3, num_envs=2, actions=("RIGHT", "LEFT"), ppo=learning)
    snapshot = refit(replace(_recipe(_base(tmp_path / "base")), agent=agent), run)
    trained_in, asked = run / "final/snapshot", json.loads((run / "final/agent/run.json").read_text())
    assert asked["id"] == model_digest(str(trained_in)) and asked["max_episode_steps"] == 3
    for name in ("model.safetensors", "starts.safetensors"):
        assert (trained_in / name).read_bytes() == (snapshot / name).read_bytes(), name
    policy = load_policy(str(snapshot))
    seen = torch.randint(256, (50, *policy.model.observation_shape), dtype=torch.uint8)
    assert set(policy.predict(seen)[0].tolist()) == {2, 3}
    told = read_snapshot(snapshot).config.provenance["agents_in_the_real_game"]
    assert [each["steps"] for each in told] == [9, 16] and told[-1]["episodes"] == 1


def test_latents_are_drawn_at_the_temperature_of_the_base_or_of_the_recipe(tmp_path: Path, run: Path) -> None:
    recipe = _recipe(_base(tmp_path / "base"))
    other = shutil.copytree(run, tmp_path / "other")
    for folder, each, expected in ((run, recipe, 0.0), (other, replace(recipe, temperature=0.7), 0.7)):
        model = read_snapshot(refit(each, folder)).config.model
        assert isinstance(model, TwmConfig) and model.temperature == expected


@pytest.mark.parametrize(
    ("knew", "steps"), [(RECORDED, 5000), (replace(RECORDED, seed=5), 5000 + 1280), (None, 5000 + 1280)]
)
def test_steps_that_the_base_knew_are_not_counted_again(
    tmp_path: Path, run: Path, knew: ExperienceRecipe | None, steps: int
) -> None:
    base = _base(tmp_path / "base", knew)
    told = read_snapshot(refit(_recipe(base), run)).config.provenance
    assert told["real_steps"] == steps
    assert (told["policies"] == ["random"]) == (steps == 5000)
    assert told["base"] == read_snapshot(base).config.provenance
    assert told["agents_in_the_real_game"] == [{"steps": 9}]


def test_recorded_starts_are_learned_from_where_their_actions_are_known(tmp_path: Path) -> None:
    base = load_pretrained(str(_base(tmp_path / "base")))
    episodes = training.twm.refit._remembered(base, tiny_model("compact", config=CONFIG))
    observations, actions, rewards = base.starts.contexts("anywhere")
    replay = Replay(Experience.from_episodes(episodes), CONFIG.num_actions, length=8)
    real = replay.steps.real
    assert real.sum() == actions.numel()
    assert replay.steps.actions[real].tolist() == actions.flatten().tolist()
    assert replay.steps.rewards[real].tolist() == rewards.flatten().tolist()
    followed = torch.from_numpy(Experience.from_episodes(episodes).frames)[replay.steps.next_frames[real]]
    assert torch.equal(followed, observations[:, 1:, -1].flatten(0, 1))


def test_interrupted_refit_makes_the_same_snapshot(tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = _recipe(_base(tmp_path / "base"))
    parts = shutil.copytree(run, tmp_path / "parts")
    whole = refit(recipe, run)

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    for module, last in ((training.twm.fitting, "encode_all"), (training.twm.refit, "measure_pong")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, last, interrupt)
            refit(recipe, parts)
    resumed = refit(recipe, parts)
    for name in ("model.safetensors", "fidelity.json"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    written = (resumed / "config.json").stat().st_mtime_ns
    assert refit(recipe, parts) == resumed
    assert (resumed / "config.json").stat().st_mtime_ns == written


def test_folder_of_another_refit_is_refused(tmp_path: Path, run: Path) -> None:
    recipe = _recipe(_base(tmp_path / "base"))
    refit(recipe, run)
    with pytest.raises(RunError, match="another recipe"):
        refit(replace(recipe, seed=1), run)


@pytest.mark.parametrize("kind", ["faithful", "markov-mlp"])
def test_base_of_another_kind_is_refused(tmp_path: Path, kind: str) -> None:
    base = write_tiny_snapshot(tmp_path / "base", kind)
    _refused(base, "only models of the compact preset are fitted further")


def test_base_that_learned_something_else_is_refused(tmp_path: Path) -> None:
    base = write_tiny_snapshot(tmp_path / "base", "compact")
    _refused(base, "what is recorded here is plain Pong")


def test_base_that_does_not_tell_its_steps_is_refused(tmp_path: Path) -> None:
    base = _base(tmp_path / "base")
    told = json.loads((base / "config.json").read_text())
    del told["provenance"]["real_steps"]
    found = load_pretrained(str(base))
    changed = replace(found.config, provenance=told["provenance"], policy=None)
    write_snapshot(base, changed, found.model, found.starts, {}, replace=True)
    _refused(base, "provenance does not tell real_steps")


def test_agent_of_unknown_actions_is_refused_before_anything_is_fitted(tmp_path: Path) -> None:
    _refused(_base(tmp_path / "base"), "agent.actions names JUMP, but Pong has NOOP", AgentRecipe(actions=("JUMP",)))


def _refused(base: Path, reason: str, agent: AgentRecipe | None = None) -> None:
    with pytest.raises(RunError, match=reason):
        refit(replace(_recipe(base), agent=agent), base.parent / "run")
    assert not (base.parent / "run").exists()
