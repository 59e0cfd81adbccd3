"""The actor and the critic, and how they learn from what was imagined.

Follows Robine et al. (ICLR 2023, section 2.2) and its authors' release: generalised advantage estimates, an actor that climbs
them by REINFORCE, and an entropy term that acts only while the policy is too sure of itself.

Letters: H steps of a rollout, N rollouts, C codes of an observation, V latent variables.
"""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from learned_envs.policy import LatentPerceptron, Policy, PolicyConfig
from learned_envs.twm.losses import normal_loss
from learned_envs.twm.world_model import TransformerWorldModel
from training.agents.returns import advantages
from training.precision import mixed_precision
from training.ranges import check_ranges
from training.twm.joint import adam, step

__all__ = ["ActorCritic", "ActorCriticTraining", "Rollout", "entropy", "entropy_shortfall"]


@dataclass(frozen=True)
class ActorCriticTraining:
    """How actor and critic learn. The defaults are the authors'.

    Args:
        starts: Rollouts in an update.
        horizon: Imagined steps of each.
        hidden: Widths of the hidden layers of both.
        actor_learning_rate: Learning rate of the actor's Adam.
        critic_learning_rate: Learning rate of the critic's.
        discount: Discount of recorded steps, and in the compact preset of imagined ones, beside what their end brings; in the
            faithful one those bring their own.
        trace: Lambda of the advantage estimates, in [0, 1].
        entropy_weight: Weight of the entropy term.
        entropy_threshold: Entropy, as a share of the largest possible, above which there is no such term; 1 makes it a plain
            bonus.
        restart_below: Where the product of predicted discounts falls below this, a rollout goes on from another recorded
            observation; 0 for never.
        largest_norm: Norm at which gradients are cut.
        normalize: Whether advantages are brought to mean 0 and deviation 1.
        on_features: Whether both also see the transformer's feature.
        gather: Whether first layers sum up columns instead of multiplying by one-hot vectors; None for where that is faster.
        graph: Whether a rollout is captured once and replayed, on devices that can.

    Raises:
        ValueError: If a number lies outside its range.
    """

    starts: int = 400
    horizon: int = 15
    hidden: tuple[int, ...] = (512, 512, 512, 512)
    actor_learning_rate: float = 1e-4
    critic_learning_rate: float = 1e-5
    discount: float = 0.99
    trace: float = 0.95
    entropy_weight: float = 0.01
    entropy_threshold: float = 0.1
    restart_below: float = 0.1
    largest_norm: float = 1.0
    normalize: bool = False
    on_features: bool = False
    gather: bool | None = None
    graph: bool = True

    def __post_init__(self) -> None:
        check_ranges(
            self,
            counts=("starts", "horizon"),
            positive=("actor_learning_rate", "critic_learning_rate", "largest_norm"),
            not_negative=("entropy_weight", "restart_below"),
            shares=("discount", "trace", "entropy_threshold"),
        )


@dataclass(frozen=True)
class Rollout:
    """What happened, imagined or recorded, to learn from.

    Args:
        classes: Codes seen, int64, shape (H + 1, N, C, V).
        actions: int64, shape (H, N).
        rewards: As the agent is to value them, float32, shape (H, N).
        discounts: float32, shape (H, N).
        over: Whether the next state belongs to another episode, bool, shape (H, N).
        weights: How likely the step was to be reached, float32, shape (H, N).
        features: The transformer's features, shape (H + 1, N, D), if they are seen.
    """

    classes: Tensor
    actions: Tensor
    rewards: Tensor
    discounts: Tensor
    over: Tensor
    weights: Tensor
    features: Tensor | None = None


def entropy(logits: Tensor) -> Tensor:
    """Entropy of a policy as a share of the largest possible, shape (..., A) to (...)."""
    logs = logits.log_softmax(-1)
    return -(logs.exp() * logs).sum(-1) / math.log(max(logits.shape[-1], 2))


def entropy_shortfall(logits: Tensor, weights: Tensor, threshold: float) -> Tensor:
    """By how much the weighted mean entropy of a policy stays below a threshold; without gradient above it."""
    return (threshold - (weights * entropy(logits)).mean()).relu()


class ActorCritic:
    """Actor, critic and their optimisers.

    Args:
        model: The world model through which they see.
        config: How they learn.
        bfloat16: Whether to compute hidden layers in bfloat16 where the device has it; weights and outputs stay in float32.
        fused: Whether an optimiser step is one kernel.
    """

    def __init__(
        self, model: TransformerWorldModel, config: ActorCriticTraining, bfloat16: bool = True, fused: bool = True
    ) -> None:
        self.config = config
        self.bfloat16 = bfloat16
        self.device = next(model.parameters()).device
        self.policy = Policy(model, PolicyConfig(config.hidden, config.on_features)).to(self.device)
        assert isinstance(self.policy.actor, LatentPerceptron)
        self.actor = self.policy.actor
        features = model.config.transformer.width if config.on_features else 0
        self.critic = LatentPerceptron(model.config.observation, config.hidden, 1, features).to(self.device)
        # A matrix product of zeros and ones costs a CPU what any other costs; a GPU hardly notices.
        gather = self.device.type == "cpu" if config.gather is None else config.gather
        self.actor.gather = self.critic.gather = gather
        self.actor_optimizer = adam(self.actor, config.actor_learning_rate, fused)
        self.critic_optimizer = adam(self.critic, config.critic_learning_rate, fused)

    def update(self, rollout: Rollout) -> dict[str, Tensor]:
        """Learn from an imagined rollout; the critic first.

        Returns:
            What to log.
        """
        logits, values, estimates = self._judge(rollout)
        critic_loss = (rollout.weights * normal_loss(values[:-1], (estimates + values[:-1]).detach())).mean()
        step(self.critic_optimizer, self.critic, critic_loss, self.config.largest_norm)
        chosen = logits.log_softmax(-1).gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
        if self.config.normalize:
            estimates = (estimates - estimates.mean()) / estimates.std().clamp_min(1e-3)
        shortfall = entropy_shortfall(logits, rollout.weights, self.config.entropy_threshold)
        actor_loss = -(rollout.weights * chosen * estimates).mean() + self.config.entropy_weight * shortfall
        step(self.actor_optimizer, self.actor, actor_loss, self.config.largest_norm)
        return {
            "actor_loss": actor_loss.detach(),
            "critic_loss": critic_loss.detach(),
            "entropy": entropy(logits.detach()).mean(),
            "value": values.detach().mean(),
            "imagined_reward": rollout.rewards.mean(),
            "imagined_discount": rollout.discounts.mean(),
            "restarts": rollout.over.float().mean(),
        }

    def pretrain(self, rollout: Rollout) -> dict[str, Tensor]:
        """Learn the values of what a random policy did, and be as random."""
        logits, values, estimates = self._judge(rollout)
        critic_loss = normal_loss(values[:-1], (estimates + values[:-1]).detach()).mean()
        step(self.critic_optimizer, self.critic, critic_loss, self.config.largest_norm)
        randomness = entropy(logits).mean()
        step(self.actor_optimizer, self.actor, -self.config.entropy_weight * randomness, self.config.largest_norm)
        return {"critic_loss": critic_loss.detach(), "entropy": randomness.detach()}

    def _judge(self, rollout: Rollout) -> tuple[Tensor, Tensor, Tensor]:
        """The policy's logits at each step, the values of all states, and the advantages, without gradient."""
        seen = rollout.features
        with mixed_precision(self.device, self.bfloat16):
            values = self.critic(rollout.classes, seen).squeeze(-1)
            logits = self.actor(rollout.classes[:-1], None if seen is None else seen[:-1])
        discounts = rollout.discounts * ~rollout.over
        estimates = advantages(rollout.rewards, values.detach(), discounts, rollout.over, self.config.trace)
        return logits, values, estimates

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimisers."""
        return {name: getattr(self, name).state_dict() for name in _PARTS}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        for name in _PARTS:
            getattr(self, name).load_state_dict(state[name])


_PARTS = ("actor", "critic", "actor_optimizer", "critic_optimizer")
