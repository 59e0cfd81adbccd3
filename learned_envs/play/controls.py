"""How a person acts: which keys stand for which discrete action, and what the sliders of continuous ones mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from learned_envs.envs.real.systems import System

__all__ = ["Binding", "Slider", "key_bindings", "sliders"]

_WORDS = {"UP": "ArrowUp", "DOWN": "ArrowDown", "LEFT": "ArrowLeft", "RIGHT": "ArrowRight", "FIRE": "Space"}


@dataclass(frozen=True)
class Binding:
    """A discrete action.

    Args:
        action: Its index.
        label: What the game calls it.
        keys: Sets of keys, as browsers name them, of which one must be held whole; an empty set means no key at all.
    """

    action: int
    label: str
    keys: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Slider:
    """One number of a continuous action, which lies in [-1, 1].

    Args:
        label: Its name.
        low: The physical value that -1 stands for.
        high: The physical value that 1 stands for.
    """

    label: str
    low: float
    high: float


def key_bindings(meanings: Sequence[str]) -> list[Binding]:
    """Find keys for the actions of a game.

    ALE's words are put together of directions and FIRE: ``"UPRIGHTFIRE"`` is up, right and space. Where a game knows no up and
    down, such as Pong, whose paddle rises with RIGHT, those keys stand for right and left as well. Actions with other names get
    none; the page has buttons for all.

    Args:
        meanings: A word for each action.

    Returns:
        As many bindings. Of those whose keys are held, the one with the most keys is meant.
    """
    upright = not any({"UP", "DOWN"} & set(_split(meaning) or ()) for meaning in meanings)
    return [Binding(action, meaning, _keys(meaning, upright)) for action, meaning in enumerate(meanings)]


def sliders(system: System) -> list[Slider]:
    """What the numbers of an action of a control problem mean."""
    return [Slider(f"u{place}", low, high) for place, (low, high) in enumerate(system.control_bounds, 1)]


def _keys(meaning: str, upright: bool) -> tuple[tuple[str, ...], ...]:
    if meaning == "NOOP":
        return ((),)
    words = _split(meaning)
    if words is None:
        return ()
    keys = tuple(_WORDS[word] for word in words)
    if not upright or not {"LEFT", "RIGHT"} & set(words):
        return (keys,)
    turned = {"ArrowRight": "ArrowUp", "ArrowLeft": "ArrowDown"}
    return (tuple(turned.get(key, key) for key in keys), keys)


def _split(meaning: str) -> list[str] | None:
    """The words that a meaning is put together of; None if it holds anything else."""
    words = []
    while meaning:
        word = next((word for word in _WORDS if meaning.startswith(word)), None)
        if word is None:
            return None
        words.append(word)
        meaning = meaning.removeprefix(word)
    return words or None
