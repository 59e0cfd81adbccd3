"""Devices that callers name."""

import torch

__all__ = ["parse_device"]


def parse_device(device: str | torch.device | None) -> torch.device:
    """Check that a device is there.

    Args:
        device: Such as ``"cpu"`` or ``"cuda:0"``; None for the CPU. Without an index, the current one of its kind.

    Returns:
        The device that tensors there name as theirs, so that it can be compared with them.

    Raises:
        ValueError: If it is not.
    """
    try:
        return torch.empty(0, device=torch.device("cpu" if device is None else device)).device
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {str(device)!r} is not available here ({reason}). Use device="cpu".') from error
