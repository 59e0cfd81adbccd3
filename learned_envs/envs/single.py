"""The single face of a learned environment."""

from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode

from learned_envs.envs.batched import ENDLESS
from learned_envs.envs.unbatched import UnbatchedEnv
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.starts import StartKind

__all__ = ["LearnedEnv"]


class LearnedEnv(UnbatchedEnv):
    """A learned environment that plays one episode at a time.

    Args:
        model: Id, folder or repository of the model.
        render_mode: None, or ``"rgb_array"`` if observations are pictures.
        device: Where the model runs.
        starts: ``"initial"`` begins at real episode beginnings, ``"anywhere"`` in the middle of recorded experience.
        revision: Revision of a model on the Hub.
        local_files_only: Whether to do without the network.

    Raises:
        ValueError: If an argument lies outside its range.
        MissingModelError: If the model is not to be had.
        SnapshotError: If the model's files are damaged.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 15}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        model: str | Path,
        *,
        render_mode: str | None = None,
        device: str = "cpu",
        starts: StartKind = "initial",
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        core = LearnedVectorEnv(
            model,
            1,
            device=device,
            autoreset_mode=AutoresetMode.DISABLED,
            starts=starts,
            render_mode=render_mode,
            revision=revision,
            local_files_only=local_files_only,
        )
        super().__init__(core)
        self._pretrained = core.pretrained

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """See `UnbatchedEnv.reset`.

        An episode is truncated after as many steps as in the model's real environment. Where `gymnasium.make` was given
        ``max_episode_steps``, Gymnasium's TimeLimit sees to it, which `set_state` does not turn back.
        """
        kept_by_gymnasium = self.spec is not None and self.spec.max_episode_steps is not None
        self._core.max_episode_steps = self._pretrained.limit(ENDLESS if kept_by_gymnasium else None)
        return super().reset(seed=seed, options=options)
