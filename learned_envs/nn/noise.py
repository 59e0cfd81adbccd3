"""Counter-based random numbers: a function of (key, counter, position), not of what was drawn before.

Every environment of a batch has its own key and counts its own draws. So its noise does not depend on how many others
there are, a forked state repeats the same future, and nothing touches a global generator. The mixing function is the
finaliser of SplitMix64 (Steele, Lea and Flood, 2014), in wrapping 64-bit integers.
"""

import torch
from torch import Tensor

__all__ = ["uniform"]


def _signed(value: int) -> int:
    """A 64-bit pattern as the signed integer that torch stores it as."""
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_STRIDE = _signed(0xD1342543DE82EF95)
_FIRST = _signed(0xBF58476D1CE4E5B9)
_SECOND = _signed(0x94D049BB133111EB)


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Logical shift; torch's own shift of signed integers drags the sign along."""
    return (bits >> count) & ((1 << (64 - count)) - 1)


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shift_right(bits, 30)) * _FIRST
    bits = (bits ^ _shift_right(bits, 27)) * _SECOND
    return bits ^ _shift_right(bits, 31)


def uniform(keys: Tensor, counters: Tensor, count: int) -> Tensor:
    """Draw uniform numbers.

    Args:
        keys: One key a row, int64, shape (B,).
        counters: Which draw of that key, int64, shape (B,).
        count: Numbers in a row.

    Returns:
        Uniform in [0, 1), multiples of 2**-24, float32, shape (B, count).
    """
    if not count:
        return keys.new_empty((len(keys), 0), dtype=torch.float32)
    row = _mix(_mix(keys + _GOLDEN) + counters * _STRIDE)
    position = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    bits = _mix(row.unsqueeze(1) + position)
    return _shift_right(bits, 40).to(torch.float32) * 2.0**-24
