"""Actions that callers hand in, checked before a model sees them."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

__all__ = ["as_tensor", "parse_actions", "parse_batch"]


def as_tensor(name: str, values: Any, device: torch.device | None = None) -> Tensor:
    """What callers hand in, as a tensor: NumPy's views, read-only arrays and foreign byte orders, too.

    Args:
        name: What the caller calls it.
        values: A tensor, an array, or numbers.
        device: Where it goes; None leaves a tensor where it is.

    Raises:
        ValueError: If it holds no numbers.
    """
    if hasattr(values, "__array__") and not isinstance(values, Tensor):
        values = np.asarray(values)
        native = values.dtype.newbyteorder("=")
        # Torch neither reads backwards nor keeps itself from writing.
        if values.dtype != native or not values.flags.writeable or min(values.strides, default=0) < 0:
            values = np.array(values, native)
    try:
        return torch.as_tensor(values, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name} is {values!r}, expected numbers.") from error


def parse_batch(actions: Any, count: int, space: gym.Space, check_values: bool = True) -> Tensor:
    """Turn one action for each environment into what models take.

    Args:
        actions: Shape (count, *shape of the space).
        count: Number of environments.
        space: Space of one action.
        check_values: See `parse_actions`.

    Returns:
        See `parse_actions`.

    Raises:
        ValueError: If shape or dtype does not fit, or a value lies outside the space.
    """
    given, expected = as_tensor("actions", actions), (count, *(space.shape or ()))
    if tuple(given.shape) != expected:
        raise ValueError(
            f"actions has shape {tuple(given.shape)}, expected {expected}: one action for each environment."
        )
    return parse_actions(given, space, check_values)


def parse_actions(actions: Tensor, space: gym.Space, check_values: bool = True) -> Tensor:
    """Turn actions into what models take.

    Args:
        actions: Of any number of environments and steps, in a shape that has been checked.
        space: Space of one action, `gymnasium.spaces.Discrete` or `gymnasium.spaces.Box`.
        check_values: Whether to look at the values too, which on a GPU waits for the device.

    Returns:
        Indices, int64, or numbers, float32; in memory of their own.

    Raises:
        ValueError: If a dtype does not fit, or a value lies outside the space.
    """
    discrete = isinstance(space, gym.spaces.Discrete)
    no_number = actions.dtype == torch.bool or actions.is_complex()
    if actions.numel() and (no_number or (discrete and actions.is_floating_point())):
        raise ValueError(f"actions has dtype {actions.dtype}, expected {'integers' if discrete else 'float32'}.")
    # Torch compares few of the unsigned types; what is too large for int64 becomes negative, and is refused.
    # Copied in any case: kernels round by how memory is aligned, and the caller's may lie anywhere.
    actions = actions.to(torch.int64 if discrete else torch.float32, copy=True)
    if check_values:
        _check_values(actions, space)
    return actions


def _check_values(actions: Tensor, space: gym.Space) -> None:
    if isinstance(space, gym.spaces.Discrete):
        bounds = (0, int(space.n) - 1)
        complaint = "actions contains {}, expected integers from {} to {}."
    else:
        assert isinstance(space, gym.spaces.Box)
        bounds = (space.low, space.high)
        complaint = "actions contains {:g}, expected numbers in [{:g}, {:g}]. Clip them, or squash them with tanh."
    # In NumPy, whose calls cost a fraction of torch's where there is so little to do.
    values = actions.detach().cpu().numpy()
    inside = (values >= bounds[0]) & (values <= bounds[1])  # not so where a number is NaN
    if not inside.all():
        first = (np.broadcast_to(array, values.shape)[~inside][0].item() for array in (values, *bounds))
        raise ValueError(complaint.format(*first))
