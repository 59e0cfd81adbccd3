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
from training.twm.replay import BalancedSampler, Replay, Windows

__all__ = ["JointStage", "JointTraining"]


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
        bfloat16: Whether to compute in bfloat16 where that is safe; weights stay in float32.
    """

    updates: int = 125_000
    batch: int = 100
    learning_rate: float = 1e-4
    entropy_weight: float = 5.0
    consistency_weight: float = 0.01
    reward_weight: float = 10.0
    discount_weight: float = 50.0
    bfloat16: bool = True


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
        self.device = next(model.parameters()).device
        self.frames = torch.from_numpy(experience.frames).to(self.device)
        self.replay = Replay(experience, model.config.num_actions, model.config.context, self.device, still=0)
        self.sampler = BalancedSampler(len(self.replay), device=self.device)
        self.first_frame = torch.from_numpy(experience.frame_index[experience.episode_starts]).to(self.device)
        adam: dict[str, Any] = {"lr": config.learning_rate, "eps": 1e-5, "weight_decay": 1e-6}
        self.observation_optimizer = torch.optim.Adam(model.observation_model.parameters(), **adam)
        self.dynamics_optimizer = torch.optim.Adam(model.dynamics.parameters(), **adam)

    def update(self, step: int) -> dict[str, Tensor]:
        """See `training.loop.Stage`."""
        self.model.train()
        windows = self.replay.windows(self.sampler.draw(self.config.batch))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16):
            logits, latents = self._encode(windows)
            observation_loss, observation_parts = self._observation_loss(windows, logits, latents)
            forecast = self.model.dynamics(
                latents.detach().flatten(2), windows.actions, windows.rewards_before.tanh(), windows.episodes
            )
        dynamics_loss, dynamics_parts = self._dynamics_loss(windows, logits, forecast)
        _step(self.dynamics_optimizer, self.model.dynamics, dynamics_loss)
        agreement = losses.consistency(forecast.latent[:, :-1].float(), logits[:, 1:-1])
        _step(
            self.observation_optimizer,
            self.model.observation_model,
            observation_loss + self.config.consistency_weight * agreement,
        )
        parts = {**observation_parts, "consistency": agreement, **dynamics_parts}
        return {f"joint/{name}": value.detach() for name, value in parts.items()}

    def _encode(self, windows: Windows) -> tuple[Tensor, Tensor]:
        """Encoder logits of all L steps and the one after, and sampled latents of the L steps.

        Gradients reach the encoder from the trained steps only, not from the context and the one after.
        """
        stacks = torch.cat([self._stacks(windows.frames, windows.episodes), self._next_stacks(windows)], 1)
        batch, steps = stacks.shape[:2]
        encode = self.model.observation_model.encode
        trained = encode(stacks[:, 1:-1].flatten(0, 1)).unflatten(0, (batch, steps - 2))
        with torch.no_grad():
            around = encode(stacks[:, [0, -1]].flatten(0, 1)).unflatten(0, (batch, 2))
        logits = torch.cat([around[:, :1], trained, around[:, 1:]], 1).float()
        probabilities = logits[:, :-1].softmax(-1)
        classes = sample(probabilities.detach(), torch.rand(probabilities.shape[:-1], device=self.device))
        return logits, straight_through(probabilities, classes)

    def _observation_loss(self, windows: Windows, logits: Tensor, latents: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        frames = self._stacks(windows.frames[:, 1:], windows.episodes[:, 1:]).flatten(0, 1)
        decoded = self.model.observation_model.decode(latents[:, 1:].flatten(0, 1)).float()
        reconstruction = losses.reconstruction_loss(decoded, frames)
        entropy = losses.entropy_shortfall(logits[:, 1:-1])
        total = reconstruction + self.config.entropy_weight * entropy
        return total, {"reconstruction": reconstruction, "entropy_shortfall": entropy}

    def _dynamics_loss(self, windows: Windows, logits: Tensor, forecast: Forecast) -> tuple[Tensor, dict[str, Tensor]]:
        """Losses of the trained steps; the context step only lends its forecast to the consistency term."""
        done = windows.terminated.clone()
        done[:, :-1] |= windows.episodes[:, 1:] != windows.episodes[:, :-1]
        going_on = 1 - done[:, 1:].float()
        latent = losses.latent_cross_entropy(forecast.latent[:, 1:].float(), logits[:, 2:], going_on)
        reward = losses.normal_loss(forecast.reward[:, 1:, 0].float(), windows.rewards[:, 1:].tanh()).mean()
        discount = losses.discount_loss(
            forecast.discount[:, 1:].float(), windows.terminated[:, 1:], self.model.config.discount
        )
        total = latent + self.config.reward_weight * reward + self.config.discount_weight * discount
        return total, {"latent": latent, "reward": reward, "discount": discount}

    def _stacks(self, frames: Tensor, episodes: Tensor) -> Tensor:
        """Stacks of frames in [0, 1], shape (B, L, F, 64, 64), padded with an episode's first frame."""
        rows = frames.unsqueeze(-1) + torch.arange(1 - self.stack, 1, device=self.device)
        return self.frames[rows.maximum(self.first_frame[episodes].unsqueeze(-1))].float() / 255

    def _next_stacks(self, windows: Windows) -> Tensor:
        """The observation after the last step."""
        return self._stacks(windows.next_frames[:, -1:], windows.episodes[:, -1:])

    def visualize(self, step: int) -> dict[str, Tensor]:
        """Recorded newest frames above their reconstructions."""
        windows = self.replay.windows(torch.linspace(0, len(self.replay) - 1, 8, device=self.device).long())
        with torch.no_grad():
            stacks = self._stacks(windows.frames[:, -1:], windows.episodes[:, -1:])[:, 0]
            logits = self.model.observation_model.encode(stacks)
            classes = logits.argmax(-1)
            decoded = self.model.decode(straight_through(logits.softmax(-1), classes))
        return {"reconstructions": torch.cat([torch.cat(list(part[:, -1]), 1) for part in (stacks, decoded)], 0)[None]}

    def state_dict(self) -> dict[str, Any]:
        """See `training.loop.Stage`."""
        return {
            "model": self.model.state_dict(),
            "observation_optimizer": self.observation_optimizer.state_dict(),
            "dynamics_optimizer": self.dynamics_optimizer.state_dict(),
            "visits": self.sampler.visits,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `training.loop.Stage`."""
        self.model.load_state_dict(state["model"])
        self.observation_optimizer.load_state_dict(state["observation_optimizer"])
        self.dynamics_optimizer.load_state_dict(state["dynamics_optimizer"])
        self.sampler.visits = state["visits"].to(self.device)


def _step(optimizer: torch.optim.Optimizer, module: nn.Module, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(module.parameters(), 100.0)
    optimizer.step()
