"""A whole run, from recording to snapshot, with small models and few updates."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

import training.awm.transfer
import training.awm.world_model
from learned_envs.snapshot import read_snapshot
from training.awm.episodes import record, uniform_plans
from training.awm.fit import Fitting
from training.awm.measure import curve, measure_model
from training.awm.model_recipe import Candidate, ModelRecipe, PlansRecipe, PolicyRecipe
from training.awm.reference import Reference
from training.awm.world_model import _total_error, make_world_model, start_bank
from training.loop import RunError

FITTING = Fitting(updates=12, batch=8, anywhere=0.5, learning_rate=3e-3, decay=True)
RECIPE = ModelRecipe(
    "LearnedCopyTask-v0",
    {
        "markov-mlp": Candidate(replace(FITTING, updates=60)),
        "awm-rnn": Candidate(FITTING, {"width": 8}),
        "hwm-transformer": Candidate(FITTING, {"width": 8, "hidden": [16, 16]}),
    },
    plans=PlansRecipe(20, 10, ("uniform", "steady")),
    policy=PolicyRecipe(updates=3, batch=4),
)


@pytest.fixture(autouse=True)
def quick_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """What random and optimal actions earn, without the search."""
    monkeypatch.setattr(training.awm.transfer, "measure_reference", lambda system: Reference(-1.0, 0.1, 10.0))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.awm.transfer, "measure_reference", lambda system: Reference(-1.0, 0.1, 10.0))
        return make_world_model(RECIPE, tmp_path_factory.mktemp("run"))


def _tensors(snapshot: Path) -> bytes:
    return (snapshot / "model.safetensors").read_bytes() + (snapshot / "starts.safetensors").read_bytes()


def test_run_leaves_a_snapshot_that_can_be_played(finished: Path) -> None:
    envs = gym.make_vec("learned_envs:Learned-v0", num_envs=3, model=str(finished), starts="anywhere")
    envs.reset(seed=0)
    for _ in range(30):
        observations, *_ = envs.step(envs.action_space.sample())
        assert observations in envs.observation_space


def test_figures_of_every_candidate_come_along(finished: Path) -> None:
    fidelity = json.loads((finished / "fidelity.json").read_text())
    names = {"markov-mlp", "awm-rnn", "hwm-transformer"}
    for table in ("state_error", "anywhere_error", "return_error", "parameters"):
        assert fidelity[table].keys() == names
    assert fidelity["open_loop"].keys() == {"episodes", "chosen", *names}
    assert fidelity["open_loop"]["markov-mlp"].keys() == {"1", "2", "5", "10", "20"}
    transfer = fidelity["transfer"]
    assert transfer["normalized"] == pytest.approx((transfer["real_return"] + 1) / 11)


def test_candidate_that_predicts_best_is_packaged(finished: Path) -> None:
    fidelity = json.loads((finished / "fidelity.json").read_text())
    config = read_snapshot(finished).config
    errors = {name: fidelity["state_error"][name] + fidelity["anywhere_error"][name] for name in RECIPE.candidates}
    best = min(errors, key=lambda name: errors[name])
    assert fidelity["open_loop"]["chosen"] == config.provenance["chosen"] == best
    assert f"{config.model.family}-{config.model.backbone}" == best
    assert config.provenance["real_steps"] == 20 * 20 and config.provenance["policies"] == ["uniform", "steady"]


def test_recipe_may_choose_itself(tmp_path: Path) -> None:
    snapshot = read_snapshot(make_world_model(replace(RECIPE, choose="awm-rnn"), tmp_path))
    assert (snapshot.config.model.family, snapshot.config.model.width) == ("awm", 8)
    assert snapshot.config.provenance["chosen"] == "awm-rnn" and "predicts_best" in snapshot.config.provenance


def test_interrupted_run_goes_on_to_the_same_snapshot(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(training.awm.world_model.FitStage):
        def update(self, step: int) -> dict[str, torch.Tensor]:
            if self.name == "awm-rnn" and step == 7:
                raise KeyboardInterrupt
            return super().update(step)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.awm.world_model, "FitStage", Interrupted)
        make_world_model(RECIPE, tmp_path, checkpoint_seconds=0)
    assert not (tmp_path / "snapshot").exists()
    measured = tmp_path / "markov-mlp" / "measured.json"
    before = measured.stat().st_mtime_ns
    assert _tensors(make_world_model(RECIPE, tmp_path)) == _tensors(finished)
    assert measured.stat().st_mtime_ns == before, "what was measured is not measured again"


def test_folder_of_another_recipe_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"id": "LearnedBacteria-v0"}))
    with pytest.raises(RunError, match="another recipe"):
        make_world_model(RECIPE, tmp_path)


def test_starts_are_beginnings_and_middles_of_real_episodes() -> None:
    torch.manual_seed(0)
    system = RECIPE.make_system()
    episodes = record(system, uniform_plans(system, 200))
    bank = start_bank(episodes)
    observations, actions, rewards = bank.contexts("initial")
    assert observations.tolist() == [[[0, 0, 0]]] and actions.shape == (1, 0, 1) and rewards.shape == (1, 0)
    observations, actions, rewards = bank.contexts("anywhere")
    assert observations.shape == (128, 8, 3) and actions.shape == (128, 7, 1) and rewards.shape == (128, 7)
    clocks = observations[..., -1]
    assert bool((clocks.diff(dim=1) == 1).all())
    assert clocks[:, -1].unique().tolist() == list(range(7, 20)), "they end everywhere but at the end"


def test_errors_are_those_of_known_predictions() -> None:
    """A model that predicts the mean is wrong by one standard deviation."""
    torch.manual_seed(0)
    system = RECIPE.make_system()
    episodes = record(system, uniform_plans(system, 400))
    model = replace(RECIPE, candidates={"awm-rnn": Candidate()}).make_candidate("awm-rnn")
    model.fit_normalization(episodes.observations)
    with torch.no_grad():
        model.dynamics.decoder[-1].weight.zero_()  # type: ignore[union-attr, operator]
    measured = measure_model(model, episodes)
    # One of the two numbers of the state, the target, is always 0, and predicted exactly.
    deviation = float(episodes.observations[:, 1:, 0].std() / episodes.observations[..., 0].std()) / 2**0.5
    assert measured["state_error"] == pytest.approx(deviation, rel=0.02)
    assert measured["anywhere_error"] == pytest.approx(deviation, rel=0.02)
    assert measured["curve"]["20"] == pytest.approx(deviation, rel=0.02)


def test_what_diverged_is_told_without_a_number_that_json_does_not_know() -> None:
    assert curve(torch.tensor([1.0, torch.inf, torch.nan])) == {"1": 1.0, "2": None, "3": None}
    diverged, fair = {"state_error": None, "anywhere_error": 0.1}, {"state_error": 9.0, "anywhere_error": 9.0}
    assert _total_error(fair) < _total_error(diverged)


def test_curves_have_the_first_and_the_last_step() -> None:
    assert curve(torch.tensor([5.0])) == {"1": 5.0}
    assert curve(torch.arange(1, 31).float()) == {"1": 1, "2": 2, "5": 5, "10": 10, "20": 20, "30": 30}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": "LearnedPong-v0"}, "'LearnedPong-v0' is not the id of a control problem"),
        ({"candidates": {}}, "candidates is empty"),
        ({"candidates": {"awm-mlp": Candidate()}}, "candidates.awm-mlp: backbone is 'mlp'"),
        ({"candidates": {"gru": Candidate()}}, "candidates.gru: family is 'gru'"),
        ({"candidates": {"awm-rnn": Candidate(sizes={"colour": 1})}}, "candidates.awm-rnn.sizes: .*'colour'"),
        ({"choose": "awm-lstm"}, "choose is 'awm-lstm'"),
    ],
)
def test_recipe_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(RECIPE, **changes)


def test_noisy_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is noisy"):
        make_world_model(replace(RECIPE, id="LearnedBacteria-v0", options={"noise": 0.1}), tmp_path)
    assert not list(tmp_path.iterdir())


def test_too_few_episodes_are_refused() -> None:
    with pytest.raises(ValueError, match="unseen is 1"):
        PlansRecipe(10, 1)
    with pytest.raises(ValueError, match="kinds is empty"):
        PlansRecipe(kinds=())
    with pytest.raises(ValueError, match="updates is 0"):
        PolicyRecipe(updates=0)
