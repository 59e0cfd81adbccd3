"""Interrupting stages, and comparing what they end with."""

from typing import Any

import torch
from torch import Tensor

from training.loop import Stage

__all__ = ["assert_same", "interrupt"]


def assert_same(mine: Any, theirs: Any, path: str = "state") -> None:
    """Compare nested states to the last bit."""
    if isinstance(mine, Tensor):
        assert torch.equal(mine, theirs), f"{path} differs"
    elif isinstance(mine, dict):
        assert mine.keys() == theirs.keys(), path
        for key in mine:
            assert_same(mine[key], theirs[key], f"{path}.{key}")
    elif isinstance(mine, list | tuple):
        assert len(mine) == len(theirs), path
        for index, pair in enumerate(zip(mine, theirs, strict=True)):
            assert_same(*pair, f"{path}.{index}")
    else:
        assert mine == theirs, path


def interrupt(stage: Stage, at: int) -> None:
    """Make a stage stop like a killed process before an update."""
    update = stage.update

    def interrupted(step: int) -> dict[str, Tensor]:
        if step == at:
            raise KeyboardInterrupt
        return update(step)

    stage.update = interrupted  # type: ignore[method-assign]
