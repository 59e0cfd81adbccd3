"""What was learned: the real environments that a snapshot can name."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import gymnasium as gym
from pydantic import TypeAdapter, ValidationError

from learned_envs.envs.real.atari import AtariRules
from learned_envs.envs.real.systems import System, make_system

__all__ = ["AtariConfig", "SystemConfig"]

_MOST_STEPS = 2**31
_LARGEST_OPTION = (
    10**6
)  # as many steps, distractors or substeps; a snapshot must not ask for more memory than it has itself


@dataclass(frozen=True)
class AtariConfig:
    """A real game.

    Args:
        kind: Which maker of real twins builds it.
        name: ALE name of the game.
        options: Fields of `learned_envs.envs.real.atari.AtariRules` that are not as usual.
        num_actions: Size of its discrete action set.
        action_meanings: A word for each action.
        max_episode_steps: Steps after which an episode is truncated.
        reward: Scale of the rewards, in words.
        packages: Versions of the packages it was recorded with.

    Raises:
        ValueError: If a number lies outside its range, or an option is unknown or does not fit.
    """

    kind: Literal["atari"]
    name: str
    options: dict[str, Any]
    num_actions: int
    action_meanings: tuple[str, ...]
    max_episode_steps: int
    reward: str
    packages: dict[str, str]

    def __post_init__(self) -> None:
        if self.max_episode_steps > _MOST_STEPS:
            raise ValueError(f"max_episode_steps is {self.max_episode_steps}, expected at most {_MOST_STEPS}.")
        if self.num_actions < 1 or len(self.action_meanings) != self.num_actions or self.max_episode_steps < 1:
            raise ValueError(
                f"num_actions is {self.num_actions}, max_episode_steps {self.max_episode_steps}, and there are "
                f"{len(self.action_meanings)} action_meanings; expected at least 1 each, and one meaning for each action."
            )
        try:
            TypeAdapter(AtariRules).validate_json(json.dumps(self.options))
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"options.{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


@dataclass(frozen=True)
class SystemConfig:
    """A real control problem, whose equations are known.

    Its spaces, its episode limit and its rewards follow from its name and options.

    Args:
        kind: Which maker of real twins builds it.
        name: Key of `learned_envs.envs.real.systems.SYSTEMS`.
        options: Fields of the system's class, such as ``horizon``.
        reward: Scale of the rewards, in words.
        packages: Versions of the packages it was recorded with.

    Raises:
        ValueError: If there is no such system, or an option is unknown or outside its range.
    """

    kind: Literal["system"]
    name: str
    options: dict[str, int | float | bool | str]
    reward: str
    packages: dict[str, str]

    def __post_init__(self) -> None:
        for name, value in self.options.items():
            if isinstance(value, int) and abs(value) > _LARGEST_OPTION:
                raise ValueError(f"options has {name} = {value}, expected at most {_LARGEST_OPTION:,}.")
        try:
            _ = self.system
        except (gym.error.NameNotFound, TypeError, ValueError) as error:
            raise ValueError(f"name and options make no system: {error}") from error

    @cached_property
    def system(self) -> System:
        """The equations."""
        return make_system(self.name, **self.options)

    @property
    def max_episode_steps(self) -> int:
        """Steps of an episode: the horizon."""
        return self.system.horizon
