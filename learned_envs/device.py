"""Devices that callers name."""

import torch

__all__ = ["parse_device"]


def parse_device(device: str | torch.device | None) -> torch.device:
    """Check that a device is there.

    Args:
        device: Such as ``"cpu"`` or ``"cuda:0"``; None for the CPU.

    Raises:
        ValueError: If it is not.
    """
    try:
        parsed = torch.device("cpu" if device is None else device)
        torch.empty(0, device=parsed)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {str(device)!r} is not available here ({reason}). Use device="cpu".') from error
    return parsed
