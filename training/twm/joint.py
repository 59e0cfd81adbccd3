"""The paper's world-model update: observation model and dynamics side by side, each with its own optimiser.

Follows Robine et al. (ICLR 2023) and its authors' release: encode and decode 16 steps, predict them, update the dynamics,
then update the observation model with a consistency term that uses the predictions from before.

Letters: B sequences, L steps of a sequence: one of context, then those that are trained.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from learned_envs.nn.categorical import sample, straight_through
from learned_envs.twm import losses
from learned_envs.twm.dynamics import Forecast
from learned_envs.twm.world_model import TransformerWorldModel
from training.experience import Experience
from training.precision import mixed_precision
from training.ranges import check_ranges
from training.twm.replay import BalancedSampler, Replay, Windows

__all__ = ["JointStage", "JointTraining", "JointUpdate", "Sequences", "adam", "reconstructions", "step"]


@dataclass(frozen=True)
class JointTraining:
    """How both models are fitted together. The defaults are the authors'.

    Args:
        updates: Number of updates.
        batch: Sequences in an update.
        learning_rate: Learning rate of both Adam optimisers.
        entropy_weight: Weight of the entropy hinge.
        consistency_weight: Weight of the consistency term.
        reward_weight: Weight of the reward loss.
        discount_weight: Weight of the discount loss.
        bfloat16: Whether to compute in bfloat16 where that is safe and the device has it; weights stay in float32.
        channels_last: Whether convolutions keep the channels of a pixel together, which they are faster with.
        fused: Whether an optimiser step is one kernel.

    Raises:
        ValueError: If a number lies outside its range.
    """

    updates: int = 125_000
    batch: int = 100
    learning_rate: float = 1e-4
    entropy_weight: float = 5.0
    consistency_weight: float = 0.01
    reward_weight: float = 10.0
    discount_weight: float = 50.0
    bfloat16: bool = True
    channels_last: bool = True
    fused: bool = True

    def __post_init__(self) -> None:
        check_ranges(
            self,
            counts=("updates", "batch"),
            positive=("learning_rate",),
            not_negative=("entropy_weight", "consistency_weight", "reward_weight", "discount_weight"),
        )


@dataclass(frozen=True)
class Sequences:
    """Recorded sequences of L steps. All tensors but the first have shape (B, L).

    Args:
        observations: Observations of the steps and the one after, uint8, shape (B, L + 1, F, 64, 64).
        actions: int64.
        rewards_before: Raw reward gained on the way to the step, float32.
        rewards: Raw reward gained in the step, float32.
        terminated: Whether the game ended with the step, bool.
        done: Whether the episode ended with the step, be it cut, bool.
        episodes: Number of the episode, int64.
    """

    observations: Tensor
    actions: Tensor
    rewards_before: Tensor
    rewards: Tensor
    terminated: Tensor
    done: Tensor
    episodes: Tensor


class JointUpdate:
    """The update of both halves of a transformer world model.

    Args:
        model: The model, changed in place.
        config: How to train.
    """

    def __init__(self, model: TransformerWorldModel, config: JointTraining) -> None:
        self.model = model
        self.config = config
        self.device = next(model.parameters()).device
        self.layout = torch.channels_last if config.channels_last else torch.contiguous_format
        model.observation_model.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.observation_optimizer = adam(model.observation_model, config.learning_rate, config.fused)
        self.dynamics_optimizer = adam(model.dynamics, config.learning_rate, config.fused)

    def __call__(self, sequences: Sequences) -> tuple[dict[str, Tensor], Tensor]:
        """Take one update.

        Returns:
            What to log, and the latents that were sampled for the L steps, one-hot, float32, shape (B, L, V, K).
        """
        self.model.train()
        observations = sequences.observations.float() / 255
        with self._autocast():
            logits, latents = self._encode(observations)
            observation_loss, observation_parts = self._observation_loss(observations, logits, latents)
            forecast = self._predict(sequences, latents.detach())
        dynamics_loss, dynamics_parts = self._dynamics_loss(sequences, logits, forecast)
        step(self.dynamics_optimizer, self.model.dynamics, dynamics_loss)
        agreement = losses.consistency(forecast.latent[:, :-1].float(), logits[:, 1:-1])
        observation_loss = observation_loss + self.config.consistency_weight * agreement
        step(self.observation_optimizer, self.model.observation_model, observation_loss)
        parts = {**observation_parts, "consistency": agreement, **dynamics_parts}
        return {name: value.detach() for name, value in parts.items()}, latents.detach()

    def update_observation_model(self, observations: Tensor) -> dict[str, Tensor]:
        """Learn to code single observations: uint8, shape (N, F, 64, 64)."""
        self.model.train()
        pixels = observations.float() / 255
        with self._autocast():
            logits = self.encode(pixels).float()
            decoded = self.model.observation_model.decode(self._draw(logits)).float()
        total, parts = self._coding_loss(decoded, pixels, logits)
        step(self.observation_optimizer, self.model.observation_model, total)
        return {name: value.detach() for name, value in parts.items()}

    def update_dynamics(self, sequences: Sequences, logits: Tensor) -> dict[str, Tensor]:
        """Learn what happens next on frozen codes: encoder logits of all L + 1 observations, shape (B, L + 1, V, K)."""
        self.model.train()
        with self._autocast():
            forecast = self._predict(sequences, self._draw(logits[:, :-1]))
        total, parts = self._dynamics_loss(sequences, logits, forecast)
        step(self.dynamics_optimizer, self.model.dynamics, total)
        return {name: value.detach() for name, value in parts.items()}

    def encode(self, pixels: Tensor) -> Tensor:
        """Observations in [0, 1], shape (N, F, 64, 64), to logits, shape (N, V, K)."""
        return self.model.observation_model.encode(pixels.contiguous(memory_format=self.layout))

    def _autocast(self) -> torch.autocast:
        return mixed_precision(self.device, self.config.bfloat16)

    def _draw(self, logits: Tensor) -> Tensor:
        """Sampled latents with straight-through gradients, of the shape of the logits."""
        probabilities = logits.softmax(-1)
        classes = sample(probabilities.detach(), torch.rand(probabilities.shape[:-1], device=self.device))
        return straight_through(probabilities, classes)

    def _encode(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder logits of all L steps and the one after, and sampled latents of the L steps.

        Gradients reach the encoder from the trained steps only, not from the context and the one after.
        """
        batch, steps = observations.shape[:2]
        trained = self.encode(observations[:, 1:-1].flatten(0, 1)).unflatten(0, (batch, steps - 2))
        with torch.no_grad():
            around = self.encode(observations[:, [0, -1]].flatten(0, 1)).unflatten(0, (batch, 2))
        logits = torch.cat([around[:, :1], trained, around[:, 1:]], 1).float()
        return logits, self._draw(logits[:, :-1])

    def _predict(self, sequences: Sequences, latents: Tensor) -> Forecast:
        rewards = self.model.feed(sequences.rewards_before)
        return self.model.dynamics(latents.flatten(2), sequences.actions, rewards, sequences.episodes)

    def _observation_loss(
        self, observations: Tensor, logits: Tensor, latents: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        decoded = self.model.observation_model.decode(latents[:, 1:].flatten(0, 1)).float()
        return self._coding_loss(decoded, observations[:, 1:-1].flatten(0, 1), logits[:, 1:-1])

    def _coding_loss(self, decoded: Tensor, pixels: Tensor, logits: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        reconstruction = losses.reconstruction_loss(decoded, pixels)
        entropy = losses.entropy_shortfall(logits)
        total = reconstruction + self.config.entropy_weight * entropy
        return total, {"reconstruction": reconstruction, "entropy_shortfall": entropy}

    def _dynamics_loss(
        self, sequences: Sequences, logits: Tensor, forecast: Forecast
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of the trained steps; the context step only lends its forecast to the consistency term."""
        going_on = 1 - sequences.done[:, 1:].float()
        latent = losses.latent_cross_entropy(forecast.latent[:, 1:].float(), logits[:, 2:], going_on)
        reward = losses.normal_loss(forecast.reward[:, 1:, 0].float(), self.model.feed(sequences.rewards[:, 1:])).mean()
        discount = losses.discount_loss(
            forecast.discount[:, 1:].float(), sequences.terminated[:, 1:], self.model.config.discount
        )
        total = latent + self.config.reward_weight * reward + self.config.discount_weight * discount
        return total, {"latent": latent, "reward": reward, "discount": discount}

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimisers."""
        return {
            "model": self.model.state_dict(),
            "observation_optimizer": self.observation_optimizer.state_dict(),
            "dynamics_optimizer": self.dynamics_optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.observation_optimizer.load_state_dict(state["observation_optimizer"])
        self.dynamics_optimizer.load_state_dict(state["dynamics_optimizer"])


class JointStage:
    """Fits both halves of a transformer world model to recorded experience.

    Args:
        model: The model, changed in place.
        experience: What was recorded.
        config: How to train.
    """

    name = "joint"
    log_every = 10

    def __init__(self, model: TransformerWorldModel, experience: Experience, config: JointTraining) -> None:
        self.model = model
        self.config = config
        self.updates = config.updates
        self.stack = model.config.observation.stack
        self.learner = JointUpdate(model, config)
        self.device = self.learner.device
        self.frames = torch.from_numpy(experience.frames).to(self.device)
        self.replay = Replay(experience, model.config.num_actions, model.config.context, self.device, still=0)
        self.sampler = BalancedSampler(len(self.replay), device=self.device)
        self.first_frame = torch.from_numpy(experience.frame_index[experience.episode_starts]).to(self.device)

    def update(self, step: int) -> dict[str, Tensor]:
        """See `training.loop.Stage`."""
        windows = self.replay.windows(self.sampler.draw(self.config.batch))
        metrics, _ = self.learner(self._sequences(windows))
        return {f"joint/{name}": value for name, value in metrics.items()}

    def _sequences(self, windows: Windows) -> Sequences:
        after = self._stacks(windows.next_frames[:, -1:], windows.episodes[:, -1:])
        done = windows.terminated.clone()
        done[:, :-1] |= windows.episodes[:, 1:] != windows.episodes[:, :-1]
        return Sequences(
            torch.cat([self._stacks(windows.frames, windows.episodes), after], 1),
            windows.actions,
            windows.rewards_before,
            windows.rewards,
            windows.terminated,
            done,
            windows.episodes,
        )

    def _stacks(self, frames: Tensor, episodes: Tensor) -> Tensor:
        """Stacks of frames, padded with an episode's first frame: uint8, shape (B, L, F, 64, 64)."""
        rows = frames.unsqueeze(-1) + torch.arange(1 - self.stack, 1, device=self.device)
        return self.frames[rows.maximum(self.first_frame[episodes].unsqueeze(-1))]

    def visualize(self, step: int) -> dict[str, Tensor]:
        """Recorded newest frames above their reconstructions."""
        windows = self.replay.windows(torch.linspace(0, len(self.replay) - 1, 8, device=self.device).long())
        stacks = self._stacks(windows.frames[:, -1:], windows.episodes[:, -1:])[:, 0]
        return {"reconstructions": reconstructions(self.model, stacks)}

    def state_dict(self) -> dict[str, Any]:
        """See `training.loop.Stage`."""
        return {**self.learner.state_dict(), "visits": self.sampler.visits}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `training.loop.Stage`."""
        self.learner.load_state_dict(state)
        self.sampler.visits = state["visits"].to(self.device)


@torch.no_grad()
def reconstructions(model: TransformerWorldModel, observations: Tensor) -> Tensor:
    """Newest frames above what their codes are decoded to.

    Args:
        model: The model.
        observations: uint8, shape (N, F, 64, 64).

    Returns:
        float in [0, 1], shape (1, 128, 64 * N).
    """
    parts = model.config.observation.frames_per_code
    pixels = observations[:, -parts:].float() / 255
    logits = model.observation_model.encode(pixels)
    decoded = model.decode(straight_through(logits.softmax(-1), logits.argmax(-1)))
    return torch.cat([torch.cat(list(part[:, -1]), 1) for part in (pixels, decoded)], 0)[None]


def adam(module: nn.Module, learning_rate: float, fused: bool = True) -> torch.optim.Adam:
    """The authors' optimiser of a part."""
    return torch.optim.Adam(module.parameters(), learning_rate, eps=1e-5, weight_decay=1e-6, fused=fused)


def step(optimizer: torch.optim.Optimizer, module: nn.Module, loss: Tensor, largest_norm: float = 100.0) -> None:
    """One update by a loss, with the norm of the gradient of all weights cut."""
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), largest_norm)
    optimizer.step()
