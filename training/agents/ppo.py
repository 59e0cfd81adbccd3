"""Proximal Policy Optimisation on the device: observations, actions and rewards are tensors that never leave it.

``python -m training ppo LearnedPong-v0 --steps 2000000``. Schulman et al., https://arxiv.org/abs/1707.06347, with the details
that made it work for everybody: orthogonal weights, advantages of each minibatch brought to one scale, a learning rate that
falls to zero, clipped gradients.

It drives any Gymnasium vector environment in NEXT_STEP mode, best one with ``output="torch"``. In this mode the step after the
end of an episode only resets it: that step is kept out of the losses, and what it stands on, the true last observation, is
what a truncated episode is bootstrapped from.

Letters: T steps of a rollout, N environments.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor, nn

from training.agents.agent import Agent, AgentError, Moments
from training.agents.evaluate import Evaluation, TensorEnvs, evaluate
from training.agents.returns import advantages
from training.ranges import check_ranges

__all__ = ["PpoConfig", "PpoStage"]


@dataclass(frozen=True)
class PpoConfig:
    """How PPO learns.

    Args:
        steps: Steps of all environments together.
        rollout: Steps of each environment between two updates.
        epochs: How often an update goes through what was played.
        minibatch: Steps in a minibatch.
        learning_rate: Of Adam at the beginning; it falls linearly to zero.
        gamma: Discount of a reward one step later.
        gae_lambda: Weight of longer estimates of the advantage, lambda.
        clip: How far the probability of an action may move in an update, as a share.
        entropy: Weight of the bonus for undecided policies.
        value: Weight of the loss of the value.
        gradient_norm: Largest norm of the gradient.
        scale_rewards: Whether to divide rewards by the deviation of the discounted return so far; left out, where observations
            are numbers.
        truncation_ends: Whether nothing follows a truncated episode; left out, something does, but where the end of the time is
            part of the problem.
        evaluate_every: Steps between two evaluations; 0 evaluates at the end only.
        evaluation_episodes: Episodes of an evaluation.

    Raises:
        ValueError: If a number lies outside its range.
    """

    steps: int = 2_000_000
    rollout: int = 32
    epochs: int = 4
    minibatch: int = 256
    learning_rate: float = 5e-4
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.1
    entropy: float = 0.01
    value: float = 0.5
    gradient_norm: float = 0.5
    scale_rewards: bool | None = None
    truncation_ends: bool | None = None
    evaluate_every: int = 0
    evaluation_episodes: int = 30

    def __post_init__(self) -> None:
        check_ranges(
            self,
            counts=("steps", "rollout", "epochs", "minibatch", "evaluation_episodes"),
            positive=("learning_rate", "clip", "gradient_norm"),
            not_negative=("evaluate_every", "entropy", "value"),
            shares=("gamma", "gae_lambda"),
        )


@dataclass(frozen=True)
class _Rollout:
    """What was played, T x N steps; ``valid`` is False where a step only reset its environment."""

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    advantages: Tensor
    returns: Tensor
    valid: Tensor


class PpoStage:
    """PPO in a vector environment, one rollout and its update at a time; see `training.loop.Stage`.

    Args:
        config: How to learn.
        agent: What learns, on its device.
        envs: Where it plays, in NEXT_STEP mode.
        seed: Seed of the environments.
        judges: Where it is evaluated, in NEXT_STEP mode; None for nowhere.

    Raises:
        AgentError: If an environment has another autoreset mode.
    """

    name, log_every = "ppo", 1

    def __init__(
        self, config: PpoConfig, agent: Agent, envs: VectorEnv, seed: int = 0, judges: VectorEnv | None = None
    ) -> None:
        for each in filter(None, (envs, judges)):
            if (mode := each.metadata.get("autoreset_mode")) is not AutoresetMode.NEXT_STEP:
                raise AgentError(f"The environments have autoreset_mode={mode}; PPO needs AutoresetMode.NEXT_STEP.")
        self.config, self.agent, self.judges = config, agent, judges
        self.device = next(agent.parameters()).device
        self.vector_env, self.envs = envs, TensorEnvs(envs, self.device)
        self.updates = -(-config.steps // (config.rollout * envs.num_envs))
        self.optimizer = torch.optim.Adam(agent.parameters(), config.learning_rate, eps=1e-5)
        self.reward_moments = Moments(()).to(self.device)
        self.scale_rewards = agent.moments is not None if config.scale_rewards is None else config.scale_rewards
        self.evaluations: list[tuple[int, Evaluation]] = []
        zeros = torch.zeros(envs.num_envs, device=self.device)
        self.progress = {
            "over": zeros.bool(),
            "return": zeros,
            "discounted": zeros,
            "last_return": torch.full((), np.nan, device=self.device),
        }
        self.observations = self.envs.reset(seed)
        if agent.moments is not None and agent.moments.count == 0:
            self._look_around(agent.moments)

    def update(self, step: int) -> dict[str, Tensor]:
        """Play T steps in every environment and learn from them."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * (1 - step / self.updates)
        self.agent.train()
        rollout = self._play()
        metrics = self._learn(rollout)
        if self.agent.moments is not None:
            self.agent.moments.see(rollout.observations.flatten(0, 1))
        metrics["ppo/return"] = self.progress["last_return"]
        if self._evaluation_is_due(step):
            metrics |= self._evaluate(step)
        return metrics

    @torch.no_grad()
    def _play(self) -> _Rollout:
        config, progress = self.config, self.progress
        shape = config.rollout, self.vector_env.num_envs
        observations = self.observations.new_empty(*shape, *self.observations.shape[1:])
        steps: list[tuple[Tensor, ...]] = []
        finished, total = torch.zeros((2,), device=self.device)
        for t in range(config.rollout):
            observations[t] = self.observations
            distribution, value = self.agent(self.observations)
            action = distribution.sample()
            log_prob, valid = distribution.log_prob(action), ~progress["over"]
            self.observations, reward, terminated, truncated = self.envs.step(self.agent.in_space(action))
            over = terminated | truncated
            ends = over if config.truncation_ends else terminated
            progress["return"] = progress["return"] * valid + reward
            finished, total = finished + over.sum(), total + (progress["return"] * over).sum()
            steps.append((action, log_prob, value, self._scaled(reward, over), ends, over, valid))
            progress["over"] = over
        progress["last_return"] = torch.where(finished > 0, total / finished, progress["last_return"])
        actions, log_probs, values, rewards, ends, over, valid = (
            torch.stack(kind) for kind in zip(*steps, strict=True)
        )
        values = torch.cat([values, self.agent(self.observations)[1].unsqueeze(0)])
        estimates = advantages(rewards, values, config.gamma * ~ends, over, config.gae_lambda)
        return _Rollout(observations, actions, log_probs, estimates, estimates + values[:-1], valid)

    def _scaled(self, reward: Tensor, over: Tensor) -> Tensor:
        if not self.scale_rewards:
            return reward
        discounted = self.progress["discounted"] * self.config.gamma + reward
        self.reward_moments.see(discounted)
        self.progress["discounted"] = discounted * ~over
        return (reward / self.reward_moments.scale.clamp_min(1e-8)).clamp(-10, 10)

    def _learn(self, rollout: _Rollout) -> dict[str, Tensor]:
        flat = {name: values.flatten(0, 1) for name, values in vars(rollout).items()}
        count = len(flat["valid"])
        metrics: dict[str, Tensor] = {}
        for _ in range(self.config.epochs):
            for chosen in torch.randperm(count, device=self.device).split(self.config.minibatch):
                batch = _Rollout(**{name: values[chosen] for name, values in flat.items()})
                loss, metrics = self._loss(batch)
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.agent.parameters(), self.config.gradient_norm)
                self.optimizer.step()
        return metrics

    def _loss(self, batch: _Rollout) -> tuple[Tensor, dict[str, Tensor]]:
        weight = batch.valid / batch.valid.sum().clamp_min(1)
        distribution, value = self.agent(batch.observations)
        log_ratio = distribution.log_prob(batch.actions) - batch.log_probs
        ratio = log_ratio.exp()
        centered = batch.advantages - (weight * batch.advantages).sum()
        advantage = centered / ((weight * centered.square()).sum().sqrt() + 1e-8)
        clipped = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        policy_loss = -(weight * torch.minimum(ratio * advantage, clipped * advantage)).sum()
        value_loss = (weight * (value - batch.returns).square()).sum() / 2
        entropy = (weight * distribution.entropy()).sum()
        loss = policy_loss + self.config.value * value_loss - self.config.entropy * entropy
        metrics = {
            "ppo/entropy": entropy.detach(),
            "ppo/kl": (weight * (ratio - 1 - log_ratio)).sum().detach(),
            "ppo/policy_loss": policy_loss.detach(),
            "ppo/value_loss": value_loss.detach(),
        }
        return loss, metrics

    @torch.no_grad()
    def _look_around(self, moments: Moments) -> None:
        """Act at random for a while, to learn the scale of the observations."""
        self.vector_env.action_space.seed(0)
        seen = [self.observations]
        for _ in range(self.config.rollout):
            action = torch.as_tensor(self.vector_env.action_space.sample(), device=self.device)
            seen.append(self.envs.step(action)[0])
        moments.see(torch.cat(seen))
        self.observations = self.envs.reset()

    def _evaluation_is_due(self, step: int) -> bool:
        size, every = self.config.rollout * self.vector_env.num_envs, self.config.evaluate_every
        crossed = every > 0 and (step + 1) * size // every > step * size // every
        return self.judges is not None and (crossed or step == self.updates - 1)

    def _evaluate(self, step: int) -> dict[str, Tensor]:
        assert self.judges is not None
        result = evaluate(self.agent, self.judges, self.config.evaluation_episodes)
        self.evaluations.append(((step + 1) * self.config.rollout * self.vector_env.num_envs, result))
        return {"ppo/real_return": torch.tensor(result.mean), "ppo/real_return_sd": torch.tensor(result.sd)}

    def visualize(self, step: int) -> dict[str, Tensor]:
        """The newest picture of the first eight environments, if they show any."""
        if not self.agent.config.pictures:
            return {}
        return {"newest": torch.cat([frames[-1:] for frames in self.observations[:8]], -1).float() / 255}

    def state_dict(self) -> dict[str, Any]:
        """See `training.loop.Stage`. Where environments stand is kept where they can tell."""
        place = dict(self.vector_env.get_state().tensors()) if hasattr(self.vector_env, "get_state") else {}  # type: ignore[attr-defined]
        return {
            "agent": self.agent.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "reward_moments": self.reward_moments.state_dict(),
            "progress": self.progress,
            "observations": self.observations,
            "place": place,
            "evaluations": [(step, list(result.returns), list(result.lengths)) for step, result in self.evaluations],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `training.loop.Stage`. Environments that cannot tell where they stand, such as real games, begin new episodes."""
        self.agent.load_state_dict(state["agent"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.reward_moments.load_state_dict(state["reward_moments"])
        self.evaluations = [(step, Evaluation(tuple(r), tuple(n))) for step, r, n in state["evaluations"]]
        self.progress = {name: tensor.to(self.device) for name, tensor in state["progress"].items()}
        if place := state["place"]:
            saved = iter(place.values())
            self.vector_env.set_state(self.vector_env.get_state().map(lambda _: next(saved)))  # type: ignore[attr-defined]
            self.observations = state["observations"].to(self.device)
            return
        for name in ("over", "return", "discounted"):
            self.progress[name] = torch.zeros_like(self.progress[name])
        self.observations = self.envs.reset()
