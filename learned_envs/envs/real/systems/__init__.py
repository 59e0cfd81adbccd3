"""Real control problems as differentiable functions of torch, and the table of their names."""

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

import gymnasium as gym

from learned_envs.envs.real.systems import myriad
from learned_envs.envs.real.systems.copy_task import CopyTask
from learned_envs.envs.real.systems.double_pendulum import DoublePendulum
from learned_envs.envs.real.systems.one_bounce import OneBounce
from learned_envs.envs.real.systems.system import System

__all__ = ["SYSTEMS", "System", "make_system"]

SYSTEMS: dict[str, type[System]] = {
    system.__name__: system
    for system in (
        myriad.Bacteria,
        myriad.BearPopulations,
        myriad.Bioreactor,
        myriad.CancerTreatment,
        myriad.Glucose,
        myriad.HIVTreatment,
        myriad.Harvest,
        myriad.InvasivePlant,
        myriad.MouldFungicide,
        myriad.PredatorPrey,
        myriad.TimberHarvest,
        OneBounce,
        DoublePendulum,
        CopyTask,
    )
}


def make_system(system: str | System, **parameters: Any) -> System:
    """Make a system by its name, or change the parameters of one.

    Args:
        system: A key of `SYSTEMS`, or a system.
        **parameters: Fields of its class, such as ``horizon`` or a constant of its equations.

    Raises:
        gymnasium.error.NameNotFound: If the name is unknown; the message suggests the nearest ones.
        TypeError: If the system has no such parameter.
        ValueError: If a parameter lies outside its range.
    """
    if isinstance(system, str) and system not in SYSTEMS:
        near = get_close_matches(system, SYSTEMS, n=3, cutoff=0.4)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are {', '.join(sorted(SYSTEMS))}."
        raise gym.error.NameNotFound(f"There is no system {system!r}. {hint}")
    kind = SYSTEMS[system] if isinstance(system, str) else type(system)
    known = [field.name for field in fields(kind)]
    for name in parameters:
        if name not in known:
            raise TypeError(f"{kind.__name__} has no parameter {name!r}; it has {', '.join(known)}.")
    return kind(**parameters) if isinstance(system, str) else replace(system, **parameters)
