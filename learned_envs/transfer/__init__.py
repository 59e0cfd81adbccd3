"""Does what an agent learned in imagination hold in reality? ``learned-envs transfer ID``; needs Stable-Baselines3."""

from learned_envs.transfer.comparison import TransferConfig, compare

__all__ = ["TransferConfig", "compare"]
