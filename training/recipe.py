"""Recipes: everything that decides how a bundled model comes out, in one TOML file each.

``training/recipes/pong.toml`` and its like are complete: the same recipe on the same machine gives the same model.
"""

import json
import tomllib
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from learned_envs.catalog import CATALOG
from learned_envs.starts import StartKind
from learned_envs.twm.config import TwmConfig, compact, faithful
from training.agents.ppo import PpoConfig
from training.collect import CollectConfig
from training.loop import RunError
from training.ranges import check_ranges
from training.twm.dynamics import DynamicsTraining
from training.twm.joint import JointTraining
from training.twm.observation import ObservationTraining

__all__ = ["ExperienceRecipe", "RefitRecipe", "RoundsRecipe", "TwmRecipe", "load_recipe"]

_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
_RECIPES = Path(__file__).parent / "recipes"
_GAMES = {item.real[1].lower(): id for id, item in CATALOG.items() if item.family == "twm"}

Recipe = TypeVar("Recipe")


@dataclass(frozen=True)
class ExperienceRecipe:
    """What to record before training.

    Args:
        steps: Agent steps of scripted policies to train on.
        seed: Seed of games and policies.
        validation_steps: Agent steps to measure fidelity on; they are never trained on.
        validation_seed: Seed of those.

    Raises:
        ValueError: If there are no steps of one kind, or both kinds have the same seed.
    """

    steps: int = 100_000
    seed: int = 0
    validation_steps: int = 32_000
    validation_seed: int = 77

    def __post_init__(self) -> None:
        for steps in (self.steps, self.validation_steps):
            CollectConfig("", steps)  # complains now, not after the first recording
        if self.seed == self.validation_seed:
            raise ValueError(
                f"validation_seed is {self.seed}, as seed: fidelity would be measured on what was trained on. Choose another."
            )


@dataclass(frozen=True)
class RoundsRecipe:
    """Rounds of play: an agent learns in the model, plays the real game, and the model learns from that.

    An agent that was trained goes where no scripted policy goes, and into every mistake of the model that pays.

    Args:
        count: How many rounds.
        real_steps: Real agent steps that the agent records in a round; a multiple of ``games``.
        games: Real games that it plays side by side; the fewer, the longer each.
        starts: Where imagined episodes begin; see `PpoRun`.
        horizon: Steps after which imagined episodes are truncated; left out, as in the real game.
        temperature: Temperature at which latents are drawn while agents learn; left out, as in the finished environment.
        num_envs: Imagined games side by side.
        ppo: How the agent learns in a round; from the second round on it goes on from the last.
        refit: How the dynamics learn in a round, from everything recorded so far.
        last_refits: How they learn in the last round, one fit after another, in each of which the learning rate rises anew;
            left out, as in the others.
        decoder: How the decoder alone is fitted after the last play, to everything recorded; left out, not at all. Codes
            stay as they are, whatever its ``entropy_weight``.

    Raises:
        ValueError: If a number lies outside its range.
    """

    count: int = 0
    real_steps: int = 16_000
    games: int = 16
    starts: StartKind = "initial"
    horizon: int | None = None
    temperature: float | None = None
    num_envs: int = 64
    ppo: PpoConfig = field(default_factory=PpoConfig)
    refit: DynamicsTraining = field(default_factory=lambda: DynamicsTraining(updates=3000, learning_rate=7e-4))
    last_refits: tuple[DynamicsTraining, ...] = ()
    decoder: ObservationTraining | None = None

    def __post_init__(self) -> None:
        check_ranges(self, not_negative=("count",), counts=("num_envs",))
        if self.horizon is not None:
            check_ranges(self, counts=("horizon",))
        if self.temperature is not None:
            check_ranges(self, not_negative=("temperature",))
        CollectConfig("", self.real_steps, games=self.games)  # complains now, not when an agent was trained
        if not self.count and (self.last_refits or self.decoder):
            raise ValueError(
                "count is 0, but last_refits and decoder follow the last round: set count, or leave them out."
            )

    @property
    def last_fits(self) -> tuple[DynamicsTraining, ...]:
        """``last_refits``, or the one that takes their place."""
        return self.last_refits or (self.refit,)


@dataclass(frozen=True)
class TwmRecipe:
    """How a transformer world model of a game is made.

    Args:
        id: Id of the learned environment.
        preset: ``"faithful"``, the paper's model and update, or ``"compact"``, ours in two stages.
        seed: Seed of the training.
        temperature: Temperature at which latents are drawn in the finished environment; None for the preset's.
        experience: What to record.
        observation: First stage of the compact preset.
        dynamics: Second stage of the compact preset.
        rounds: What follows with the compact preset, agents' play.
        joint: The faithful preset's update.
        agent: How the agent that comes with the model learns after each of the last fits, at last in the finished model: on
            from where it stopped, and from the same starts as in the rounds. Left out, none comes with it.

    Raises:
        ValueError: If the id is none of a game, the temperature is negative, or there are rounds with the faithful preset.
    """

    id: str
    preset: Literal["faithful", "compact"] = "compact"
    seed: int = 0
    temperature: float | None = None
    experience: ExperienceRecipe = field(default_factory=ExperienceRecipe)
    observation: ObservationTraining = field(default_factory=ObservationTraining)
    dynamics: DynamicsTraining = field(default_factory=DynamicsTraining)
    rounds: RoundsRecipe = field(default_factory=RoundsRecipe)
    joint: JointTraining = field(default_factory=JointTraining)
    agent: PpoConfig | None = None

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _check_game(self.id)
        if self.temperature is not None:
            check_ranges(self, not_negative=("temperature",))
        if self.preset == "faithful" and self.rounds.count:
            raise ValueError(
                f"rounds.count is {self.rounds.count}, but rounds are of the compact preset: set it to 0, or preset to compact."
            )

    @property
    def game(self) -> str:
        """ALE name of the game."""
        return CATALOG[self.id].real[1]

    def model_config(self, num_actions: int, reward_values: tuple[float, ...]) -> TwmConfig:
        """Sizes of the model, for a game with so many actions and such rewards."""
        config = faithful(num_actions) if self.preset == "faithful" else compact(num_actions, reward_values)
        return config if self.temperature is None else replace(config, temperature=self.temperature)


@dataclass(frozen=True)
class AgentRecipe:
    """How a new agent learns in a finished model, which it then comes with.

    Args:
        starts: Where imagined episodes begin; see `PpoRun`.
        horizon: Steps after which imagined episodes are truncated; left out, as in the real game.
        num_envs: Imagined games side by side.
        actions: Actions that it takes, by their words; left out, all.
        ppo: How it learns.

    Raises:
        ValueError: If a number lies outside its range.
    """

    starts: StartKind = "initial"
    horizon: int | None = None
    num_envs: int = 64
    actions: tuple[str, ...] = ()
    ppo: PpoConfig = field(default_factory=PpoConfig)

    def __post_init__(self) -> None:
        check_ranges(self, counts=("num_envs",) if self.horizon is None else ("num_envs", "horizon"))


@dataclass(frozen=True)
class RefitRecipe:
    """How the dynamics of a finished model of a game are fitted further.

    Args:
        id: Id of the learned environment.
        base: The model, of the compact preset: id, folder of a snapshot, or repository on the Hub.
        seed: Seed of the training.
        temperature: Temperature at which latents are drawn afterwards; None for that of the base.
        experience: What to record. The same steps and seed as the base had are the same recording.
        dynamics: How the dynamics learn.
        blend: Share of the learned weights of the dynamics in the result; the rest are the base's. Between the two lies what is
            often better than either (Wortsman et al., Robust Fine-Tuning of Zero-Shot Models, CVPR 2022).
        agent: How a new agent learns in what comes of that, to come with it; left out, that of the base does.

    Raises:
        ValueError: If the id is none of a game, the temperature is negative, or the share is none.
    """

    id: str
    base: str
    seed: int = 0
    temperature: float | None = None
    experience: ExperienceRecipe = field(default_factory=ExperienceRecipe)
    dynamics: DynamicsTraining = field(default_factory=DynamicsTraining)
    blend: float = 1.0
    agent: AgentRecipe | None = None

    __pydantic_config__ = _STRICT

    def __post_init__(self) -> None:
        _check_game(self.id)
        check_ranges(self, shares=("blend",))
        if self.temperature is not None:
            check_ranges(self, not_negative=("temperature",))

    @property
    def game(self) -> str:
        """ALE name of the game."""
        return CATALOG[self.id].real[1]


_COMMANDS = {TwmRecipe: "twm", RefitRecipe: "refit"}  # others are of awm


def load_recipe(name: str, kind: type[Recipe] = TwmRecipe) -> Recipe:
    """Read a recipe.

    Args:
        name: Name of a file in ``training/recipes/`` without its ending, or path of a TOML file. Games without a file have the
            default recipe, under the name that the catalogue tells.
        kind: What it must be a recipe of: `TwmRecipe`, `RefitRecipe` or `training.awm.model_recipe.ModelRecipe`.

    Raises:
        RunError: If there is no such recipe, or a field does not fit.
    """
    path = Path(name) if name.endswith(".toml") else _RECIPES / f"{name}.toml"
    if not path.is_file() and kind is TwmRecipe and name in _GAMES:
        return kind(_GAMES[name])
    if not path.is_file():
        known = sorted(file.stem for file in _RECIPES.glob("*.toml"))
        near = get_close_matches(name, known, n=1)
        raise RunError(
            f"There is no recipe {name!r}.{f' Did you mean {near[0]}?' if near else ''} Known: {', '.join(known)}."
        )
    try:
        content = tomllib.loads(path.read_text())
        _check_kind(path, content, kind)
        return TypeAdapter(kind).validate_json(json.dumps(content))
    except tomllib.TOMLDecodeError as error:
        raise RunError(f"{path} is not TOML: {error}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise RunError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error


def _check_game(id: str) -> None:
    if id not in CATALOG or CATALOG[id].family != "twm":
        raise ValueError(f"{id!r} is not the id of a game")


def _check_kind(path: Path, content: dict[str, Any], kind: type) -> None:
    """Refuse the recipe of another command."""
    item = CATALOG.get(str(content.get("id")))
    if item is None:
        return
    command = "awm" if item.family != "twm" else "refit" if "base" in content else "twm"
    if command != _COMMANDS.get(kind, "awm"):
        raise RunError(f"{path} is a recipe of another command: python -m training {command}.")
