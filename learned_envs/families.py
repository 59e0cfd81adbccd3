"""The model families that snapshots can hold: what each needs to be described, checked, stored and built.

A further family is a further class here, and a name in `FAMILIES`.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from learned_envs.awm.config import AwmConfig
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.environment import AtariConfig, SystemConfig
from learned_envs.starts import StartBank
from learned_envs.twm.config import TwmConfig
from learned_envs.twm.world_model import TransformerWorldModel
from learned_envs.world_model import WorldModel

__all__ = ["FAMILIES", "Family"]

_LONGEST_CONTEXT = 1024  # memory grows with it, though the weights do not
_LARGEST_REWARD = 1e30  # float32 ends at 3e38


class Family(ABC):
    """What a snapshot must know of a family of models.

    Attributes:
        model: Class of a model's sizes.
        environment: Class that names what it learns.
        weights: Dtype in which weights are stored.
    """

    model: type
    environment: type
    weights: torch.dtype

    @abstractmethod
    def check(self, model: Any, environment: Any) -> None:
        """Refuse sizes that do not fit the environment.

        Raises:
            ValueError: If they do not.
        """

    @abstractmethod
    def build(self, model: Any, environment: Any) -> WorldModel:
        """A model without its weights: parameters may be on the meta device.

        Args:
            model: Its sizes.
            environment: What was learned; None for a model by itself.
        """

    @abstractmethod
    def bank(self, tensors: dict[str, Tensor], model: Any) -> StartBank:
        """Recorded contexts, as they are stored."""

    @abstractmethod
    def check_context(self, observations: Tensor, actions: Tensor, environment: Any) -> None:
        """Refuse recorded contexts that the environment cannot have shown.

        Args:
            observations: Shape (N, T, ...).
            actions: Shape (N, T - 1, ...).
            environment: What was learned.

        Raises:
            ValueError: If they are no such contexts.
        """


class _Twm(Family):
    """Transformer world models of games."""

    model, environment = TwmConfig, AtariConfig
    weights = torch.float16

    def check(self, model: TwmConfig, environment: AtariConfig) -> None:
        self._check_sizes(model)
        if model.num_actions != environment.num_actions:
            raise ValueError(f"the model has {model.num_actions} actions, the environment {environment.num_actions}")

    def _check_sizes(self, model: TwmConfig) -> None:
        if model.context > _LONGEST_CONTEXT:
            raise ValueError(f"context is {model.context}, expected at most {_LONGEST_CONTEXT} steps")
        if any(abs(value) > _LARGEST_REWARD for value in model.reward_values):
            raise ValueError(f"reward_values is {model.reward_values}, expected numbers up to {_LARGEST_REWARD:.0e}")

    def build(self, model: TwmConfig, environment: AtariConfig | None) -> WorldModel:
        self._check_sizes(model)
        return TransformerWorldModel(model)

    def bank(self, tensors: dict[str, Tensor], model: TwmConfig) -> StartBank:
        return StartBank(tensors, stack=model.observation.stack)

    def check_context(self, observations: Tensor, actions: Tensor, environment: AtariConfig) -> None:
        if actions.dtype != torch.int64:
            raise ValueError(f"actions has dtype {actions.dtype}, expected int64")
        if actions.numel() and not 0 <= int(actions.min()) <= int(actions.max()) < environment.num_actions:
            raise ValueError(
                f"actions lie between {int(actions.min())} and {int(actions.max())}, expected 0 to {environment.num_actions - 1}"
            )


class _Awm(Family):
    """Markov, history- and action-conditioned models of control problems."""

    model, environment = AwmConfig, SystemConfig
    weights = torch.float32  # the scale of a state would not survive in 16 bits

    def check(self, model: AwmConfig, environment: SystemConfig) -> None:
        system = environment.system
        for name, found, expected in (
            ("numbers in an observation", model.observation_dim, len(system.observation_bounds)),
            ("numbers in an action", model.action_dim, system.action_dim),
        ):
            if found != expected:
                raise ValueError(f"the model has {found} {name}, the environment {expected}")
        if model.clock and model.state_dim != system.state_dim:
            raise ValueError("the model takes the last number of an observation for its clock, but it is none")

    def build(self, model: AwmConfig, environment: SystemConfig | None) -> WorldModel:
        if environment is None:
            return ContinuousWorldModel(model)
        system = environment.system
        built = ContinuousWorldModel(model, system.reward if model.reward == "known" else None)
        built.use_bounds(system.observation_bounds)
        return built

    def bank(self, tensors: dict[str, Tensor], model: AwmConfig) -> StartBank:
        return StartBank(tensors)

    def check_context(self, observations: Tensor, actions: Tensor, environment: SystemConfig) -> None:
        system = environment.system
        sizes = {"observations": len(system.observation_bounds), "actions": system.action_dim}
        for (name, size), tensor in zip(sizes.items(), (observations, actions), strict=True):
            if tensor.ndim != 3 or tensor.shape[2] != size or tensor.dtype != torch.float32:
                raise ValueError(
                    f"{name} has shape {tuple(tensor.shape)} and dtype {tensor.dtype}, expected (N, T, {size}) and float32"
                )
        if not bool((actions.abs() <= 1).all()):
            raise ValueError(f"actions go up to {float(actions.abs().max())}, expected numbers in [-1, 1]")
        for step in observations.unbind(1):
            system.check_observations(step)


FAMILIES: dict[str, Family] = {"twm": _Twm(), "awm": _Awm()}
