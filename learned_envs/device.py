"""Devices that callers name."""

import torch

__all__ = ["parse_device"]


def parse_device(device: str | torch.device) -> torch.device:
    """Check that a device is there.

    Args:
        device: Such as ``"cpu"`` or ``"cuda:0"``.

    Raises:
        ValueError: If it is not.
    """
    try:
        parsed = torch.device(device)
        torch.empty(0, device=parsed)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {str(device)!r} is not available here ({reason}). Use device="cpu".') from error
    return parsed
