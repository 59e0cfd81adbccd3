"""The errors that callers may want to catch."""

import gymnasium

__all__ = ["MissingModelError", "SnapshotError"]


class SnapshotError(ValueError):
    """A snapshot is damaged, incomplete, or not one of ours; the message names the file and the field."""


class MissingModelError(gymnasium.error.Error, FileNotFoundError):
    """No model is to be had for an id; the message says what was tried and what to do."""
