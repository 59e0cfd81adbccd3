"""A real system behind the protocol of the world models: what they imagine, it computes.

So whatever plans in a learned model, or takes gradients through it, can be given the truth instead.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from learned_envs.envs.real.systems.system import System
from learned_envs.world_model import Prediction, State, WorldModel

__all__ = ["Simulator", "SystemState"]


@dataclass(frozen=True)
class SystemState(State):
    """Where the episodes of a system stand.

    Args:
        values: States of the system, shape (B, n).
        t: Index of the next step, int64, shape (B,).
    """

    values: Tensor
    t: Tensor


class Simulator(WorldModel):
    """The true world model of a system. It has no weights, and works in the dtype of the states it is given.

    Args:
        system: What to simulate.
    """

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system = system
        self.observation_shape = (len(system.observation_bounds),)
        self.observation_dtype = torch.float32
        self.noise_size = system.noise_size
        self.ends = False

    def initial(self, noise: Tensor) -> SystemState:
        """Begin episodes where the system begins them.

        Args:
            noise: Uniform in [0, 1), float32, shape (B, noise_size).
        """
        values = self.system.initial_state(len(noise), _normal(noise), dtype=noise.dtype, device=noise.device)
        return SystemState(values, torch.zeros(len(noise), dtype=torch.int64, device=noise.device))

    def start(self, observations: Tensor, actions: Tensor | None = None, rewards: Tensor | None = None) -> SystemState:
        """Go on from observations. The last of each context tells everything; what came before it is ignored.

        Args:
            observations: Shape (B, T, *observation_shape), float32 or float64, within `System.observation_bounds`.
            actions: Ignored.
            rewards: Ignored.

        Returns:
            The state, in memory of its own, with gradients to the last observation.

        Raises:
            ValueError: If a shape or dtype does not fit, or a last observation is not one that can be continued.
        """
        expected = f"(B, T, {self.observation_shape[0]})"
        wrong_shape = observations.ndim != 3 or tuple(observations.shape[2:]) != self.observation_shape
        if wrong_shape or not observations.shape[1] or not observations.is_floating_point():
            raise ValueError(
                f"observations has shape {tuple(observations.shape)} and dtype {observations.dtype}, expected {expected} "
                "and float32 or float64."
            )
        last = observations[:, -1].clone()  # what the caller does to it later must not reach the state
        self.system.check_observations(last)
        return SystemState(*self.system.split(last))

    def observe(self, state: SystemState) -> Tensor:
        """The observation that a state shows, see `System.observe`."""
        return self.system.observe(state.values, state.t)

    def step(
        self, state: SystemState, action: Tensor, noise: Tensor, decode: bool = True
    ) -> tuple[SystemState, Prediction]:
        """Take one step, see `System.step`.

        Args:
            state: Where the episodes stand.
            action: In [-1, 1], dtype of the state, shape (B, m).
            noise: Uniform in [0, 1), float32, shape (B, noise_size).
            decode: Changes nothing; observations cost nothing.

        Returns:
            The state after the step, and its reward, dtype of the state. Nothing but the horizon ends an episode, so the
            probability of an end is 0.
        """
        values, reward = self.system.step(state.values, action, state.t, _normal(noise))
        return SystemState(values, state.t + 1), Prediction(reward, torch.zeros_like(reward))


def _normal(noise: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones, which are multiples of 2**-24 in [0, 1)."""
    return torch.special.ndtri(noise.double() + 2.0**-25).to(noise.dtype)  # shifted into the open interval
