"""Autoreset modes that callers name."""

from gymnasium.vector import AutoresetMode

__all__ = ["parse_autoreset_mode"]


def parse_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """The mode that is meant.

    Raises:
        ValueError: If there is no such mode.
    """
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        known = ", ".join(f'"{known.value}"' for known in AutoresetMode)
        raise ValueError(f"autoreset_mode is {mode!r}, expected an AutoresetMode or one of {known}.") from error
