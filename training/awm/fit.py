"""Fit a world model of continuous states to recorded episodes (section 2.2)."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from learned_envs.awm import config as presets
from learned_envs.awm.config import AwmConfig, BackboneName, Family
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.envs.real.systems import System
from training.awm.episodes import Episodes
from training.awm.optimization import descend
from training.ranges import check_ranges
from training.twm.observation import cosine

__all__ = ["FitStage", "Fitting", "make_model", "model_loss", "prediction_error"]

Preset = Literal["faithful", "compact"]
_PREDICTED_INPUTS = 0.9  # epsilon of section 2.2
_WARM_UP = 100


@dataclass(frozen=True)
class Fitting:
    """How a model is fitted.

    Args:
        updates: Number of updates.
        batch: Windows in an update.
        length: Steps of a window; None, whole episodes.
        anywhere: Share of updates on windows of random length from anywhere in the episodes, so that a model can also begin
            there. The released code has none.
        learning_rate: Learning rate of Adam; the largest, if it decays.
        decay: Whether it rises over 100 updates and falls as a cosine. The released code keeps it constant.
        clip: Largest norm of the gradient.

    Raises:
        ValueError: If a value lies outside its range.
    """

    updates: int = 20_000
    batch: int = 64
    length: int | None = None
    anywhere: float = 0.0
    learning_rate: float = 1e-3
    decay: bool = False
    clip: float = 100.0

    def __post_init__(self) -> None:
        check_ranges(self, positive=("updates", "batch", "learning_rate", "clip"), shares=("anywhere",))


def make_model(
    system: System,
    family: Family,
    backbone: BackboneName | None = None,
    preset: Preset = "faithful",
    reward: Literal["known", "learned"] = "known",
    **changes: Any,
) -> ContinuousWorldModel:
    """A new model of a system, with weights from the global generator.

    Args:
        system: What it shall model; its horizon is that of the model.
        family: What a prediction is told.
        backbone: The sequence model; left out, the usual one.
        preset: Sizes, see `learned_envs.awm.config`.
        reward: Whether the system tells its reward, or a network learns it.
        **changes: Other fields of `AwmConfig`.

    Raises:
        ValueError: If two choices do not fit each other.
    """
    sizes = getattr(presets, preset)(family, system.state_dim, system.action_dim, system.horizon, backbone, reward)
    config = AwmConfig(**{**vars(sizes), **changes})
    if config.clock and config.observation_dim != len(system.observation_bounds):
        raise ValueError(
            f"{type(system).__name__} as configured shows more than its state and the clock, expected no more."
        )
    return ContinuousWorldModel(config, system.reward if reward == "known" else None)


def model_loss(model: ContinuousWorldModel, windows: Episodes) -> Tensor:
    """The loss of section 2.2, in normalised units.

    Half the mean squared error of the next observations, in which the clock counts with zero error; and if the reward is
    learned, half the mean squared error of the reward. That is read on states without a gradient: with probability 0.9 the
    model's own prediction, else the true one.

    Args:
        model: What to fit.
        windows: What to fit it to.

    Returns:
        The loss, shape ().
    """
    before = windows.observations[:, :-1]
    predicted = model(before, windows.actions)
    states = slice(model.config.state_dim)
    error = (predicted - windows.observations[:, 1:])[..., states] / model.target_normalizer.scale
    loss = error.square().sum(-1).mean() / (2 * model.config.observation_dim)
    if model.config.reward == "known":
        return loss
    own = torch.cat([before[:, :1], predicted[:, :-1].detach()], 1)
    feed_own = torch.rand(own.shape[:2]).unsqueeze(-1) < _PREDICTED_INPUTS
    rewards = model.reward(torch.where(feed_own, own, before), windows.actions)
    return loss + ((rewards - windows.rewards) / model.reward_normalizer.scale).square().mean() / 2


@torch.no_grad()
def prediction_error(model: ContinuousWorldModel, episodes: Episodes) -> Tensor:
    """Mean squared error of open-loop rollouts of recorded actions, in units of the model's target deviation.

    Args:
        model: The model.
        episodes: What really happened.

    Returns:
        Error of each step, shape (H,).
    """
    seen, _ = model.imagine(episodes.observations[:, 0], episodes.actions)
    states = slice(model.config.state_dim)
    error = (seen - episodes.observations[:, 1:])[..., states] / model.target_normalizer.scale
    return error.square().mean((0, 2))


class FitStage:
    """Fits a model to episodes that do not change.

    Args:
        model: The model, changed in place; its scales are taken from the episodes.
        episodes: What to learn from.
        config: How.
        name: Name of the stage.

    Raises:
        ValueError: If the model does not fit the episodes.
    """

    log_every = 50

    def __init__(
        self, model: ContinuousWorldModel, episodes: Episodes, config: Fitting | None = None, name: str = "fit"
    ) -> None:
        self.name = name
        self.model = model
        self.episodes = episodes
        self.config = config or Fitting()
        self.updates = self.config.updates
        self.optimizer = torch.optim.Adam(model.parameters(), self.config.learning_rate)
        model.fit_normalization(episodes.observations, episodes.rewards)

    def update(self, step: int) -> dict[str, Tensor]:
        """See `training.loop.Stage`."""
        if self.config.decay:
            for group in self.optimizer.param_groups:
                group["lr"] = cosine(step, self.updates, self.config.learning_rate, _WARM_UP)
        loss = model_loss(self.model, self.episodes.windows(self.config.batch, self._length()))
        norm = descend(self.optimizer, loss, self.config.clip)
        return {f"{self.name}/loss": loss.detach(), f"{self.name}/gradient_norm": norm}

    def _length(self) -> int | None:
        """Steps of the windows of an update."""
        if self.config.anywhere and float(torch.rand(())) < self.config.anywhere:
            return int(torch.randint(1, self.episodes.horizon + 1, ()))
        return self.config.length

    def visualize(self, step: int) -> dict[str, Tensor]:
        """See `training.loop.Stage`: nothing."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """See `training.loop.Stage`."""
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `training.loop.Stage`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
