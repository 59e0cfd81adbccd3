"""Trained world models that behave like any Gymnasium environment.

    import gymnasium as gym
    import learned_envs

    env = gym.make("LearnedPong-v0")

Importing this package registers the ids and nothing more; torch is loaded when the first environment is made.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from learned_envs.catalog import list_envs, register_all
from learned_envs.envs.real.registration import register_systems

if TYPE_CHECKING:
    from learned_envs.envs.real.twin import make_real, make_real_vec
    from learned_envs.policy import load_policy
    from learned_envs.pretrained import load, register_snapshot

__all__ = ["__version__", "list_envs", "load", "load_policy", "make_real", "make_real_vec", "register_snapshot"]
__version__ = "0.1.0"

_LAZY = {
    "load": "learned_envs.pretrained",
    "load_policy": "learned_envs.policy",
    "register_snapshot": "learned_envs.pretrained",
    "make_real": "learned_envs.envs.real.twin",
    "make_real_vec": "learned_envs.envs.real.twin",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_all()
register_systems()
