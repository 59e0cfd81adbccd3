"""How the paper's world model is trained while its agent plays (Robine et al., ICLR 2023)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from learned_envs.nn.categorical import sample
from learned_envs.twm.world_model import TransformerWorldModel
from training.agents.actor_critic import ActorCritic, Rollout
from training.agents.imagination import PaperImagination, Starts
from training.agents.replay import AgentReplay
from training.loop import Stage, update_seed
from training.precision import mixed_precision
from training.ranges import check_ranges
from training.twm.joint import JointTraining, JointUpdate, reconstructions
from training.twm.replay import BalancedSampler

__all__ = ["PaperTraining", "PaperWorld"]


@dataclass(frozen=True)
class PaperTraining:
    """Schedule of the paper's world model. The defaults are the authors'.

    Args:
        joint: The update.
        length: Trained steps of a sequence.
        balance: Visits that make a start e times less likely to be drawn again; None draws uniformly.
        observation_samples: Samples of the first stage of pretraining, the observation model's.
        observation_batch: Observations in one of its updates.
        dynamics_samples: Samples of the second, the dynamics'.
        agent_samples: Samples of the third, the actor's and critic's.
        agent_windows: Most windows in one of its updates.

    Raises:
        ValueError: If a number lies outside its range.
    """

    joint: JointTraining = field(default_factory=JointTraining)
    length: int = 16
    balance: float | None = 20.0
    observation_samples: int = 30_000_000
    observation_batch: int = 1600
    dynamics_samples: int = 15_000_000
    agent_samples: int = 5_000_000
    agent_windows: int = 400

    def __post_init__(self) -> None:
        samples = ("observation_samples", "dynamics_samples", "agent_samples")
        check_ranges(self, counts=("length", "observation_batch", "agent_windows", *samples))
        if self.balance is not None:
            check_ranges(self, positive=("balance",))


class PaperWorld:
    """Observation model and dynamics of Robine et al. (ICLR 2023), side by side.

    Args:
        model: The model, changed in place.
        replay: What was recorded, and grows.
        agent: Who learns in it.
        config: The schedule.
    """

    def __init__(
        self, model: TransformerWorldModel, replay: AgentReplay, agent: ActorCritic, config: PaperTraining
    ) -> None:
        self.model, self.replay, self.agent, self.config = model, replay, agent, config
        self.learner = JointUpdate(model, config.joint)
        temperature = float("inf") if config.balance is None else config.balance
        self.sampler = BalancedSampler(0, temperature, replay.device)
        self.imagination = PaperImagination(model, agent.actor, agent.config, config.joint.bfloat16)
        self._starts: Starts | None = None

    def pretraining(self, seed: int) -> Iterator[Stage]:
        """The paper's three stages."""
        config = self.config
        yield _Pretraining("pretrain_observation", self, self._observation_passes(seed), self.learner)
        codes = self._codes()
        windows = _Passes(len(self.replay), config.length, config.joint.batch, config.dynamics_samples, seed)

        def learn_dynamics(starts: Tensor) -> dict[str, Tensor]:
            sequences = self.replay.sequences(starts, config.length, pictures=False)
            return self.learner.update_dynamics(sequences, codes[_steps(starts, config.length)])

        yield _Pretraining("pretrain_dynamics", self, (windows, learn_dynamics), self.learner)
        horizon = self.agent.config.horizon
        windows = _Passes(len(self.replay), horizon, config.agent_windows, config.agent_samples, seed)

        def learn_agent(starts: Tensor) -> dict[str, Tensor]:
            return self.agent.pretrain(self._recorded(starts, codes))

        yield _Pretraining("pretrain_agent", self, (windows, learn_agent), self.agent)

    def _observation_passes(self, seed: int) -> "_Task":
        config = self.config
        passes = _Passes(len(self.replay), 1, config.observation_batch, config.observation_samples, seed)
        return passes, lambda steps: self.learner.update_observation_model(self.replay.observations(steps))

    @torch.no_grad()
    def _codes(self) -> Tensor:
        """Encoder logits of all observations so far, shape (N + 1, V, K)."""
        parts = torch.arange(len(self.replay) + 1, device=self.replay.device).split(512)
        return torch.cat([self.learner.encode(self.replay.observations(part).float() / 255) for part in parts])

    @torch.no_grad()
    def _recorded(self, starts: Tensor, codes: Tensor) -> Rollout:
        """Recorded windows in the form of a rollout, with freshly drawn latents."""
        horizon = self.agent.config.horizon
        sequences = self.replay.sequences(starts, horizon, pictures=False)
        classes = _draw(codes[_steps(starts, horizon)])
        over = sequences.done[:, 1:].T
        features = None
        if self.agent.config.on_features:
            latents = functional.one_hot(classes[:, :-1], codes.shape[-1]).flatten(2).float()
            fed = self.model.feed(sequences.rewards_before)
            forecast = self.model.eval().dynamics(latents, sequences.actions, fed, sequences.episodes)
            features = forecast.features.masked_fill(sequences.done.unsqueeze(2), 0.0).transpose(0, 1)
        return Rollout(
            classes=classes[:, 1:].transpose(0, 1).unsqueeze(2),
            actions=sequences.actions[:, 1:].T,
            rewards=self.model.feed(sequences.rewards[:, 1:]).T,
            discounts=torch.full_like(over, self.agent.config.discount, dtype=torch.float32),
            over=over,
            weights=torch.ones_like(over, dtype=torch.float32),
            features=features,
        )

    def update(self, step: int) -> dict[str, Tensor]:
        """See `World.update`."""
        length = self.config.length
        self.sampler.grow(len(self.replay) - length + 1)
        sequences = self.replay.sequences(self.sampler.draw(self.config.joint.batch), length)
        metrics, latents = self.learner(sequences)
        classes = latents.argmax(-1)
        first = (slice(None), slice(-1))  # every step of a sequence but the last has one after it
        self._starts = Starts(
            previous=classes[first].flatten(0, 1),
            actions=sequences.actions[first].flatten(),
            rewards=self.model.feed(sequences.rewards[first]).flatten(),
            over=sequences.done[first].flatten(),
            classes=classes[:, 1:].flatten(0, 1),
        )
        return metrics

    @torch.no_grad()
    def imagine(self) -> Rollout:
        """See `World.imagine`: from the latents of the last update, a part of them drawn without replacement."""
        assert self._starts is not None
        device = self.replay.device
        count = min(self.agent.config.starts, len(self._starts.actions))
        chosen = torch.randperm(len(self._starts.actions), device=device)[:count]
        anywhere = self.replay.observations(torch.randint(len(self.replay), (count,), device=device))
        with mixed_precision(device, self.config.joint.bfloat16):
            pool = self.learner.encode(anywhere.float() / 255)
        return self.imagination(self._starts.take(chosen), _draw(pool.float()))

    def picture(self) -> Tensor:
        """See `World.picture`: recorded frames above their reconstructions."""
        steps = torch.linspace(0, len(self.replay), 8, device=self.replay.device).long()
        return reconstructions(self.model, self.replay.observations(steps))

    def state_dict(self) -> dict[str, Any]:
        """See `World.state_dict`."""
        return {**self.learner.state_dict(), "visits": self.sampler.visits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `World.load_state_dict`."""
        self.learner.load_state_dict(state)
        self.sampler.visits = state["visits"].to(self.replay.device)


def _draw(logits: Tensor) -> Tensor:
    """Sampled classes, shape (..., V, K) to (..., V)."""
    probabilities = logits.softmax(-1)
    return sample(probabilities, torch.rand(probabilities.shape[:-1], device=logits.device))


def _steps(starts: Tensor, length: int) -> Tensor:
    """The steps that a sequence shows, its context and the one after included, shape (B, length + 2)."""
    return (starts.unsqueeze(1) + torch.arange(-1, length + 1, device=starts.device)).clamp_min(0)


class _Passes:
    """Disjoint windows of a recording in a new order, and shifted anew, for each pass over it.

    Args:
        steps: Steps of the recording.
        length: Steps of a window.
        batch: Most windows in an update.
        samples: Steps to learn from in all.
        seed: Seed of the run.
    """

    def __init__(self, steps: int, length: int, batch: int, samples: int, seed: int) -> None:
        self.length, self.batch, self.seed = length, batch, seed
        self.windows = (steps - length + 1) // length
        self.batches = -(-self.windows // batch)
        self.updates = round(samples / (self.windows * length)) * self.batches

    def __getitem__(self, update: int) -> Tensor:
        """First steps of the windows of an update: int64, shape (n,)."""
        number, place = divmod(update, self.batches)
        draws = torch.Generator().manual_seed(update_seed(self.seed, f"pass of {self.length}", number))
        offset = torch.randint(self.length, (), generator=draws)
        order = torch.randperm(self.windows, generator=draws)
        return order[place * self.batch : (place + 1) * self.batch] * self.length + offset


_Task = tuple[_Passes, Callable[[Tensor], dict[str, Tensor]]]


class _Pretraining:
    """One stage of the paper's pretraining.

    Args:
        name: Name of the stage.
        world: Whose it is.
        task: Passes over the recording, and how to learn from windows.
        learner: What changes.
    """

    log_every = 20

    def __init__(self, name: str, world: PaperWorld, task: _Task, learner: Any) -> None:
        self.name, self.world, self.learner = name, world, learner
        self.passes, self.learn = task
        self.updates = self.passes.updates

    def update(self, step: int) -> dict[str, Tensor]:
        metrics = self.learn(self.passes[step].to(self.world.replay.device))
        return {f"{self.name}/{name}": value for name, value in metrics.items()}

    def visualize(self, step: int) -> dict[str, Tensor]:
        return {"reconstructions": self.world.picture()}

    def state_dict(self) -> dict[str, Any]:
        return self.learner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state)
