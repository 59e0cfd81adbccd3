"""Everything that decides how a bundled world model of a control problem comes out."""

from dataclasses import dataclass, field
from typing import Any, Literal, cast, get_args

import torch
from pydantic import ConfigDict

from learned_envs.awm.config import BackboneName, Family
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.catalog import CATALOG
from learned_envs.envs.real.systems import System, make_system
from training.awm.fit import Fitting, Preset, make_model
from training.awm.plans import PlanKind
from training.ranges import check_ranges

__all__ = ["Candidate", "ModelRecipe", "PlansRecipe", "PolicyRecipe"]


@dataclass(frozen=True)
class PlansRecipe:
    """What to record before training.

    Args:
        episodes: Real episodes to train on.
        unseen: Real episodes to measure and choose by; they are never trained on.
        kinds: Kinds of plans, in equal shares, see `training.awm.plans`.

    Raises:
        ValueError: If there are too few episodes to have one of each kind, or no kind.
    """

    episodes: int = 1000
    unseen: int = 250
    kinds: tuple[PlanKind, ...] = get_args(PlanKind)

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError("kinds is empty, expected at least one kind of plan")
        for name in ("episodes", "unseen"):
            if getattr(self, name) < len(self.kinds):
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least one of each kind of plan")


@dataclass(frozen=True)
class Candidate:
    """One of the models that are fitted and compared.

    Args:
        fitting: How it is fitted.
        sizes: Fields of `AwmConfig` that are not as in the preset.
    """

    fitting: Fitting = field(default_factory=Fitting)
    sizes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PolicyRecipe:
    """How a policy is trained in the finished model, to see whether it carries over to the real system.

    Args:
        updates: Updates by the gradient through the model, which does not change any more.
        batch: Imagined episodes in an update.
        learning_rate: Learning rate of Adam at its largest; it rises over 100 updates and falls as a cosine.
        clip: Largest norm of the gradient.

    Raises:
        ValueError: If a value lies outside its range.
    """

    updates: int = 600
    batch: int = 16
    learning_rate: float = 3e-3
    clip: float = 100.0

    def __post_init__(self) -> None:
        check_ranges(self, positive=("updates", "batch", "learning_rate", "clip"))


@dataclass(frozen=True)
class ModelRecipe:
    """How a world model of a control problem is made.

    Args:
        id: Id of the learned environment.
        candidates: What to fit and compare, by family and backbone, such as ``"awm-transformer"``.
        seed: Seed of everything.
        options: Fields of the system's class that are not as usual, beside the horizon, which the catalogue tells.
        preset: Sizes of the models.
        reward: Whether the reward is ``"known"``, computed from predicted states by the system's own formula, or
            ``"learned"``.
        choose: The candidate to package; None packages the one that predicts best.
        plans: What to record.
        policy: How to try the finished model.

    Raises:
        ValueError: If the id is none of a control problem, or a candidate is unknown.
    """

    id: str
    candidates: dict[str, Candidate]
    seed: int = 0
    options: dict[str, int | float | bool | str] = field(default_factory=dict)
    preset: Preset = "compact"
    reward: Literal["known", "learned"] = "known"
    choose: str | None = None
    plans: PlansRecipe = field(default_factory=PlansRecipe)
    policy: PolicyRecipe = field(default_factory=PolicyRecipe)

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def __post_init__(self) -> None:
        if self.id not in CATALOG or CATALOG[self.id].family != "awm":
            raise ValueError(f"{self.id!r} is not the id of a control problem")
        if not self.candidates:
            raise ValueError("candidates is empty, expected at least one")
        for name in self.candidates:
            with torch.random.fork_rng(devices=[]):
                self.make_candidate(name)
        if self.choose is not None and self.choose not in self.candidates:
            raise ValueError(f"choose is {self.choose!r}, expected one of {', '.join(self.candidates)}")

    def make_system(self) -> System:
        """The real system."""
        item = CATALOG[self.id]
        return make_system(item.real[1], **{"horizon": item.max_episode_steps, **self.options})

    def make_candidate(self, name: str) -> ContinuousWorldModel:
        """A new model, with weights from the global generator.

        Args:
            name: A key of ``candidates``.

        Raises:
            ValueError: If its name is no family and backbone, or a size does not fit.
        """
        family, _, backbone = name.partition("-")
        sizes = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in self.candidates[name].sizes.items()
        }
        try:
            return make_model(
                self.make_system(),
                cast(Family, family),
                cast(BackboneName, backbone),
                self.preset,
                self.reward,
                **sizes,
            )
        except TypeError as error:
            raise ValueError(f"candidates.{name}.sizes: {error}") from error
        except ValueError as error:
            raise ValueError(f"candidates.{name}: {error}") from error
