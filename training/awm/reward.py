"""The known reward of a system, as a world model of it wants it."""

from torch import Tensor

from learned_envs.awm.world_model import RewardFunction
from learned_envs.envs.real.systems import System

__all__ = ["known_reward"]


def known_reward(system: System) -> RewardFunction:
    """The analytic reward r(s_t, a_t) of a system; noise on rewards is left out.

    Args:
        system: Whose reward.

    Returns:
        A function from observations, clock last, shape (..., n), and actions, shape (..., m), to rewards, shape (...).

    Raises:
        ValueError: If the clock is not the last number of an observation.
    """
    state_dim = system.state_dim
    if len(system.observation_bounds) != state_dim + 1:
        raise ValueError(
            f"{type(system).__name__} as configured shows more than its state and the clock, expected no more."
        )

    def reward(observations: Tensor, actions: Tensor) -> Tensor:
        states = observations[..., :state_dim].reshape(-1, state_dim)
        clock = observations[..., -1].detach().reshape(-1).round().long()
        noise = states.new_zeros(len(states), system.noise_size)
        rewards = system.step(states, actions.reshape(-1, actions.shape[-1]), clock, noise)[1]
        return rewards.reshape(actions.shape[:-1])

    return reward
