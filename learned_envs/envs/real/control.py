"""The faces of a real system: the same as those of a learned environment, over the true equations."""

from typing import Any, Literal

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from learned_envs.envs.batched import BatchedEnv
from learned_envs.envs.real.simulator import Simulator, SystemState
from learned_envs.envs.real.systems import System, make_system
from learned_envs.envs.unbatched import UnbatchedEnv
from learned_envs.nn.noise import uniform
from learned_envs.world_model import State

__all__ = ["SystemEnv", "SystemVectorEnv"]


class SystemVectorEnv(BatchedEnv):
    """Many episodes of a real system, advanced together by torch; the twin of a `LearnedVectorEnv`, with the same methods.

    An observation is the state, float32, followed by the index of the step; an action is m numbers in [-1, 1], mapped
    affinely to the physical bounds of the controls. Rewards are those of `System.step`; the system's docstring tells when a
    terminal cost is paid. An episode is truncated when its index of the step reaches the horizon, and never terminated.
    Environment i of a batch seeded with s plays the same episodes as a single environment seeded with s + i.

    ``reset(options={"observations": ...})`` goes on from given observations, shape (num_envs, T, *shape), of which the last
    tells everything, its index of the step included; so the batch can be put into any state, and with ``differentiable=True``
    gradients reach it.

    Args:
        system: Name of the system, such as ``"CancerTreatment"``, or a system.
        num_envs: Number of environments; at least 1.
        device: Where the system runs and, with ``output="torch"``, where everything is returned.
        output: ``"numpy"`` arrays, or ``"torch"`` tensors on the device.
        autoreset_mode: What happens at the end of an episode, see `gymnasium.vector.AutoresetMode`.
        max_episode_steps: Steps, counted from where it began, after which an episode is truncated already before the horizon;
            None for the horizon alone.
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
        self.system = make_system(system, **parameters)
        self._simulator = Simulator(self.system)
        horizon = self.system.horizon
        super().__init__(
            self._simulator,
            self.system.observation_space,
            self.system.action_space,
            num_envs,
            horizon if max_episode_steps is None else min(horizon, max_episode_steps),
            device=device,
            output=output,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            differentiable=differentiable,
        )

    def _draw_starts(self, keys: Tensor, draws: Tensor) -> State:
        return self._simulator.initial(uniform(keys, draws, self.system.noise_size))

    def _horizon(self, state: State) -> Tensor:
        assert isinstance(state, SystemState)
        return self.system.horizon - state.t


class SystemEnv(UnbatchedEnv):
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

    def __init__(
        self, system: str | System, *, render_mode: str | None = None, device: str = "cpu", **parameters: Any
    ) -> None:
        core = SystemVectorEnv(
            system, 1, device=device, autoreset_mode=AutoresetMode.DISABLED, render_mode=render_mode, **parameters
        )
        super().__init__(core)
        self.system = core.system
