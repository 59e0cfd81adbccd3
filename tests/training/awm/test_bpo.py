"""BPO and its rivals: they improve, they resume, and each loss moves its own weights."""

import importlib.util
import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import mean

import gymnasium as gym
import numpy as np
import pytest
import torch

from learned_envs.envs.real.systems import make_system
from tests.training.sameness import assert_same, interrupt
from training.awm.bpo import BpoStage, evaluate
from training.awm.gradient import Imagined
from training.awm.open_loop import optimize_plan
from training.awm.optimization import descend
from training.awm.policy import Policy
from training.awm.recipe import BpoRecipe, Method
from training.awm.reference import Reference, measure_reference
from training.awm.run import train_policy
from training.awm.sac import SystemTask
from training.loop import RunError, run_stage

TINY = BpoRecipe(
    "CancerTreatment",
    horizon=6,
    preset="compact",
    env_steps=40,
    warmup=13,
    model_batch=8,
    policy_every=4,
    policy_batch=4,
    evaluate_every=8,
)


def stage_of(recipe: BpoRecipe) -> BpoStage:
    torch.manual_seed(recipe.seed)
    return BpoStage(recipe)


@pytest.mark.parametrize(("family", "steps", "share"), [("simulator", 200, 0.8), ("awm", 400, 0.5)])
def test_bpo_improves_the_treatment_of_cancer(tmp_path: Path, family: Method, steps: int, share: float) -> None:
    recipe = replace(TINY, family=family, horizon=10, warmup=50, env_steps=steps + 50, policy_learning_rate=1e-2)
    stage = stage_of(recipe)
    run_stage(stage, tmp_path, 0)
    reference = measure_reference(recipe.make_system(), episodes=100, iterations=100)
    shares = [reference.normalize(each) for _, each in stage.returns]
    last = shares[
        -len(shares) // 4 :
    ]  # a policy that a model improves goes up and down: 0.24 to 0.9 from one to the next
    assert mean(last) > share > shares[0]


@pytest.mark.parametrize("family", ["awm", "hwm-detached", "markov", "markov-critic", "simulator"])
def test_resumed_training_ends_the_same_to_the_last_bit(tmp_path: Path, family: Method) -> None:
    """Killed in the middle of an episode."""
    recipe = replace(TINY, family=family)
    whole, interrupted, resumed = (stage_of(recipe) for _ in range(3))
    run_stage(whole, tmp_path / "whole", 0)
    interrupt(interrupted, 27)
    with pytest.raises(KeyboardInterrupt):
        run_stage(interrupted, tmp_path / "parts", 0, checkpoint_seconds=0)
    run_stage(resumed, tmp_path / "parts", 0)
    assert_same(resumed.state_dict(), whole.state_dict())
    assert [steps for steps, _ in whole.returns] == [1, 17, 25, 33, 40]


def test_scale_of_the_policy_is_that_of_the_first_episode() -> None:
    """However few episodes are kept."""
    stage = stage_of(replace(TINY, family="simulator", normalize=True, capacity=TINY.horizon))
    means = []
    for step in range(3 * TINY.horizon):
        torch.manual_seed(step)
        stage.update(step)
        means.append(stage.policy.normalizer.mean.clone())
    assert means[TINY.horizon].any() and torch.equal(means[TINY.horizon], means[-1])


def test_losses_move_only_their_own_weights() -> None:
    stage = stage_of(replace(TINY, family="markov-critic"))
    for step in range(14):
        stage.update(step)

    def weights() -> dict[str, torch.Tensor]:
        parts = {"policy": stage.policy, "model": stage.model, "critic": stage.critic}
        return {
            name: torch.cat([p.detach().flatten() for p in part.parameters()]) for name, part in parts.items() if part
        }

    before = weights()
    stage._update_model(stage.model)  # type: ignore[arg-type]
    middle = weights()
    stage._update_policy()
    after = weights()
    changed = [
        {name for name in before if not torch.equal(a[name], b[name])} for a, b in ((before, middle), (middle, after))
    ]
    assert changed == [{"model"}, {"policy", "critic"}]


def test_nothing_is_earned_after_the_end() -> None:
    stage = stage_of(replace(TINY, family="markov-critic", unroll=2, discount=0.5))
    assert stage.critic is not None
    stage.critic.value_normalizer.mean.fill_(100.0)
    observations = torch.zeros(3, 3, 2)
    observations[..., 1] = torch.tensor([[2, 3, 4], [4, 5, 6], [5, 6, 7]])
    rewards = torch.tensor([[1.0, 2.0]]).expand(3, 2)
    returns = stage._returns(Imagined(observations, torch.zeros(3, 2, 1), rewards, rewards))
    expected = torch.tensor([2 + 0.25 * stage.critic.target(observations[0, 2]).item(), 2.0, 1.0])
    assert torch.allclose(returns, expected)


def test_gradient_is_clipped_and_nan_taken_for_zero() -> None:
    weight = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], 1.0)
    assert float(descend(optimizer, 300 * weight[0] + 400 * weight[1])) == pytest.approx(500)
    assert torch.allclose(weight, torch.tensor([-60.0, -80.0]), atol=1e-3)
    before = weight.detach().clone()
    descend(optimizer, (weight * math.nan).sum())
    assert torch.equal(weight, before)


@pytest.mark.parametrize("name", ["CancerTreatment", "Bacteria"])
def test_best_plan_is_as_good_as_the_independent_one(name: str) -> None:
    table = json.loads((Path(__file__).parents[2] / "envs/real/myriad_reference.json").read_text())
    known = table["tasks"][name]["returns"]["20"]
    torch.manual_seed(0)
    system = make_system(name, horizon=20)
    plan, best = optimize_plan(system, iterations=200, random_starts=1)
    assert 0.99 < Reference(known["random_mean"], 0, known["optimum_found"]).normalize(best) < 1.001
    assert float(system.rollout(plan.unsqueeze(0))[1].sum()) == pytest.approx(best, rel=1e-9)
    assert plan.abs().max() <= 1


def test_reference_is_the_same_whatever_was_drawn_before_and_draws_nothing_itself() -> None:
    system = make_system("MouldFungicide", horizon=5)
    torch.manual_seed(1)
    first = measure_reference(system, episodes=20, iterations=5)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), after)
    assert measure_reference(make_system(system, noise=0.1, distractors=2), episodes=20, iterations=5) == first
    assert Reference(-10, 0.1, 0).normalize(-2.5) == 0.75


def test_run_writes_its_result_once(tmp_path: Path) -> None:
    recipe = replace(TINY, family="simulator")
    result = train_policy(recipe, tmp_path)
    content = (tmp_path / "result.json").read_text()
    assert json.loads(content) == result
    assert result["returns"][-1][0] == 40 and result["final"] == result["returns"][-1][1]
    assert result["recipe"]["family"] == "simulator" and "command" in result["provenance"]
    assert train_policy(recipe, tmp_path) == result
    assert (tmp_path / "result.json").read_text() == content
    with pytest.raises(RunError, match=r"it differs in: seed"):
        train_policy(replace(recipe, seed=1), tmp_path)


def test_noisy_systems_with_distractors_are_trained_on_and_evaluated(tmp_path: Path) -> None:
    recipe = replace(TINY, noise=0.05, distractors=2, evaluation_episodes=5)
    stage = stage_of(recipe)
    run_stage(stage, tmp_path, 0)
    assert stage.episodes.observations.shape == (6, 7, 4)
    assert all(math.isfinite(value) for _, value in stage.returns)


def test_evaluation_is_the_return_of_the_deterministic_policy() -> None:
    system = make_system("CancerTreatment", horizon=20)
    policy = Policy(2, 1)
    for parameter in policy.parameters():
        parameter.data.zero_()
    assert evaluate(system, policy) == pytest.approx(-27.232120269622655, rel=1e-5), "zero actions, as in the reference"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "dreamer"}, "family is 'dreamer'"),
        ({"family": "markov", "backbone": "rnn"}, "backbone is 'rnn'"),
        ({"warmup": 5}, "warmup is 5, but must be at least one episode, 6"),
        ({"warmup": 40}, "below env_steps"),
        ({"policy_every": 0}, "policy_every is 0"),
        ({"discount": 1.5}, "discount is 1.5"),
        ({"entropy": -1.0}, "entropy is -1"),
    ],
)
def test_bad_recipe(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **changes)


def test_bad_system() -> None:
    with pytest.raises(gym.error.NameNotFound, match="Did you mean CancerTreatment"):
        stage_of(replace(TINY, system="CancerTreatmnt"))
    with pytest.raises(ValueError, match=r"no parameter 'noise'.*Leave noise out"):
        stage_of(replace(TINY, system="OneBounce", noise=0.1))
    with pytest.raises(ValueError, match="not trained by BPO"):
        stage_of(replace(TINY, family="open-loop"))
    with pytest.raises(ValueError, match="no plan is best"):
        optimize_plan(make_system("CancerTreatment", noise=0.1))


def test_task_of_sac_terminates_at_the_horizon_and_shows_scaled_states() -> None:
    torch.manual_seed(0)
    task = SystemTask(make_system("HIVTreatment", horizon=5))
    observation, _ = task.reset(seed=0)
    assert np.abs(observation).max() < 10
    ends = [task.step(np.zeros(1, np.float32))[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(True, False)]


@pytest.mark.skipif(importlib.util.find_spec("stable_baselines3") is not None, reason="it is installed")
def test_missing_sac_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"pip install .*learned-envs\[sb3\]"):
        train_policy(replace(TINY, family="sac"), tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_sac_is_trained_and_evaluated(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    result = train_policy(replace(TINY, family="sac"), tmp_path)
    assert [steps for steps, _ in result["returns"]] == [8, 16, 24, 32, 40]
