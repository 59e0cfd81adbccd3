"""The ids of the real systems that Gymnasium lacks. Importing it is cheap: it names things and loads none."""

import gymnasium as gym

__all__ = ["SYSTEM_IDS", "register_systems"]

_MYRIAD = (
    "Bacteria",
    "BearPopulations",
    "Bioreactor",
    "CancerTreatment",
    "Glucose",
    "HIVTreatment",
    "Harvest",
    "InvasivePlant",
    "MouldFungicide",
    "PredatorPrey",
    "TimberHarvest",
)
_TOYS = ("OneBounce", "DoublePendulum", "CopyTask")

SYSTEM_IDS: dict[str, str] = {f"Myriad/{name}-v0": name for name in _MYRIAD} | {f"{name}-v0": name for name in _TOYS}
"""Name of the system, by id."""


def register_systems() -> None:
    """Tell Gymnasium of every system. Doing it twice is harmless.

    No id has a limit of steps for Gymnasium to keep: the environments keep their own horizon, which is an argument.
    """
    for id, name in SYSTEM_IDS.items():
        if id not in gym.registry:
            gym.register(
                id,
                entry_point="learned_envs.envs.real.control:SystemEnv",
                vector_entry_point="learned_envs.envs.real.control:SystemVectorEnv",
                kwargs={"system": name},
            )
