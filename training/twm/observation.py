"""First stage: learn to code single frames.

A ball of two pixels weighs next to nothing in a mean over 4096. Pixels that differ from the empty scene are therefore
weighted up, be it in the recorded frame or in the decoded one: specks count like gaps. The decoder first sees probabilities
instead of samples, so that codes form before they have to be sharp. Half of the frames are drawn by how badly they were
decoded when last seen; a ball that passes a paddle is in one frame of fifty. Towards the end, codes pay for their entropy:
where several pictures code as well, as in an empty cell, one must be settled on, or the dynamics would have to predict noise.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from learned_envs.nn.categorical import entropy, mix_uniform, most_likely, sample, straight_through
from learned_envs.twm.observation_model import GridObservationModel
from training.precision import mixed_precision
from training.ranges import check_ranges

__all__ = ["DecoderStage", "ObservationStage", "ObservationTraining", "cosine"]

_UNSEEN = 1e3  # loss ascribed to frames that were never drawn, larger than that of any other


@dataclass(frozen=True)
class ObservationTraining:
    """How the observation model is fitted.

    Args:
        updates: Number of updates.
        batch: Frames in an update.
        learning_rate: Highest learning rate of AdamW; it rises over 50 updates and falls as a cosine.
        foreground_weight: Extra weight of the pixels that differ from the empty scene.
        soft_share: Share of the updates in which probabilities are decoded instead of samples.
        entropy_weight: Final weight of the codes' entropy, in nats a frame, beside the pixels' loss; it grows over the second
            half of the updates.
        hard_share: Share of the frames drawn in proportion to their last loss; the others are drawn evenly.
        bfloat16: Whether to compute in bfloat16 where the device has it; weights stay in float32.

    Raises:
        ValueError: If a number lies outside its range.
    """

    updates: int = 4000
    batch: int = 256
    learning_rate: float = 2e-3
    foreground_weight: float = 30.0
    soft_share: float = 0.25
    entropy_weight: float = 0.001
    hard_share: float = 0.5
    bfloat16: bool = True

    def __post_init__(self) -> None:
        check_ranges(
            self,
            counts=("updates", "batch"),
            positive=("learning_rate",),
            not_negative=("foreground_weight", "entropy_weight"),
            shares=("soft_share", "hard_share"),
        )


def cosine(step: int, updates: int, highest: float, warm_up: int = 50) -> float:
    """Learning rate at an update: a linear rise, then half a cosine down to 1% of the highest."""
    fraction = step / updates
    return highest * min(1.0, (step + 1) / warm_up) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * fraction)))


class ObservationStage:
    """Fits a grid observation model to recorded frames.

    Args:
        model: The model, changed in place.
        frames: Recorded frames on the model's device, uint8, shape (frames, 64, 64).
        config: How to train.
    """

    name = "observation"
    log_every = 20

    def __init__(self, model: GridObservationModel, frames: Tensor, config: ObservationTraining) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.frames = frames
        self.config = config
        self.updates = config.updates
        self.empty_scene = self._find_empty_scene()
        self.optimizer = torch.optim.AdamW(self._learning(), betas=(0.9, 0.99), weight_decay=1e-4)
        self.last_losses = torch.full((len(frames),), _UNSEEN, device=frames.device)

    def _find_empty_scene(self) -> Tensor:
        """What most frames show, from which the model's background begins: in [0, 1], shape (64, 64)."""
        scene = self.frames[:: max(1, len(self.frames) // 2000)].float().median(0).values / 255
        with torch.no_grad():
            self.model.background.copy_(scene)
        return scene

    def _learning(self) -> list[nn.Parameter]:
        return list(self.model.parameters())

    def grow(self, frames: Tensor) -> None:
        """Go on with more frames than before; what was known keeps its place."""
        new = torch.full((len(frames) - len(self.frames),), _UNSEEN, device=frames.device)
        self.frames, self.last_losses = frames, torch.cat([self.last_losses, new])

    def update(self, step: int) -> dict[str, Tensor]:
        """See `training.loop.Stage`."""
        for group in self.optimizer.param_groups:
            group["lr"] = cosine(step, self.updates, self.config.learning_rate)
        chosen = self._draw()
        frames = self.frames[chosen].unsqueeze(1).float() / 255
        with mixed_precision(frames.device, self.config.bfloat16):
            probabilities = self._encode(frames)
            latents = probabilities
            if not self._soft(step):
                latents = straight_through(
                    probabilities, sample(probabilities, torch.rand(probabilities.shape[:-1], device=frames.device))
                )
            decoded = self.model.decode(latents).float()
        losses = (self._weights(frames, decoded.detach(), step) * (decoded - frames).square()).sum((1, 2, 3))
        self.last_losses[chosen] = losses.detach()
        uncertainty = entropy(probabilities).sum(-1).mean()
        weight = self.config.entropy_weight * max(0.0, 2 * step / self.updates - 1)
        self.optimizer.zero_grad()
        (losses.mean() + weight * uncertainty).backward()
        nn.utils.clip_grad_norm_(self._learning(), 100.0)
        self.optimizer.step()
        return {f"{self.name}/loss": losses.detach().mean(), f"{self.name}/entropy": uncertainty.detach()}

    def _encode(self, frames: Tensor) -> Tensor:
        return mix_uniform(self.model.encode(frames), self.model.config.latent.uniform_share)

    def _soft(self, step: int) -> bool:
        return step < self.config.soft_share * self.updates

    def _draw(self) -> Tensor:
        """Frames of an update: int64, shape (batch,)."""
        hard = int(self.config.batch * self.config.hard_share)
        evenly = torch.randint(len(self.frames), (self.config.batch - hard,), device=self.frames.device)
        return torch.cat([evenly, torch.multinomial(self.last_losses, hard, replacement=True)]) if hard else evenly

    def _weights(self, frames: Tensor, decoded: Tensor, step: int) -> Tensor:
        """Weight of each pixel's squared error."""
        foreground = (frames - self.empty_scene).abs() > 0.03
        if not self._soft(step):  # before that, everything decoded is a blur
            foreground |= (decoded - self.empty_scene).abs() > 0.05
        return 1 + self.config.foreground_weight * foreground

    @torch.no_grad()
    def visualize(self, step: int) -> dict[str, Tensor]:
        """Recorded frames above their reconstructions."""
        rows = (
            self.frames[torch.linspace(0, len(self.frames) - 1, 8, device=self.frames.device).long()]
            .unsqueeze(1)
            .float()
            / 255
        )
        probabilities = self.model.encode(rows).softmax(-1)
        decoded = self.model.decode(straight_through(probabilities, most_likely(probabilities)))
        picture = torch.cat([torch.cat(list(part[:, 0]), 1) for part in (rows, decoded.clamp(0, 1))], 0)
        return {"reconstructions": picture.unsqueeze(0)}

    def state_dict(self) -> dict[str, Any]:
        """See `training.loop.Stage`."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "last_losses": self.last_losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `training.loop.Stage`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.last_losses = state["last_losses"].to(self.frames.device)


class DecoderStage(ObservationStage):
    """Fits what draws codes to more recorded frames, and leaves the codes themselves as they are.

    Agents go where no scripted policy goes. Their frames are coded well enough, but drawn badly: that can be mended without
    coding all frames, and fitting the dynamics, anew.
    """

    name = "decoder"

    def _find_empty_scene(self) -> Tensor:
        return self.model.background.detach().clone()

    def _learning(self) -> list[nn.Parameter]:
        return self.model.drawing_parameters()

    @torch.no_grad()
    def _encode(self, frames: Tensor) -> Tensor:
        return super()._encode(frames)
