"""Real contexts that callers hand to `reset`, checked before a model sees them."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from learned_envs.envs.actions import parse_actions
from learned_envs.starts import Contexts

__all__ = ["CONTEXT_KEYS", "parse_context"]

CONTEXT_KEYS = ("observations", "actions", "rewards")


def parse_context(
    given: dict[str, Any],
    num_envs: int,
    observation_space: gym.spaces.Box,
    action_space: gym.Space,
    device: torch.device,
) -> Contexts:
    """Check a context for each environment and put it on the device.

    Args:
        given: ``"observations"``, shape (num_envs, T, *shape); unless T = 1, ``"actions"``, and optionally ``"rewards"``,
            shape (num_envs, T - 1). What is left out is None.
        num_envs: Number of environments.
        observation_space: Space of one observation.
        action_space: Space of one action.
        device: Where the context goes.

    Returns:
        Observations, actions, and float32 rewards, which are zero where none are given; in memory of their own.

    Raises:
        ValueError: If something is missing, or has another shape, dtype or range.
    """
    observations, actions, rewards = (
        None if given[key] is None else torch.as_tensor(given[key], device=device) for key in CONTEXT_KEYS
    )
    if observations is None:
        name = next(key for key in CONTEXT_KEYS if given[key] is not None)
        raise ValueError(f"options has {name} but no observations to go with them.")
    shape = observation_space.shape
    if observations.ndim != 2 + len(shape) or tuple(observations.shape[2:]) != shape or not observations.shape[1]:
        raise ValueError(
            f"observations has shape {tuple(observations.shape)}, expected ({num_envs}, T, {', '.join(map(str, shape))}) "
            "with T >= 1 context steps."
        )
    if len(observations) != num_envs:
        raise ValueError(
            f"observations has {len(observations)} rows, expected {num_envs}: one context for each environment."
        )
    dtype = torch.from_numpy(np.empty(0, observation_space.dtype)).dtype
    if observations.dtype != dtype:
        raise ValueError(f"observations has dtype {observations.dtype}, expected {dtype}.")
    between = (num_envs, observations.shape[1] - 1)
    if rewards is None:
        rewards = torch.zeros(between, device=device)
    if tuple(rewards.shape) != between or rewards.is_complex():
        raise ValueError(
            f"rewards has shape {tuple(rewards.shape)} and dtype {rewards.dtype}, expected {between} and float32: one "
            "between two observations."
        )
    if not bool(rewards.isfinite().all()):
        raise ValueError("rewards holds NaN or infinite values, expected finite ones.")
    actions = _parse_actions(actions, between, action_space, device)
    return observations.clone(), actions, rewards.to(torch.float32, copy=True)


def _parse_actions(actions: Tensor | None, between: tuple[int, int], space: gym.Space, device: torch.device) -> Tensor:
    shape = (*between, *(space.shape or ()))
    if actions is None and not between[1]:
        return parse_actions(torch.zeros(shape, dtype=torch.int64, device=device), space)
    if actions is None:
        raise ValueError(
            f"options has {between[1] + 1} observations but no actions between them: give actions, shape {shape}."
        )
    if tuple(actions.shape) != shape:
        raise ValueError(f"actions has shape {tuple(actions.shape)}, expected {shape}: one between two observations.")
    return parse_actions(actions, space)
