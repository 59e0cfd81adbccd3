"""What a sequence model must offer: a whole window at once, or one step after the other from a memory of fixed size."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from learned_envs.world_model import State

__all__ = ["Backbone"]


class Backbone(nn.Module, ABC):
    """A causal sequence model over the tokens of a window.

    Token 0, the anchor, tells where the window begins; token t, for t = 1..H, tells of step t. Both ways to go through a
    window give the same features.

    Letters: B batch, T tokens, D width.
    """

    @abstractmethod
    def forward(self, tokens: Tensor) -> Tensor:
        """Features of the first T tokens of windows.

        Args:
            tokens: Shape (B, T, D), with T <= H + 1; the anchor is the first.

        Returns:
            Features, shape (B, T, D); feature t depends on the tokens 0..t.
        """

    @abstractmethod
    def empty(self, batch: int, like: Tensor) -> State:
        """The memory of B windows that have not begun, with the dtype and device of another tensor."""

    @abstractmethod
    def step(self, token: Tensor, anchor: Tensor | None, position: Tensor, memory: Any) -> tuple[Tensor, State]:
        """Process one more token in each window.

        Args:
            token: Shape (B, D).
            anchor: Anchors for the windows that begin with this step, shape (B, D); the rows of other windows are not used.
                None if no window begins.
            position: Number of the token in its window, int64 from 1 to H, shape (B,). At 1 the window begins, and what the
                memory holds is forgotten.
            memory: The tokens before; not changed.

        Returns:
            The feature of the token, shape (B, D), and the new memory.
        """
