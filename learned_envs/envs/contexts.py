"""Real contexts that callers hand to `reset`, checked before a model sees them."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from learned_envs.envs.actions import as_tensor, parse_actions
from learned_envs.starts import Contexts

__all__ = ["CONTEXT_KEYS", "parse_context"]

CONTEXT_KEYS = ("observations", "actions", "rewards")


def parse_context(
    given: dict[str, Any], mask: Tensor, observation_space: gym.spaces.Box, action_space: gym.Space
) -> Contexts:
    """Check a context for each environment and put it on the device.

    Args:
        given: ``"observations"``, shape (num_envs, T, *shape); unless T = 1, ``"actions"``, and optionally ``"rewards"``,
            shape (num_envs, T - 1). What is left out is None.
        mask: Which environments begin there, bool, shape (num_envs,), on the device where the context goes. What is given for
            others is not looked at: they get the context of the first that does.
        observation_space: Space of one observation.
        action_space: Space of one action.

    Returns:
        Observations, actions, and float32 rewards, which are zero where none are given; in memory of their own.

    Raises:
        ValueError: If something is missing, or has another shape, dtype or range.
    """
    num_envs, device = len(mask), mask.device
    observations, actions, rewards = (
        None if given[key] is None else as_tensor(key, given[key], device) for key in CONTEXT_KEYS
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
    rows = torch.where(mask, torch.arange(num_envs, device=device), mask.nonzero()[0])
    observations, rewards = observations[rows], rewards[rows].float()
    if not bool(rewards.isfinite().all()):
        raise ValueError("rewards holds NaN or infinite values, expected finite ones.")
    return observations, _parse_actions(actions, rows, between, action_space), rewards


def _parse_actions(actions: Tensor | None, rows: Tensor, between: tuple[int, int], space: gym.Space) -> Tensor:
    shape = (*between, *(space.shape or ()))
    if actions is None and not between[1]:
        return parse_actions(torch.zeros(shape, dtype=torch.int64, device=rows.device), space)
    if actions is None:
        raise ValueError(
            f"options has {between[1] + 1} observations but no actions between them: give actions, shape {shape}."
        )
    if tuple(actions.shape) != shape:
        raise ValueError(f"actions has shape {tuple(actions.shape)}, expected {shape}: one between two observations.")
    return parse_actions(actions[rows], space)
