"""Building a module whose weights will be loaded: its parameters take no memory, and nothing else takes much.

Drawing random weights that are overwritten a moment later costs most of the time it takes to load a model. And where the
sizes come from a file that others wrote, they must not decide how much memory is taken before they are known to fit.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["BlueprintError", "blueprint"]

_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.arange}


class BlueprintError(ValueError):
    """What is being built grows beyond what was announced."""


@contextmanager
def blueprint(most_elements: int, most_calls: int) -> Iterator[None]:
    """While this is entered, modules are built with parameters on the meta device, and within limits.

    What they compute from their sizes, such as tables of positions, is real. The caller's random generator is left alone.

    Args:
        most_elements: Elements that one tensor may have.
        most_calls: Operations that may be called: a module of a billion small layers is refused, too.

    Raises:
        BlueprintError: If a limit is passed.
    """
    # What initialises weights turns gradients off; a limit may be passed at the very call that turns them on again.
    gradients = torch.set_grad_enabled(torch.is_grad_enabled())
    with torch.random.fork_rng(devices=[]), gradients, _Blueprint(most_elements, most_calls):
        yield


class _Blueprint(TorchFunctionMode):
    def __init__(self, most_elements: int, most_calls: int) -> None:
        super().__init__()
        self._most_elements, self._calls_left = most_elements, most_calls

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        self._calls_left -= 1
        if self._calls_left < 0:
            raise BlueprintError("it would have more layers than its file has tensors for")
        if func in _FACTORIES:
            self._check(_announced_shape(args, kwargs))
        if func is torch.empty:  # how parameters begin
            kwargs["device"] = "meta"
        elif _initializes_a_parameter(func, args, kwargs):
            return args[0] if args else kwargs["tensor"]
        result = func(*args, **kwargs)
        if isinstance(result, Tensor):
            self._check(tuple(result.shape))
        return result

    def _check(self, shape: tuple[int, ...]) -> None:
        if prod(shape) > self._most_elements:
            raise BlueprintError(f"a tensor of shape {shape} would be larger than all that its file could hold")


def _announced_shape(args: tuple, kwargs: dict[str, Any]) -> tuple[int, ...]:
    """The shape that a factory is asked for, or numbers that bound it."""
    size = kwargs.get("size", args[0] if args and isinstance(args[0], tuple | list) else args)
    return tuple(number for number in size if isinstance(number, int))


def _initializes_a_parameter(func: Any, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Whether a call changes a parameter in place; torch's names for that end with one underscore."""
    name, target = getattr(func, "__name__", ""), args[0] if args else kwargs.get("tensor")
    return name.endswith("_") and not name.endswith("__") and isinstance(target, Tensor) and target.is_meta
