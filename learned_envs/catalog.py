"""The table of ids: what exists, what it was learned from, and how to make what is missing.

Importing it is cheap: it names things and loads none.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import gymnasium as gym

from learned_envs.envs.real.registration import SYSTEM_IDS

__all__ = [
    "BUNDLED",
    "CATALOG",
    "ORGANIZATION",
    "CatalogEntry",
    "entry",
    "list_envs",
    "nearest",
    "register_all",
    "register_id",
    "repository_of",
]

BUNDLED = Path(__file__).parent / "snapshots"
ORGANIZATION = "learned-envs"
"""Who publishes the models of the ids on the Hugging Face Hub."""

_FACES: dict[str, Any] = {
    "entry_point": "learned_envs.envs.single:LearnedEnv",
    "vector_entry_point": "learned_envs.envs.vector:LearnedVectorEnv",
}
_ATARI_100K = [
    "Alien",
    "Amidar",
    "Assault",
    "Asterix",
    "BankHeist",
    "BattleZone",
    "Boxing",
    "Breakout",
    "ChopperCommand",
    "CrazyClimber",
    "DemonAttack",
    "Freeway",
    "Frostbite",
    "Gopher",
    "Hero",
    "Jamesbond",
    "Kangaroo",
    "Krull",
    "KungFuMaster",
    "MsPacman",
    "Pong",
    "PrivateEye",
    "Qbert",
    "RoadRunner",
    "Seaquest",
    "UpNDown",
]
_ATARI_EPISODE_STEPS = 27_000  # 108,000 emulator frames, half an hour of play
_SYSTEM_HORIZON = 100  # of the systems themselves, which are not imported here; a test compares
_OTHER_HORIZONS = {"CopyTask": 20, "DoublePendulum": 10}


@dataclass(frozen=True)
class CatalogEntry:
    """One id.

    Args:
        id: What `gymnasium.make` is called with.
        family: Which models learn it.
        real: The real environment it is learned from, as its maker's kind and name.
        max_episode_steps: Steps after which an episode is truncated; of a control problem, its horizon.
        recipe: The command that trains it.
    """

    id: str
    family: str
    real: tuple[str, str]
    max_episode_steps: int
    recipe: str

    @property
    def bundled(self) -> bool:
        """Whether a trained model came with the package."""
        return (BUNDLED / self.id / "config.json").is_file()


def _atari(game: str) -> CatalogEntry:
    id = f"Learned{game}-v0"
    recipe = f"python -m training twm --recipe {game.lower()}"
    return CatalogEntry(id, "twm", ("atari", game), _ATARI_EPISODE_STEPS, recipe)


def _system(name: str) -> CatalogEntry:
    recipe = f"python -m training awm --recipe {name.lower()}"
    horizon = _OTHER_HORIZONS.get(name, _SYSTEM_HORIZON)
    return CatalogEntry(f"Learned{name}-v0", "awm", ("system", name), horizon, recipe)


CATALOG: dict[str, CatalogEntry] = {
    item.id: item for item in (*map(_atari, _ATARI_100K), *map(_system, SYSTEM_IDS.values()))
}


def entry(id: str) -> CatalogEntry:
    """Look up an id.

    Raises:
        gymnasium.error.UnregisteredEnv: If the id is unknown; the message suggests the nearest ones.
    """
    if id in CATALOG:
        return CATALOG[id]
    near = nearest(id)
    hint = f"Did you mean {near}?" if near else "List the ids with: learned-envs list"
    raise gym.error.NameNotFound(f"There is no learned environment {id!r}. {hint}")


def nearest(name: str, among: Iterable[str] = ()) -> str:
    """The ids that somebody may have meant, joined by "or"; empty if none is like what was said.

    Args:
        name: What was said.
        among: Ids beside those of the catalogue.
    """
    return " or ".join(get_close_matches(name, [*CATALOG, *among], n=3, cutoff=0.4))


def list_envs() -> list[str]:
    """The ids of the catalogue, sorted; `entry` tells more of each. Those of `register_snapshot` are Gymnasium's alone."""
    return sorted(CATALOG)


def repository_of(id: str) -> str:
    """The repository on the Hugging Face Hub that has the model of an id."""
    return f"{ORGANIZATION}/{id}"


def register_id(id: str) -> None:
    """Tell Gymnasium of an id. Doing it twice is harmless.

    The limit of steps is kept by the environment itself: Gymnasium's TimeLimit would not know of `set_state`.
    """
    if id not in gym.registry:
        gym.register(id, **_FACES, kwargs={"model": id})


def register_all() -> None:
    """Tell Gymnasium of every id, and of ``Learned-v0``, which takes any model."""
    for item in CATALOG.values():
        register_id(item.id)
    if "Learned-v0" not in gym.registry:
        gym.register("Learned-v0", **_FACES)
