"""One learned environment, as a Gymnasium `Env`: a batch of one on the torch core, in NumPy."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from learned_envs.envs.vector import EnvState, LearnedVectorEnv
from learned_envs.starts import StartKind

__all__ = ["LearnedEnv"]

_FOR_EVER = 2**62


class LearnedEnv(gym.Env):
    """A learned environment that plays one episode at a time.

    Args:
        model: Id, folder or repository of the model.
        render_mode: None or ``"rgb_array"``.
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
        model: str,
        *,
        render_mode: str | None = None,
        device: str = "cpu",
        starts: StartKind = "initial",
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        self._core = LearnedVectorEnv(
            model,
            1,
            device=device,
            autoreset_mode=AutoresetMode.DISABLED,
            starts=starts,
            render_mode=render_mode,
            revision=revision,
            local_files_only=local_files_only,
        )
        self.render_mode = render_mode
        self.observation_space = self._core.single_observation_space
        self.action_space = self._core.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a new episode.

        Args:
            seed: Seeds this and the following episodes.
            options: May hold a real context to continue from: ``"observations"``, shape (T, *shape), with ``"actions"`` and
                ``"rewards"``, shape (T - 1, ...).

        Returns:
            The first observation, and an empty info.

        Raises:
            ValueError: If an option is unknown or a shape does not fit.
        """
        super().reset(seed=seed)
        self._core.max_episode_steps = self._limit()
        if self._core._state is None and seed is None:
            seed = int(self.np_random.integers(2**62))
        batched = {key: None if value is None else np.asarray(value)[None] for key, value in (options or {}).items()}
        observation, info = self._core.reset(seed=seed, options=batched)
        return observation[0], info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance the episode by one step.

        Args:
            action: An element of the action space.

        Returns:
            The observation, the reward, whether the game ended, whether the time was up, and an empty info. Where the id has
            a limit, Gymnasium's TimeLimit sees to the time; here it is the limit of the model's real environment.

        Raises:
            ValueError: If the action lies outside the action space.
            gymnasium.error.ResetNeeded: If the episode has ended, or none was begun.
        """
        observation, reward, terminated, truncated, _ = self._core.step(np.asarray(action)[None])
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def _limit(self) -> int:
        """Steps after which to truncate. ``Learned-v0``, which takes any model, has no limit for Gymnasium to keep."""
        kept_by_gymnasium = self.spec is not None and self.spec.max_episode_steps is not None
        return _FOR_EVER if kept_by_gymnasium else self._core.pretrained.max_episode_steps

    def render(self) -> np.ndarray | None:
        """Picture of the current observation, uint8, shape (height, width, 3); None without a render mode."""
        pictures = self._core.render()
        return None if pictures is None else pictures[0]

    def get_state(self) -> EnvState:
        """See `LearnedVectorEnv.get_state`."""
        return self._core.get_state()

    def set_state(self, state: EnvState) -> None:
        """See `LearnedVectorEnv.set_state`."""
        self._core.set_state(state)
