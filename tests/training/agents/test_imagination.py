"""Rollouts in imagination: the same numbers with and without a cache, and what the paper says of episodes that end."""

from dataclasses import replace

import pytest
import torch

from benchmarks.as_written import imagine_as_written
from learned_envs.nn.categorical import sample
from learned_envs.policy import LatentPerceptron
from learned_envs.twm.world_model import TransformerWorldModel
from tests.tiny import NUM_ACTIONS, last_bias, tiny_config, tiny_model
from training.agents.actor_critic import ActorCriticTraining, Rollout
from training.agents.imagination import PaperImagination, Starts, StepwiseImagination, imagine

COUNT, HORIZON = 10, 6


def _model(context: int = 17) -> TransformerWorldModel:
    return tiny_model("faithful", config=replace(tiny_config("faithful"), context=context))


def _actor(model: TransformerWorldModel, features: int = 0) -> LatentPerceptron:
    torch.manual_seed(3)
    return LatentPerceptron(model.config.observation, (16,), NUM_ACTIONS, features).requires_grad_(False)


def _starts(model: TransformerWorldModel) -> Starts:
    torch.manual_seed(1)
    latent = model.config.observation.latent
    previous, classes = torch.randint(latent.classes, (2, COUNT, latent.variables))
    over = torch.arange(COUNT) % 3 == 0
    return Starts(previous, torch.randint(NUM_ACTIONS, (COUNT,)), torch.randn(COUNT).tanh(), over, classes)


def _noise(model: TransformerWorldModel) -> torch.Tensor:
    torch.manual_seed(2)
    return torch.rand(HORIZON, COUNT, model.config.observation.latent.variables + 1)


def _pool(model: TransformerWorldModel) -> torch.Tensor:
    torch.manual_seed(4)
    latent = model.config.observation.latent
    return torch.randint(latent.classes, (COUNT, latent.variables))


def _assert_same(mine: Rollout, theirs: Rollout) -> None:
    for name in ("classes", "actions", "over"):
        assert torch.equal(getattr(mine, name), getattr(theirs, name)), f"{name} differ"
    for name in ("rewards", "discounts", "weights"):
        assert torch.allclose(getattr(mine, name), getattr(theirs, name), atol=1e-5), f"{name} differ"


@torch.no_grad()
@pytest.mark.parametrize("context", [17, 3], ids=["whole", "short memory"])
@pytest.mark.parametrize("restart_below", [0.0, 0.93], ids=["endless", "ending"])
def test_cached_rollout_equals_one_that_projects_all_it_remembers_anew(context: int, restart_below: float) -> None:
    model = _model(context)
    actor, starts, noise, pool = _actor(model), _starts(model), _noise(model), _pool(model)
    mine = imagine(model.dynamics, actor, starts, pool, noise, restart_below)
    turns = iter(range(HORIZON))
    moments = [index for index in range(HORIZON) if mine.over[index].any()]
    theirs = imagine_as_written(
        model.dynamics, actor, starts, lambda: pool.roll(moments[next(turns)], 0), noise, restart_below
    )
    _assert_same(mine, theirs)
    assert mine.over.any() == (restart_below > 0), "the test was to show episodes that end, or none"


@torch.no_grad()
def test_rollout_equals_the_models_own_steps() -> None:
    """Reward by reward, from a memory that was filled with the opening step."""
    model = _model()
    actor, starts, noise = (
        _actor(model),
        replace(_starts(model), over=torch.zeros(COUNT, dtype=torch.bool)),
        _noise(model),
    )
    found = imagine(model.dynamics, actor, starts, _pool(model), noise, 0.0)
    num_classes = model.config.observation.latent.classes

    def vectors(classes: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(classes, num_classes).flatten(1).float()

    memory = model.dynamics.remember(
        vectors(starts.previous).unsqueeze(1),
        starts.actions.unsqueeze(1),
        torch.zeros(COUNT, 1),
        torch.ones(COUNT, 1, dtype=torch.bool),
    )
    classes, reward = starts.classes, starts.rewards
    for step in range(HORIZON):
        forecast, memory = model.dynamics.step(vectors(classes), found.actions[step], reward, memory)
        reward = forecast.reward[:, 0, 0]
        assert torch.allclose(reward, found.rewards[step], atol=1e-5)
        assert torch.allclose(forecast.discount[:, 0].sigmoid(), found.discounts[step], atol=1e-5)
        classes = sample(forecast.latent[:, 0].softmax(-1), noise[step, :, :-1])
        assert torch.equal(classes, found.classes[step + 1, :, 0])


@torch.no_grad()
def test_weights_are_products_of_discounts_and_begin_anew_where_an_episode_ended() -> None:
    model = _model()
    pool = _pool(model)
    rollout = imagine(model.dynamics, _actor(model), _starts(model), pool, _noise(model), 0.93)
    weight = torch.ones(COUNT)
    ended = 0
    for step in range(HORIZON):
        assert torch.allclose(rollout.weights[step], weight)
        weight = weight * rollout.discounts[step]
        over = weight < 0.93
        assert torch.equal(rollout.over[step], over)
        expected = pool.roll(step, 0)[over]
        assert torch.equal(rollout.classes[step + 1, over, 0], expected), "not a recorded observation"
        weight = torch.where(over, 1.0, weight)
        ended += int(over.sum())
    assert 0 < ended < HORIZON * COUNT


@torch.no_grad()
def test_nothing_is_seen_across_the_end_of_an_episode() -> None:
    """Neither the opening step, if an episode ended with it, nor what came before an imagined end changes what follows."""
    model = _model()
    actor, starts, noise, pool = _actor(model), _starts(model), _noise(model), _pool(model)
    before = imagine(model.dynamics, actor, starts, pool, noise, 0.0)
    changed = replace(
        starts, previous=starts.previous.flip(0), actions=(starts.actions + 1) % NUM_ACTIONS, rewards=-starts.rewards
    )
    after = imagine(model.dynamics, actor, changed, pool, noise, 0.0)
    same = (before.rewards == after.rewards).all(0)
    assert torch.equal(same, starts.over)
    # Cut each episode after every step: the second step then sees the pool and itself alone.
    cut = [imagine(model.dynamics, actor, given, pool, noise, 2.0) for given in (starts, changed)]
    assert cut[0].over.all() and torch.equal(cut[0].rewards[1:], cut[1].rewards[1:])
    assert not torch.equal(cut[0].rewards[0], cut[1].rewards[0])


@torch.no_grad()
def test_features_are_told_to_the_policy_but_not_across_an_end() -> None:
    model = _model()
    width = model.config.transformer.width
    actor, starts, noise = _actor(model, width), _starts(model), _noise(model)
    rollout = imagine(model.dynamics, actor, starts, _pool(model), noise, 0.93, features=True)
    assert rollout.features is not None and rollout.features.shape == (HORIZON + 1, COUNT, width)
    hidden = torch.cat([starts.over.unsqueeze(0), rollout.over])
    assert torch.equal((rollout.features == 0).all(-1), hidden)
    logits = actor(rollout.classes[:-1], rollout.features[:-1])
    assert torch.equal(sample(logits.softmax(-1).unsqueeze(2), _noise(model)[..., -1:]).squeeze(2), rollout.actions)


def test_imagination_follows_the_weights_as_they_are_now() -> None:
    model = _model()
    actor = _actor(model)
    config = ActorCriticTraining(starts=COUNT, horizon=HORIZON)
    imagination = PaperImagination(model.train(), actor, config, bfloat16=False)

    def roll() -> Rollout:
        torch.manual_seed(0)
        return imagination(_starts(model), _pool(model))

    before = roll()
    assert torch.equal(before.rewards, roll().rewards), "dropout was active, or something else was not repeated"
    with torch.no_grad():
        model.dynamics.reward_head[-1].bias.add_(1.0)  # type: ignore[operator]
    assert torch.allclose(roll().rewards[0], before.rewards[0] + 1, atol=1e-5)


def test_bfloat16_changes_little() -> None:
    model = _model()
    results = []
    for half in (False, True):
        torch.manual_seed(0)
        imagination = PaperImagination(model, _actor(model), ActorCriticTraining(horizon=1), half)
        results.append(imagination(_starts(model), _pool(model)))
    assert (results[0].rewards - results[1].rewards).abs().max() < 0.05
    assert (results[0].discounts - results[1].discounts).abs().max() < 0.02


@pytest.mark.gpu
def test_captured_rollout_equals_one_that_is_not() -> None:
    model = _model().cuda()
    actor = _actor(model).cuda()
    starts, pool = _starts(model), _pool(model).cuda()
    starts = Starts(**{name: value.cuda() for name, value in vars(starts).items()})
    results = []
    for graph in (False, True, True):
        imagination = PaperImagination(model, actor, ActorCriticTraining(horizon=HORIZON, graph=graph), False)
        imagination(starts, pool)  # captures
        torch.manual_seed(0)
        results.append(imagination(starts, pool).rewards.clone())
    assert torch.allclose(results[0], results[1], atol=1e-5) and torch.equal(results[1], results[2])


def test_stepwise_rollout_shows_the_newest_codes_and_goes_on_elsewhere_after_an_end() -> None:
    model = tiny_model("compact")
    actor = _actor(model)
    frames = torch.randint(256, (5, 3, 4, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    begin = model.start(frames, torch.zeros(5, 2, dtype=torch.int64))
    latent = model.config.observation.latent
    classes = torch.randint(latent.classes, (5, 4, latent.variables))
    config = ActorCriticTraining(horizon=4, restart_below=0.0)
    torch.manual_seed(0)
    rollout = StepwiseImagination(model, actor, config, bfloat16=False)(begin, classes)
    assert torch.equal(rollout.classes[0], classes)
    for step in range(4):
        assert torch.equal(rollout.classes[step + 1, :, :-1], rollout.classes[step, :, 1:]), "codes did not move on"
    rollout = StepwiseImagination(model, actor, replace(config, restart_below=2.0), bfloat16=False)(begin, classes)
    for step in range(4):
        assert rollout.over[step].all() and (rollout.weights[step] == 1).all()
        assert torch.equal(rollout.classes[step + 1], classes.roll(step + 1, 0))


def test_stepwise_rollout_squashes_rewards_once() -> None:
    """Games with too many different rewards have their mean predicted, as it is fed."""
    model = tiny_model("compact", config=replace(tiny_config("compact"), reward_values=()))
    torch.nn.init.constant_(last_bias(model.dynamics.reward_head), 0.9)
    begin = model.start(torch.zeros(2, 1, 4, 64, 64, dtype=torch.uint8))
    classes = torch.zeros(2, 4, model.config.observation.latent.variables, dtype=torch.int64)
    rollout = StepwiseImagination(model, _actor(model), ActorCriticTraining(horizon=2), bfloat16=False)(begin, classes)
    _, prediction = model.step(begin, rollout.actions[0], torch.rand(2, model.noise_size))
    assert torch.allclose(rollout.rewards[0], prediction.reward, atol=1e-5)


def test_model_of_fused_tokens_is_refused_where_separate_ones_are_needed() -> None:
    model = tiny_model("compact")
    with pytest.raises(ValueError, match='tokens = "separate"'):
        PaperImagination(model, _actor(model), ActorCriticTraining())
