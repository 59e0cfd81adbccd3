"""Seeds that callers hand to the `reset` of a batch."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["parse_seeds"]


def parse_seeds(seed: Any, num_envs: int) -> list[int | None]:
    """One seed for each environment; None where the running generator goes on.

    Args:
        seed: An integer s for s, s + 1, ..., a sequence with one for each environment, or None for none at all.
        num_envs: Number of environments.

    Raises:
        ValueError: If there are not as many as environments, or one is no whole number of at least 0.
    """
    if seed is None:
        return [None] * num_envs
    if not isinstance(seed, Sequence | np.ndarray) or np.ndim(seed) == 0:
        first = _parse_seed(seed)
        return [first + index for index in range(num_envs)]
    if len(seed) != num_envs:
        raise ValueError(f"seed has {len(seed)} entries, expected {num_envs}: one for each environment.")
    return [None if each is None else _parse_seed(each) for each in seed]


def _parse_seed(seed: Any) -> int:
    try:
        parsed = operator.index(seed)  # also of NumPy's integers; a float is refused, though it be whole
    except TypeError:
        parsed = -1
    if parsed < 0:
        raise ValueError(f"A seed is {seed!r}, expected a whole number of at least 0.")
    return parsed
