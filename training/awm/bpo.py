"""BPO: backpropagation-based policy optimisation (Ma et al., ICML 2024, Algorithm 1; section 2.1).

One real step an update. While the policy plays, whole episodes are collected; the model is fitted to them, and the policy goes
up the gradient of what the model says it would earn. Neither loss moves the other's weights.
"""

from typing import Any

import torch
from torch import Tensor

from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.envs.real.simulator import Simulator, SystemState
from learned_envs.envs.real.systems import System
from learned_envs.world_model import WorldModel
from training.awm.critic import Critic
from training.awm.episodes import Episodes
from training.awm.fit import make_model, model_loss
from training.awm.gradient import Imagined, imagine
from training.awm.optimization import descend
from training.awm.policy import Policy
from training.awm.recipe import BpoRecipe

__all__ = ["BpoStage", "evaluate"]


@torch.no_grad()
def evaluate(system: System, policy: Policy, episodes: int = 1) -> float:
    """Mean return of a policy that acts deterministically in the real system."""
    simulator = Simulator(system)
    noise = torch.rand(episodes, system.horizon + 1, system.noise_size)
    state, total = simulator.initial(noise[:, 0]), torch.zeros(episodes)
    for t in range(system.horizon):
        state, prediction = simulator.step(state, policy.act(simulator.observe(state)), noise[:, t + 1])
        total += prediction.reward
    return float(total.mean())


class BpoStage:
    """Trains a policy, and the model that it is trained through; everything new, from the global generator.

    Args:
        recipe: How.
        system: The real system; left out, the one that the recipe names.

    Raises:
        ValueError: If the recipe's family is trained in another way.
    """

    name = "bpo"
    log_every = 32

    def __init__(self, recipe: BpoRecipe, system: System | None = None) -> None:
        if recipe.family in ("sac", "open-loop"):
            raise ValueError(f"family is {recipe.family!r}, which is not trained by BPO.")
        self.recipe = recipe
        self.updates = recipe.env_steps
        self.system = system or recipe.make_system()
        self.simulator = Simulator(self.system)
        size = len(self.system.observation_bounds)
        self.policy = Policy(size, self.system.action_dim)
        self.policy_optimizer = torch.optim.Adam(self.policy.parameters(), recipe.policy_learning_rate)
        self.model: WorldModel = self.simulator
        if recipe.model_family is not None:
            self.model = make_model(
                self.system,
                recipe.model_family,
                recipe.backbone,
                recipe.preset,
                recipe.reward,
                feedback_gradient=recipe.share_fed_back,
            )
            self.model_optimizer = torch.optim.Adam(self.model.parameters(), recipe.model_learning_rate)
        self.critic: Critic | None = None
        if recipe.family == "markov-critic":
            self.critic = Critic(size)
            self.critic_optimizer = torch.optim.Adam(self.critic.network.parameters(), recipe.critic_learning_rate)
        self.episodes = Episodes.none(self.system)
        self.episode: list[tuple[Tensor, Tensor, Tensor]] = []  # of the one that is played: observation, action, reward
        self.state: SystemState | None = None
        self.returns: list[tuple[int, float]] = []  # of evaluations, with the real steps taken before
        self.metrics: dict[str, Tensor] = {}

    def update(self, step: int) -> dict[str, Tensor]:
        """Take one real step, and learn where it is time to; see `training.loop.Stage`."""
        recipe = self.recipe
        self._interact()
        if step == recipe.warmup:
            self._take_scales()
        if step > recipe.warmup:
            if isinstance(self.model, ContinuousWorldModel) and step % recipe.model_every == 0:
                self._update_model(self.model)
            if step % recipe.policy_every == 0:
                self._update_policy()
        learning = step > recipe.warmup and step % recipe.evaluate_every == 0
        if step == 0 or learning or step == self.updates - 1:
            self.returns.append((step + 1, evaluate(self.system, self.policy, recipe.evaluation_episodes)))
            self.metrics["bpo/return"] = torch.tensor(self.returns[-1][1])
        return self.metrics

    @torch.no_grad()
    def _interact(self) -> None:
        if self.state is None:
            self.state = self.simulator.initial(torch.rand(1, self.system.noise_size))
        observation = self.simulator.observe(self.state)
        if self.recipe.normalize and not len(self.episodes):
            action = torch.rand(1, self.system.action_dim) * 2 - 1
        else:
            action = self.policy.act(observation, torch.randn(1, self.system.action_dim))
        self.state, prediction = self.simulator.step(self.state, action, torch.rand(1, self.system.noise_size))
        self.episode.append((observation, action, prediction.reward))
        if len(self.episode) == self.system.horizon:
            self._end_episode()

    def _end_episode(self) -> None:
        assert self.state is not None
        observations, actions, rewards = (torch.stack(parts, 1) for parts in zip(*self.episode, strict=True))
        observations = torch.cat([observations, self.simulator.observe(self.state).unsqueeze(1)], 1)
        if self.recipe.normalize and not len(self.episodes):
            self.policy.normalizer.fit(observations)
        self.episodes = self.episodes.add(Episodes(observations, actions, rewards), self.recipe.capacity)
        self.episode, self.state = [], None

    def _take_scales(self) -> None:
        """Fix the units of the networks, from the episodes of the warm-up."""
        episodes = self.episodes
        if isinstance(self.model, ContinuousWorldModel):
            self.model.fit_normalization(episodes.observations, episodes.rewards)
        if self.critic is not None:
            self.critic.normalizer.fit(episodes.observations)
            to_go = episodes.rewards.flip(1).cumsum(1)
            self.critic.value_normalizer.fit(to_go.reshape(-1, 1))

    def _update_model(self, model: ContinuousWorldModel) -> None:
        length = self.recipe.unroll + 1 if self.critic is not None else None
        windows = self.episodes.windows(self.recipe.model_batch, length and min(length, self.system.horizon))
        loss = model_loss(model, windows)
        descend(self.model_optimizer, loss, self.recipe.clip)
        self.metrics["bpo/model_loss"] = loss.detach()

    def _update_policy(self) -> None:
        """Section 2.3; with a critic, starts lie anywhere in the episodes, and rewards end where an episode does."""
        if self.critic is None:
            starts, steps = self.episodes.windows(self.recipe.policy_batch).observations[:, 0], self.system.horizon
        else:
            starts, steps = self.episodes.windows(self.recipe.policy_batch, 1).observations[:, 0], self.recipe.unroll
        imagined = imagine(self.model, starts, self.policy, steps)
        returns = self._returns(imagined)
        entropy = imagined.entropies.mean()
        norm = descend(self.policy_optimizer, -returns.mean() - self.recipe.entropy * entropy, self.recipe.clip)
        self.metrics |= {
            "bpo/imagined_return": returns.detach().mean(),
            "bpo/entropy": entropy.detach(),
            "bpo/policy_gradient_norm": norm,
        }
        if self.critic is not None:
            loss = self.critic.loss(starts, returns)
            descend(self.critic_optimizer, loss, self.recipe.clip)
            self.critic.trail(self.recipe.critic_share)
            self.metrics["bpo/critic_loss"] = loss.detach()

    def _returns(self, imagined: Imagined) -> Tensor:
        """Discounted returns, shape (B,), with what the critic expects after the last step, if there is one."""
        alive = (imagined.observations[..., -1].detach() < self.system.horizon - 0.5).to(imagined.rewards.dtype)
        rewards = imagined.rewards * alive[:, :-1]
        factors = self.recipe.discount ** torch.arange(rewards.shape[1] + 1, dtype=rewards.dtype)
        returns = (rewards * factors[:-1]).sum(1)
        if self.critic is None:
            return returns
        return returns + factors[-1] * self.critic.target(imagined.observations[:, -1]) * alive[:, -1]

    def visualize(self, step: int) -> dict[str, Tensor]:
        """See `training.loop.Stage`: nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """See `training.loop.Stage`."""
        return {
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
            "episodes": self.episodes.tensors(),
            "episode": self.episode,
            "state": None if self.state is None else dict(self.state.tensors()),
            "returns": self.returns,
            "metrics": self.metrics,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `training.loop.Stage`."""
        for name, part in self._parts().items():
            part.load_state_dict(state["parts"][name])
        self.episodes = Episodes(**state["episodes"])
        self.episode = state["episode"]
        self.state = None if state["state"] is None else SystemState(**state["state"])
        self.returns = state["returns"]
        self.metrics = state["metrics"]

    def _parts(self) -> dict[str, Any]:
        """Whatever has weights or an optimiser's memory."""
        names = ("policy", "policy_optimizer", "model", "model_optimizer", "critic", "critic_optimizer")
        parts = {name: getattr(self, name, None) for name in names}
        return {name: part for name, part in parts.items() if part is not None}
