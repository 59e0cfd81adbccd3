"""bfloat16, where a device has instructions for it.

Elsewhere it is emulated, which is many times as slow as float32 on a CPU that has AVX2 alone.
"""

import torch

__all__ = ["has_bfloat16", "mixed_precision"]


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device computes in bfloat16 itself."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def mixed_precision(device: torch.device, wanted: bool = True) -> torch.autocast:
    """A context in which layers compute in bfloat16, with weights in float32.

    Args:
        device: Where the layers are.
        wanted: Whether to; even then only where the device `has_bfloat16`.
    """
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted and has_bfloat16(device))
