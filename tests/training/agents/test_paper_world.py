"""How the world model learns beside the agent: the paper's passes over random play, and sequences and starts of the main loop."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tiny import NUM_ACTIONS, tiny_config, tiny_model
from training.agents.actor_critic import ActorCritic, ActorCriticTraining
from training.agents.paper_world import PaperTraining, PaperWorld, _Passes
from training.agents.replay import AgentReplay
from training.twm.joint import JointTraining

STEPS = 90


def test_pretraining_has_as_many_updates_as_the_paper() -> None:
    config = PaperTraining()
    observation = _Passes(5000, 1, config.observation_batch, config.observation_samples, 0)
    dynamics = _Passes(5000, config.length, config.joint.batch, config.dynamics_samples, 0)
    agent = _Passes(5000, 15, config.agent_windows, config.agent_samples, 0)
    assert observation.updates == 24_000 and agent.updates == 1004
    assert dynamics.updates == pytest.approx(12_040, rel=0.002)
    assert [len(observation[update]) for update in range(4)] == [1600, 1600, 1600, 200]
    assert [len(dynamics[update]) for update in range(4)] == [100, 100, 100, 11]
    assert len(agent[0]) == 332


def test_a_pass_shows_disjoint_windows_and_the_next_one_begins_elsewhere() -> None:
    passes = _Passes(100, 8, 4, 1000, seed=0)
    seen = []
    for number in range(2):
        starts = torch.cat([passes[number * passes.batches + index] for index in range(passes.batches)])
        covered = (starts.unsqueeze(1) + torch.arange(8)).flatten()
        assert len(covered.unique()) == len(covered) and covered.min() >= 0 and covered.max() < 100
        seen.append(starts)
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(_Passes(100, 8, 4, 1000, seed=0)[3], passes[3]), "not the same when resumed"


@pytest.fixture
def world() -> PaperWorld:
    torch.manual_seed(0)
    draws = np.random.default_rng(0)
    replay = AgentReplay(STEPS)
    replay.begin_episode(draws.integers(256, size=(64, 64), dtype=np.uint8))
    for step in range(STEPS):
        ended = step % 20 == 19
        frame = draws.integers(256, size=(64, 64), dtype=np.uint8)
        replay.add(int(draws.integers(NUM_ACTIONS)), float(step), ended, False, frame)
        if ended:
            replay.begin_episode(frame)
    replay.sync()
    model = tiny_model("faithful", config=replace(tiny_config("faithful"), context=17))
    agent = ActorCritic(model, ActorCriticTraining(starts=7, horizon=3, hidden=(8,)), bfloat16=False)
    return PaperWorld(model, replay, agent, PaperTraining(joint=JointTraining(batch=5, bfloat16=False)))


def test_rollouts_begin_at_the_pairs_of_steps_that_were_just_learned_from(world: PaperWorld) -> None:
    metrics = world.update(0)
    assert all(value.isfinite() for value in metrics.values())
    assert world.sampler.visits.sum() == 5 and len(world.sampler.visits) == STEPS - 15
    starts = world._starts
    assert starts is not None and len(starts.actions) == 5 * 16
    # The observation after a step is the one before the next.
    previous, after = starts.previous.unflatten(0, (5, 16)), starts.classes.unflatten(0, (5, 16))
    assert torch.equal(previous[:, 1:], after[:, :-1])
    assert (starts.rewards.abs() <= 1).all(), "rewards are told as the model is fed them"
    rollout = world.imagine()
    assert rollout.classes.shape == (4, 7, 1, 4) and rollout.actions.shape == (3, 7)


def test_recorded_windows_look_like_rollouts_of_the_random_policy(world: PaperWorld) -> None:
    codes = world._codes()
    assert codes.shape == (STEPS + 1, 4, 4)
    rollout = world._recorded(torch.tensor([0, 18]), codes)
    assert rollout.classes.shape == (4, 2, 1, 4)
    assert torch.equal(rollout.actions[:, 1], torch.from_numpy(world.replay.arrays["actions"][18:21]))
    assert torch.allclose(rollout.rewards[:, 0], torch.tensor([0.0, 1.0, 2.0]).tanh())
    assert rollout.over[:, 1].tolist() == [False, True, False] and not rollout.over[:, 0].any()
    assert (rollout.discounts == 0.99).all() and (rollout.weights == 1).all()


def test_each_stage_of_pretraining_moves_only_its_own_part(world: PaperWorld) -> None:
    world.config = replace(
        world.config, observation_samples=100, observation_batch=50, dynamics_samples=100, agent_samples=100
    )

    def weights() -> dict[str, torch.Tensor]:
        parts = {
            "observation": world.model.observation_model,
            "dynamics": world.model.dynamics,
            "actor": world.agent.actor,
            "critic": world.agent.critic,
        }
        return {
            name: torch.cat([weight.detach().flatten() for weight in part.parameters()]) for name, part in parts.items()
        }

    moved = []
    before = weights()
    for stage in world.pretraining(seed=0):
        assert stage.updates > 0
        metrics = stage.update(0)
        assert all(value.isfinite() for value in metrics.values())
        after = weights()
        moved.append({name for name in after if not torch.equal(after[name], before[name])})
        before = after
    assert moved == [{"observation"}, {"dynamics"}, {"actor", "critic"}]
