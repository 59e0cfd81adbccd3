"""Second stage: learn what happens next, on frozen codes.

Frames are coded once, so an update costs the transformer alone. Teacher forcing shows the model only flawless pasts, and
a rollout then drifts off at its own first mistake. For a growing share of the steps the model is therefore fed its own
prediction instead of the recorded code (scheduled sampling, done in parallel: one pass without gradients predicts all
steps, a second one learns from the mixture).

A code means the same in every cell, but at every place within a cell another, so that a law of motion is seen at few of its
places. For a share of the windows the whole picture is therefore moved by some pixels. So that nothing leaks into what is
imagined later, the model is told by how much (as Karras et al., NeurIPS 2022, do with their augmentations).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from learned_envs.nn.categorical import sample
from learned_envs.twm.dynamics import Dynamics, Forecast
from learned_envs.twm.losses import normal_loss
from training.precision import mixed_precision
from training.ranges import check_ranges
from training.twm.moves import MOVES
from training.twm.observation import cosine
from training.twm.replay import BalancedSampler, Replay, Windows

__all__ = ["DynamicsStage", "DynamicsTraining", "encode_all"]


@dataclass(frozen=True)
class DynamicsTraining:
    """How the dynamics are fitted.

    Args:
        updates: Number of updates.
        batch: Windows in an update.
        length: Steps in a window.
        learning_rate: Highest learning rate of AdamW; it rises over 500 updates, or a quarter if they are fewer than 2000,
            and falls as a cosine.
        weight_decay: Weight decay of AdamW.
        reward_weight: Weight of the reward loss beside the latent loss.
        end_weight: Weight of the episode-end loss.
        self_fed: Final probability that a step is fed the model's own prediction; it grows from the first quarter of the
            updates to the third.
        moved_share: Share of the windows that are shown moved by some pixels, see `training.twm.moves`.
        sampling_temperature: How evenly steps are drawn; the lower, the more often the rarely drawn ones, see `BalancedSampler`.
        bfloat16: Whether to compute in bfloat16 where the device has it; weights stay in float32.

    Raises:
        ValueError: If a number lies outside its range.
    """

    updates: int = 15_000
    batch: int = 64
    length: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.1
    reward_weight: float = 5.0
    end_weight: float = 5.0
    self_fed: float = 0.3
    moved_share: float = 0.0
    sampling_temperature: float = 20.0
    bfloat16: bool = True

    def __post_init__(self) -> None:
        check_ranges(
            self,
            counts=("batch", "length"),
            positive=("learning_rate", "sampling_temperature"),
            not_negative=("updates", "weight_decay", "reward_weight", "end_weight"),
            shares=("self_fed", "moved_share"),
        )


@torch.no_grad()
def encode_all(model: nn.Module, frames: Tensor, batch: int = 512) -> Tensor:
    """Code every recorded frame.

    Args:
        model: The observation model.
        frames: On the model's device, uint8, shape (frames, 64, 64).
        batch: Frames at a time.

    Returns:
        Probabilities of the classes in steps of 1/255, uint8, shape (frames, V, K).
    """
    parts = [model.encode(part.unsqueeze(1).float() / 255).softmax(-1) for part in frames.split(batch)]  # type: ignore[operator]
    return torch.cat([(part * 255).round().to(torch.uint8) for part in parts])


class DynamicsStage:
    """Fits the dynamics to recorded codes.

    Args:
        dynamics: The model, changed in place.
        codes: Code of every recorded frame, see `encode_all`, uint8, shape (frames, V, K).
        replay: The recorded steps.
        config: How to train.
        preview: Draws what the model imagines, for the log: float in [0, 1], shape (channels, height, width).
        name: Name of the stage.
        moved: Codes of every recorded frame moved in every way, see `encode_moved`; only of configurations with a
            ``moved_share``.

    Raises:
        ValueError: If windows shall be moved, but no moved codes are given.
    """

    log_every = 50

    def __init__(
        self,
        dynamics: Dynamics,
        codes: Tensor,
        replay: Replay,
        config: DynamicsTraining,
        preview: Callable[[], Tensor] | None = None,
        name: str = "dynamics",
        moved: Tensor | None = None,
    ) -> None:
        if config.moved_share and moved is None:
            raise ValueError(
                f"moved_share is {config.moved_share}, but there are no codes of moved frames: pass them, or set it to 0."
            )
        self.name = name
        self.dynamics = dynamics
        self.codes = codes
        self.replay = replay
        self.config = config
        self.updates = config.updates
        self.preview = preview
        self.moved = moved if config.moved_share else None
        # What tells the model by how much a window was moved. It is not part of the model: what is not moved is told 0.
        nothing = torch.zeros(len(MOVES) + 1, dynamics.config.transformer.width, device=codes.device)
        self.move_embedding = nn.Embedding.from_pretrained(nothing, freeze=False, padding_idx=0)
        self.sampler = BalancedSampler(len(replay), config.sampling_temperature, codes.device)
        trained = [*dynamics.parameters(), *(self.move_embedding.parameters() if config.moved_share else ())]
        self.optimizer = torch.optim.AdamW(trained, betas=(0.9, 0.95), weight_decay=config.weight_decay)
        self.reward_values = torch.tensor(dynamics.config.reward_values, device=codes.device)

    def follow(self, last: "DynamicsStage") -> None:
        """Take over what an earlier fit knew beside the model: how often steps were drawn, and how moves are told."""
        known = min(len(self.sampler.visits), len(last.sampler.visits))
        self.sampler.visits[:known] = last.sampler.visits[:known]
        self.move_embedding.load_state_dict(last.move_embedding.state_dict())

    def grow(self, codes: Tensor, replay: Replay) -> None:
        """Go on with more steps than before; what was known keeps its place."""
        self.codes, self.replay = codes, replay
        self.sampler.grow(len(replay))

    def update(self, step: int) -> dict[str, Tensor]:
        """See `training.loop.Stage`."""
        warm_up = max(1, min(500, self.updates // 4))
        for group in self.optimizer.param_groups:
            group["lr"] = cosine(step, self.updates, self.config.learning_rate, warm_up)
        self.dynamics.train()
        windows = self._move(self._forget_opening(self.replay.windows(self.sampler.draw(self.config.batch))))
        latents = self._draw(self._probabilities(windows.frames))
        self_fed = self.config.self_fed * min(1.0, max(0.0, 2 * step / self.updates - 0.5))
        if self_fed > 0:
            latents = self._feed_own(latents, windows, self_fed)
        with mixed_precision(latents.device, self.config.bfloat16):
            forecast = self._predict(latents, windows)
        losses = self._losses(forecast, windows)
        loss = losses["latent"] + self.config.reward_weight * losses["reward"] + self.config.end_weight * losses["end"]
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 1.0)
        self.optimizer.step()
        return {f"{self.name}/{name}": value.detach() for name, value in losses.items()}

    def _forget_opening(self, windows: Windows) -> Windows:
        """Make half of the windows open as an environment does: with three frames whose actions nobody recorded."""
        device = windows.frames.device
        chosen = torch.rand(len(windows.frames), 1, device=device) < 0.5
        position = torch.arange(self.config.length, device=device)
        opening = chosen & (position < 3)
        before = chosen & (position < 4)
        return replace(
            windows,
            actions=windows.actions.masked_fill(opening, self.replay.num_actions),
            rewards_before=windows.rewards_before.masked_fill(before, 0.0),
            real=windows.real & ~opening,
        )

    def _move(self, windows: Windows) -> Windows:
        """Move some windows in one of the ways. Rows of frames then count on: all frames, all moved in the first way, ..."""
        if self.moved is None:
            return windows
        device, count = windows.frames.device, len(windows.frames)
        ways = torch.randint(1, len(MOVES) + 1, (count, 1), device=device)
        chosen = torch.rand(count, 1, device=device) < self.config.moved_share
        offset = ways * chosen * len(self.codes)
        return replace(windows, frames=windows.frames + offset, next_frames=windows.next_frames + offset)

    def _predict(self, latents: Tensor, windows: Windows) -> Forecast:
        told = None if self.moved is None else self.move_embedding(windows.frames // len(self.codes))
        return self.dynamics(latents, windows.actions, windows.rewards_before.tanh(), windows.episodes, told)

    @torch.no_grad()
    def _feed_own(self, latents: Tensor, windows: Windows, share: float) -> Tensor:
        """Replace some steps by samples of what the model predicted for them."""
        with mixed_precision(latents.device, self.config.bfloat16):
            forecast = self._predict(latents, windows)
        predicted = self._draw(forecast.latent[:, :-1].float().softmax(-1))
        fed = (torch.rand(predicted.shape[:2], device=predicted.device) < share) & windows.real[:, :-1]
        fed &= windows.episodes[:, 1:] == windows.episodes[:, :-1]
        return torch.cat([latents[:, :1], torch.where(fed.unsqueeze(-1), predicted, latents[:, 1:])], 1)

    def _losses(self, forecast: Forecast, windows: Windows) -> dict[str, Tensor]:
        weight = windows.real.float()
        total = weight.sum()
        targets = self._probabilities(windows.next_frames)
        divergence = targets * ((targets + 1e-9).log() - forecast.latent.float().log_softmax(-1))
        latent = divergence.sum((-2, -1))
        reward = self._reward_loss(forecast.reward.float(), windows.rewards)
        end = functional.binary_cross_entropy_with_logits(
            forecast.discount.float(), 1 - windows.terminated.float(), reduction="none"
        )
        return {
            "latent": (latent * weight).sum() / total,
            "reward": (reward * weight).sum() / total,
            "end": (end * weight).sum() / total,
        }

    def _reward_loss(self, output: Tensor, rewards: Tensor) -> Tensor:
        """Cross-entropy to the nearest reward value or, without values, the paper's loss of squashed rewards: shape (B, L)."""
        if not len(self.reward_values):
            return normal_loss(output.squeeze(-1), rewards.tanh())
        nearest = (rewards.unsqueeze(-1) - self.reward_values).abs().argmin(-1)
        return functional.cross_entropy(output.movedim(-1, 1), nearest, reduction="none")

    def _probabilities(self, frames: Tensor) -> Tensor:
        """The encoder's distributions, float32, shape (B, L, V, K)."""
        coded = self.codes[frames % len(self.codes)].float()
        probabilities = coded / coded.sum(-1, keepdim=True)
        if self.moved is not None:
            moved = frames >= len(self.codes)
            classes = self.moved[frames[moved] - len(self.codes)].long()
            probabilities[moved] = functional.one_hot(classes, coded.shape[-1]).float()
        return probabilities

    def _draw(self, probabilities: Tensor) -> Tensor:
        """One-hot samples, shape (B, L, V * K)."""
        classes = sample(probabilities, torch.rand(probabilities.shape[:-1], device=probabilities.device))
        return functional.one_hot(classes, probabilities.shape[-1]).flatten(-2).float()

    def visualize(self, step: int) -> dict[str, Tensor]:
        """See `training.loop.Stage`."""
        if self.preview is None:
            return {}
        self.dynamics.eval()
        return {"open_loop": self.preview()}

    def state_dict(self) -> dict[str, Any]:
        """See `training.loop.Stage`."""
        return {
            "model": self.dynamics.state_dict(),
            "move_embedding": self.move_embedding.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "visits": self.sampler.visits,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `training.loop.Stage`."""
        self.dynamics.load_state_dict(state["model"])
        if self.moved is not None:
            self.move_embedding.load_state_dict(state["move_embedding"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.visits = state["visits"].to(self.codes.device)
