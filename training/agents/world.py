"""What the loop of Atari 100k asks of a world model that is trained while its agent plays.

There are two: `training.agents.paper_world`, the paper's way, and `training.agents.compact_world`, ours for two CPU cores. Both
go through pretraining on random play, and then take one update for each of the agent's.
"""

from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor

from training.agents.actor_critic import Rollout
from training.loop import Stage

__all__ = ["World"]


class World(Protocol):
    """A world model in training."""

    def pretraining(self, seed: int) -> Iterator[Stage]:
        """What comes before the agent acts, one stage after the other."""
        ...

    def update(self, step: int) -> dict[str, Tensor]:
        """Take one update on the steps recorded so far, and return what to log."""
        ...

    def imagine(self) -> Rollout:
        """Roll out the policy from recorded steps."""
        ...

    def picture(self) -> Tensor:
        """For the log, float in [0, 1], shape (1, height, width)."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes from update to update."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        ...
