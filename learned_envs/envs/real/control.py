"""The faces of a real system: the same as those of a learned environment, over the true equations."""

from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from learned_envs.envs.contexts import parse_context
from learned_envs.envs.real.simulator import Simulator, SystemState
from learned_envs.envs.real.systems import System, make_system
from learned_envs.envs.single import LearnedEnv
from learned_envs.envs.vector import (
    EnvState,
    LearnedVectorEnv,
    _check_arguments,
    _parse_autoreset_mode,
    parse_device,
)
from learned_envs.nn.noise import uniform
from learned_envs.world_model import State

__all__ = ["SystemEnv", "SystemVectorEnv"]


class SystemVectorEnv(LearnedVectorEnv):
    """Many episodes of a real system, advanced together by torch; the twin of a `LearnedVectorEnv`, with the same methods.

    An observation is the state, float32, followed by the index of the step; an action is m numbers in [-1, 1], mapped
    affinely to the physical bounds of the controls. Rewards are those of `System.step`; the system's docstring tells when a
    terminal cost is paid. An episode is truncated when its index of the step reaches the horizon, and never terminated.
    Environment i of a batch seeded with s plays the same episodes as a single environment seeded with s + i.

    ``reset(options={"observations": ...})`` goes on from given observations, shape (num_envs, T, *shape), of which the last
    tells everything, its index of the step included; so the batch can be put into any state, and with ``differentiable=True``
    gradients reach it. An episode that is begun so counts the steps before it, also in ``infos["episode"]["l"]``.

    Args:
        system: Name of the system, such as ``"CancerTreatment"``, or a system.
        num_envs: Number of environments; at least 1.
        device: Where the system runs and, with ``output="torch"``, where everything is returned.
        output: ``"numpy"`` arrays, or ``"torch"`` tensors on the device.
        autoreset_mode: What happens at the end of an episode, see `gymnasium.vector.AutoresetMode`.
        max_episode_steps: Index of the step at which an episode is truncated already before the horizon; None for the horizon.
        render_mode: None; there are no pictures.
        differentiable: Whether `step` builds a graph of gradients, from rewards and observations back to actions and given
            observations; needs ``output="torch"``. The graph, and with it the memory, grows until `detach` cuts it: by at
            most 200 bytes an environment and step, and 3000 for the double pendulum with its ten substeps
            (tests/envs/real/test_control.py measures it).
        **parameters: Fields of the system's class, such as ``horizon``, ``fixed`` or a constant of its equations.

    Raises:
        ValueError: If an argument lies outside its range.
        TypeError: If the system has no such parameter.
        gymnasium.error.NameNotFound: If there is no such system.
    """

    metadata: dict[str, Any] = {"render_modes": [], "torch": True}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        system: str | System,
        num_envs: int = 1,
        *,
        device: str | torch.device = "cpu",
        output: Literal["numpy", "torch"] = "numpy",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        differentiable: bool = False,
        **parameters: Any,
    ) -> None:
        _check_arguments(num_envs, output, "initial", max_episode_steps, None, differentiable)
        _check_render_mode(render_mode)
        self.system = make_system(system, **parameters)
        self.world_model = Simulator(self.system)
        self.device = parse_device(device)
        self.num_envs = num_envs
        self.output = output
        self.autoreset_mode = _parse_autoreset_mode(autoreset_mode)
        # Per instance: the class's dict would leak the mode into other instances.
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = None
        self.differentiable = differentiable
        self.max_episode_steps = min(self.system.horizon, max_episode_steps or self.system.horizon)
        low, high = np.array(self.system.observation_bounds, np.float32).T
        self.single_observation_space = gym.spaces.Box(low, high, dtype=np.float32)
        self.single_action_space = gym.spaces.Box(-1.0, 1.0, (self.system.action_dim,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._state: EnvState | None = None

    def set_state(self, state: EnvState) -> None:
        """Go on from a copy made by `get_state`, here or in another environment of the same system and size.

        Raises:
            ValueError: If the state belongs to another system or number of environments, or is not finite.
        """
        values = state.model.values if isinstance(state.model, SystemState) else torch.empty(0)
        if values.shape[1:] != (self.system.state_dim,):
            raise ValueError(
                f"state holds {tuple(values.shape[1:])} numbers an environment, expected ({self.system.state_dim},): it was "
                f"not made by get_state() of {type(self.system).__name__}."
            )
        if not bool(values.isfinite().all()):
            raise ValueError("state holds NaN or infinite values, expected finite ones.")
        super().set_state(state)

    def render(self) -> None:
        """There are no pictures of a system: this warns, and returns None."""
        gym.logger.warn(f"{type(self.system).__name__} has no pictures; render() does nothing.")

    def _draw_starts(self, keys: Tensor, draws: Tensor) -> State:
        return self.world_model.initial(uniform(keys, draws, self.system.noise_size))

    def _continue(self, context: dict[str, Any]) -> State:
        assert isinstance(self.single_observation_space, gym.spaces.Box)
        spaces = self.single_observation_space, self.single_action_space
        parsed = parse_context(context, self.num_envs, *spaces, self.device)
        state = self.world_model.start(*parsed).clone()  # the caller may overwrite the context
        return state if self.differentiable else state.detach()

    def _fresh(self, model: State, keys: Tensor, draws: Tensor) -> EnvState:
        """Episodes at their first step; the clock of one that goes on from an observation is that observation's."""
        assert isinstance(model, SystemState)
        zeros = torch.zeros_like(draws)
        return EnvState(model, keys, draws, model.t, zeros.float(), zeros.bool())

    def _parse_actions(self, actions: Any) -> Tensor:
        """Actions on the device, float32. On a GPU their values are not checked, since that would wait for the device."""
        action = torch.as_tensor(actions, device=self.device)
        expected = (self.num_envs, self.system.action_dim)
        if tuple(action.shape) != expected:
            raise ValueError(
                f"actions has shape {tuple(action.shape)}, expected {expected}: {expected[1]} in [-1, 1] for each environment."
            )
        if action.dtype == torch.bool or action.is_complex():
            raise ValueError(f"actions has dtype {action.dtype}, expected float32.")
        action = action.float()
        if self.device.type == "cpu":
            wrong = ~(action.detach().abs() <= 1)  # also where it is NaN
            if bool(wrong.any()):
                raise ValueError(
                    f"actions contains {action[wrong][0].item():g}, expected numbers in [-1, 1]. Clip them, or squash them "
                    "with tanh."
                )
        return action


class SystemEnv(LearnedEnv):
    """A real system that plays one episode at a time: a batch of one of `SystemVectorEnv`, in NumPy.

    Args:
        system: Name of the system, such as ``"CancerTreatment"``, or a system.
        render_mode: None; there are no pictures.
        device: Where the system runs.
        **parameters: Fields of the system's class, such as ``horizon``, ``fixed`` or a constant of its equations.

    Raises:
        ValueError: If an argument lies outside its range.
        TypeError: If the system has no such parameter.
        gymnasium.error.NameNotFound: If there is no such system.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self, system: str | System, *, render_mode: str | None = None, device: str = "cpu", **parameters: Any
    ) -> None:
        _check_render_mode(render_mode)
        self._core = SystemVectorEnv(system, 1, device=device, autoreset_mode=AutoresetMode.DISABLED, **parameters)
        self.system = self._core.system
        self.render_mode = None
        self.observation_space = self._core.single_observation_space
        self.action_space = self._core.single_action_space

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance the episode by one step.

        Args:
            action: Numbers in [-1, 1], shape (m,).

        Returns:
            The observation, the reward, False, whether the horizon is reached, and an empty info.

        Raises:
            ValueError: If the action has a wrong shape or a number outside [-1, 1].
            gymnasium.error.ResetNeeded: If the episode has ended, or none was begun.
        """
        if np.shape(action) != self.action_space.shape:
            raise ValueError(f"action has shape {np.shape(action)}, expected {self.action_space.shape}.")
        return super().step(action)

    def _limit(self) -> int:
        """The horizon, also where Gymnasium has a shorter limit to keep."""
        return self.system.horizon


def _check_render_mode(render_mode: str | None) -> None:
    if render_mode is not None:
        raise ValueError(f"render_mode is {render_mode!r}, expected None: there are no pictures of a system.")
