"""What an experiment is: independent parts, a summary of their results, and a figure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from matplotlib.figure import Figure

__all__ = ["Experiment", "Part", "Results"]

Part = Callable[[Path], dict[str, Any]]
"""Does a part of an experiment; the folder is for checkpoints. The result is JSON-able, without NaN."""
Results = dict[str, dict[str, Any]]
"""Results of all parts by name."""


class Experiment(Protocol):
    """A frozen dataclass whose fields are all that decides what comes out."""

    def parts(self) -> dict[str, Part]:
        """Everything there is to do, by a name that is unique and a valid name of a file."""
        ...

    def summarize(self, results: Results) -> dict[str, Any]:
        """The numbers that the experiment is made for, JSON-able."""
        ...

    def draw(self, results: Results, summary: dict[str, Any]) -> Figure:
        """The figure."""
        ...
