"""A batch of one on the torch core, as a Gymnasium `Env` in NumPy."""

from typing import Any

import gymnasium as gym
import numpy as np

from learned_envs.envs.batched import BatchedEnv, EnvState

__all__ = ["UnbatchedEnv"]


class UnbatchedEnv(gym.Env):
    """An environment that plays one episode at a time.

    Args:
        core: Who plays it: one environment, without autoreset, in NumPy.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(self, core: BatchedEnv) -> None:
        self._core = core
        self.metadata = {**type(self).metadata, "render_modes": core.metadata["render_modes"]}
        self.render_mode = core.render_mode
        self.observation_space = core.single_observation_space
        self.action_space = core.single_action_space

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
            ValueError: If an option is unknown, a shape or dtype does not fit, or a value lies outside its space.
        """
        super().reset(seed=seed)
        batched = {key: None if value is None else np.asarray(value)[None] for key, value in (options or {}).items()}
        observation, info = self._core.reset(seed=seed, options=batched)
        return observation[0], info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance the episode by one step.

        Args:
            action: An element of the action space.

        Returns:
            The observation, the reward, whether the episode ended, whether the time was up, and an empty info.

        Raises:
            ValueError: If the action lies outside the action space.
            gymnasium.error.ResetNeeded: If the episode has ended, or none was begun.
        """
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"action has shape {np.shape(action)}, expected {self.action_space.shape}.")
        observation, reward, terminated, truncated, _ = self._core.step(np.asarray(action)[None])
        return observation[0], float(reward[0]), bool(terminated[0]), bool(truncated[0]), {}

    def render(self) -> np.ndarray | None:
        """Picture of the current observation, uint8, shape (height, width, 3); None without a render mode."""
        pictures = self._core.render()
        return None if pictures is None else pictures[0]

    def get_state(self) -> EnvState:
        """See `BatchedEnv.get_state`."""
        return self._core.get_state()

    def set_state(self, state: EnvState) -> None:
        """See `BatchedEnv.set_state`."""
        self._core.set_state(state)
