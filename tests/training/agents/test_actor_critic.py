"""The agent's networks and losses, against numbers worked out by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from learned_envs.policy import LatentPerceptron, Policy, PolicyConfig, one_hot_linear
from learned_envs.twm.config import faithful
from learned_envs.twm.world_model import TransformerWorldModel
from tests.tiny import KINDS, NUM_ACTIONS, TinyKind, tiny_model
from training.agents.actor_critic import (
    ActorCritic,
    ActorCriticTraining,
    Rollout,
    entropy,
    entropy_shortfall,
)
from training.agents.returns import advantages

SMALL = ActorCriticTraining(starts=6, horizon=3, hidden=(8, 8))


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_actor_critic_and_what_acts_have_as_many_parameters_as_the_authors() -> None:
    config, hidden = faithful(18), ActorCriticTraining().hidden
    with torch.device("meta"):
        model = TransformerWorldModel(config)
        policy = Policy(model, PolicyConfig(hidden))
        critic = LatentPerceptron(config.observation, hidden, 1)
    encoder = model.get_submodule("observation_model.encoder")
    assert (_count(policy.actor), _count(critic)) == (1_322_002, 1_313_281)
    assert _count(encoder) + _count(policy.actor) == 4_448_994
    assert _count(model) + _count(policy.actor) + _count(critic) == 21_652_281


def test_networks_begin_orthogonal_and_without_biases() -> None:
    torch.manual_seed(0)
    actor = LatentPerceptron(faithful(6).observation, (512, 512), 6)
    for index, gain in ((0, 2.0), (1, 2.0), (2, 1.0)):
        weight, bias = (getattr(actor.layers[index], name) for name in ("weight", "bias"))
        assert torch.allclose(weight @ weight.T, gain * torch.eye(len(weight)), atol=1e-4)
        assert not bias.any()


def _rollout(**changes: Tensor) -> Rollout:
    """Three steps of two rollouts; an episode ends with the second step of the second one."""
    rollout = Rollout(
        classes=torch.zeros(4, 2, 1, 4, dtype=torch.int64),
        actions=torch.zeros(3, 2, dtype=torch.int64),
        rewards=torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]),
        discounts=torch.tensor([[0.9, 0.8], [0.5, 0.05], [0.9, 0.9]]),
        over=torch.tensor([[False, False], [False, True], [False, False]]),
        weights=torch.tensor([[1.0, 1.0], [0.9, 0.8], [0.45, 1.0]]),
    )
    return replace(rollout, **changes)


def test_entropy_is_a_share_of_the_largest_possible() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1e9, -1e9], [0.0, -1e9, -1e9, -1e9]])
    assert torch.allclose(entropy(logits), torch.tensor([1.0, 0.5, 0.0]))


def test_entropy_term_is_a_hinge_on_the_weighted_mean() -> None:
    """Two states, of entropy 1 and 0, with weights 0.25 and 1: the mean of their products is 0.125."""
    logits = torch.tensor([[0.0, 0.0], [20.0, -20.0]], requires_grad=True)
    weights = torch.tensor([0.25, 1.0])
    above = entropy_shortfall(logits, weights, 0.1)
    above.backward()
    assert above == 0 and logits.grad is not None and not logits.grad.any()
    assert float(entropy_shortfall(logits, weights, 0.3).detach()) == pytest.approx(0.3 - 0.125, abs=1e-6)
    assert float(entropy_shortfall(logits, weights, 1.0).detach()) == pytest.approx(1 - 0.125, abs=1e-6), "plain bonus"


def _agent(config: ActorCriticTraining = SMALL, kind: TinyKind = "faithful") -> ActorCritic:
    torch.manual_seed(0)
    return ActorCritic(tiny_model(kind), config, bfloat16=False)


@pytest.mark.parametrize("changes", [{}, {"normalize": True}, {"entropy_threshold": 1.0, "entropy_weight": 0.5}])
def test_losses_of_an_update_are_those_worked_out_by_hand(changes: dict[str, Any]) -> None:
    config = replace(SMALL, **changes)
    agent, rollout = _agent(config), _rollout()
    with torch.no_grad():
        values = agent.critic(rollout.classes).squeeze(-1)
        logits = agent.actor(rollout.classes[:-1])
    estimates = advantages(rollout.rewards, values, rollout.discounts * ~rollout.over, rollout.over, 0.95)
    found = agent.update(rollout)
    log_two_pi = 0.5 * math.log(2 * math.pi)
    critic = (rollout.weights * (0.5 * estimates.square() + log_two_pi)).mean()
    if config.normalize:
        estimates = (estimates - estimates.mean()) / estimates.std()
    actor = -(rollout.weights * logits.log_softmax(-1)[..., 0] * estimates).mean()
    randomness = (rollout.weights * entropy(logits)).mean()
    assert randomness > 0.1, "the hinge was to be inactive"
    if config.entropy_threshold == 1:
        actor = actor + config.entropy_weight * (1 - randomness)
    assert torch.allclose(found["critic_loss"], critic) and torch.allclose(found["actor_loss"], actor, atol=1e-6)


def test_actor_learns_what_pays_and_critic_what_to_expect() -> None:
    torch.manual_seed(0)
    agent = _agent(replace(SMALL, actor_learning_rate=1e-2, critic_learning_rate=1e-2))
    classes = torch.randint(4, (4, 32, 1, 4))
    for _ in range(60):
        with torch.no_grad():
            logits = agent.actor(classes[:-1])
        actions = torch.distributions.Categorical(logits=logits).sample()
        shape = actions.shape
        agent.update(
            Rollout(
                classes,
                actions,
                (actions == 1).float(),
                torch.zeros(shape),
                torch.zeros(shape, dtype=torch.bool),
                torch.ones(shape),
            )
        )
    assert agent.actor(classes[:-1]).softmax(-1)[..., 1].mean() > 0.8
    assert agent.critic(classes[:-1]).mean() > 0.7


def test_pretraining_makes_the_policy_random_and_keeps_it_off_the_rewards() -> None:
    agent = _agent(replace(SMALL, actor_learning_rate=1e-2))
    with torch.no_grad():
        agent.actor.layers[-1].bias.copy_(torch.tensor([2.0, 0.0, -2.0]))  # type: ignore[operator]
    rollout = _rollout()
    found = [agent.pretrain(rollout)["entropy"] for _ in range(60)]
    assert found[0] < 0.7 and found[-1] > 0.95


def test_columns_that_are_gathered_give_what_the_product_with_one_hot_vectors_gives() -> None:
    torch.manual_seed(0)
    classes, weight, bias = torch.randint(5, (7, 3)), torch.randn(4, 15, requires_grad=True), torch.randn(4)
    product, gathered = (one_hot_linear(classes, weight, bias, 5, gather) for gather in (False, True))
    assert torch.allclose(product, gathered, atol=1e-6)
    mine, theirs = (torch.autograd.grad(result.square().sum(), weight)[0] for result in (product, gathered))
    assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_perceptron_gives_the_same_either_way_and_in_any_batch(kind: TinyKind) -> None:
    torch.manual_seed(0)
    observation = tiny_model(kind).config.observation
    perceptron = LatentPerceptron(observation, (8, 8), NUM_ACTIONS, features=5)
    classes = torch.randint(observation.latent.classes, (2, 3, perceptron.codes, observation.latent.variables))
    features = torch.randn(2, 3, 5)
    whole = perceptron(classes, features)
    assert whole.shape == (2, 3, NUM_ACTIONS)
    assert torch.allclose(perceptron(classes[1, 2], features[1, 2]), whole[1, 2], atol=1e-6)
    perceptron.gather = True
    assert torch.allclose(perceptron(classes, features), whole, atol=1e-5)
    changed = classes.clone()
    changed[0, 0, 0, -1] = (changed[0, 0, 0, -1] + 1) % observation.latent.classes
    assert not torch.equal(perceptron(changed, features)[0, 0], whole[0, 0]), "a code was not looked at"
    assert not torch.equal(perceptron(classes, features + 1), whole), "the features were not looked at"
