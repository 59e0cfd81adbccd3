"""What PPO trains: a policy and a value on one network. On disk: safetensors, and in their header what it is, as JSON."""

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal

from learned_envs.files import replacing
from learned_envs.nn.initialization import orthogonal
from learned_envs.nn.pixels import brightness, pixel_trunk
from training.precision import has_bfloat16, mixed_precision

__all__ = ["Agent", "AgentConfig", "AgentError", "Moments", "load_agent", "save_agent"]

_FORMAT = "learned_envs agent 1"
_NEVER = -1e4  # log-probability of what is never done: the probability is 0 exactly, and no gradient changes that


class AgentError(ValueError):
    """An agent cannot be read, or does not fit an environment."""


@dataclass(frozen=True)
class AgentConfig:
    """What an agent sees and does.

    Args:
        observation_shape: (channels, height, width) of pictures, or (n,).
        pictures: Whether observations are uint8 pictures of at least 36x36 pixels; numbers otherwise.
        num_actions: Size of the set of actions; 0 if actions are numbers.
        low: Lower bounds of actions that are numbers.
        high: Upper bounds.
        channels: Channels of the three convolutions over pictures.
        hidden: Width of the layer before the heads; numbers go through two of it.
        bf16: Whether convolutions and the layer behind them run in bfloat16 where the device has it.
    """

    observation_shape: tuple[int, ...]
    pictures: bool
    num_actions: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    channels: tuple[int, int, int] = (16, 32, 32)
    hidden: int = 256
    bf16: bool = False

    @classmethod
    def of(cls, observations: gym.Space, actions: gym.Space, **sizes: Any) -> "AgentConfig":
        """For the spaces of one environment.

        Raises:
            AgentError: If a space is of a kind that the agent cannot handle.
        """
        if not isinstance(observations, gym.spaces.Box) or len(observations.shape) not in (1, 3):
            raise AgentError(f"The agent sees pictures (channels, height, width) or numbers (n,), not {observations}.")
        pictures = len(observations.shape) == 3
        if pictures and (observations.dtype != np.uint8 or min(observations.shape[1:]) < 36):
            raise AgentError(f"The agent sees uint8 pictures of at least 36x36 pixels, not {observations}.")
        if isinstance(actions, gym.spaces.Discrete) and actions.start == 0:
            return cls(observations.shape, pictures, int(actions.n), **sizes)
        if isinstance(actions, gym.spaces.Box) and actions.is_bounded() and len(actions.shape) == 1:
            low, high = (tuple(map(float, bound)) for bound in (actions.low, actions.high))
            return cls(observations.shape, pictures, 0, low, high, **sizes)
        raise AgentError(f"The agent takes actions 0 to n - 1, or a bounded vector of numbers, not {actions}.")


class Moments(nn.Module):
    """Mean and variance of everything seen so far, to bring it to one scale.

    Args:
        shape: Of one thing seen.
    """

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("var", torch.ones(shape, dtype=torch.float64))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    @property
    def scale(self) -> Tensor:
        """Standard deviation, float32; 1 where all that was seen is the same."""
        constant = self.var <= 1e-12 * self.mean.square()
        return self.var.sqrt().masked_fill(constant, 1.0).float()

    def forward(self, values: Tensor) -> Tensor:
        """Values of mean 0 and deviation 1, none further than 10."""
        return ((values - self.mean) / self.scale).float().clamp(-10, 10)

    @torch.no_grad()
    def see(self, values: Tensor) -> None:
        """Take in more, shape (B, *shape); by the parallel algorithm of Chan et al. (1979)."""
        values = values.double()
        delta, total = values.mean(0) - self.mean, self.count + len(values)
        spread = self.var * self.count + values.var(0, correction=0) * len(values)
        self.var.copy_((spread + delta.square() * self.count * len(values) / total) / total)
        self.mean.add_(delta * len(values) / total)
        self.count.copy_(total)


class Agent(nn.Module):
    """A policy and a value.

    Pictures go through the three convolutions of Mnih et al. (2015), narrower; numbers are brought to one scale and go through
    two layers.

    Args:
        config: What it sees and does.
    """

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.config = config
        shape, hidden = config.observation_shape, config.hidden
        self.moments = None if config.pictures else Moments(shape)
        if config.pictures:
            self.trunk = pixel_trunk(shape, config.channels, hidden)
        else:
            first, second = nn.Linear(shape[0], hidden), nn.Linear(hidden, hidden)
            self.trunk = nn.Sequential(orthogonal(first), nn.Tanh(), orthogonal(second), nn.Tanh())
        self.actor = orthogonal(nn.Linear(hidden, config.num_actions or len(config.low)), 0.01)
        self.critic = orthogonal(nn.Linear(hidden, 1), 1.0)
        self.log_std = nn.Parameter(torch.full((len(config.low),), -0.5)) if not config.num_actions else None
        self.register_buffer("low", torch.tensor(config.low), persistent=False)
        self.register_buffer("high", torch.tensor(config.high), persistent=False)
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stubs forget it

    def forward(self, observations: Tensor) -> tuple[Distribution, Tensor]:
        """What to do, and what it is worth.

        Args:
            observations: uint8 or float32, shape (B, *observation_shape).

        Returns:
            A distribution over actions, and the value, shape (B,).
        """
        if self.moments is None:
            half = self.config.bf16 and has_bfloat16(observations.device)  # exact for whole numbers up to 256
            seen = brightness(observations, torch.bfloat16 if half else torch.float32)
        else:
            seen = self.moments(observations)
        with mixed_precision(seen.device, self.config.bf16):
            features = self.trunk(seen)
        features = features.float()
        out = self.actor(features)
        if self.log_std is None:
            distribution: Distribution = Categorical(logits=out, validate_args=False)
        else:
            distribution = Independent(Normal(out, self.log_std.exp().expand_as(out), validate_args=False), 1)
        return distribution, self.critic(features).squeeze(-1)

    def in_space(self, actions: Tensor) -> Tensor:
        """Actions as the environment takes them: numbers are clipped to [-1, 1] and stretched to the bounds."""
        if self.log_std is None:
            return actions
        assert isinstance(self.low, Tensor) and isinstance(self.high, Tensor)
        return self.low + (actions.clamp(-1, 1) + 1) / 2 * (self.high - self.low)

    @torch.no_grad()
    def take_only(self, actions: Collection[int]) -> None:
        """Never take any other action than these, however long the agent learns.

        Args:
            actions: At least one of 0 to ``config.num_actions`` - 1.

        Raises:
            AgentError: If there is none, or one that the agent does not have.
        """
        if not actions or not set(actions) <= set(range(self.config.num_actions)):
            raise AgentError(
                f"The agent can be kept to some of its actions 0 to {self.config.num_actions - 1}, not to {sorted(actions)}."
                if self.config.num_actions
                else "The agent's actions are numbers: it cannot be kept to some of them."
            )
        others = [action for action in range(self.config.num_actions) if action not in actions]
        self.actor.bias[others] = _NEVER

    def check_fits(self, observations: gym.Space, actions: gym.Space) -> None:
        """Refuse spaces of another environment.

        Raises:
            AgentError: If observations or actions differ from what the agent was trained with.
        """
        wanted = AgentConfig.of(observations, actions)
        for name in ("observation_shape", "pictures", "num_actions", "low", "high"):
            mine, its = getattr(self.config, name), getattr(wanted, name)
            if mine != its:
                raise AgentError(f"The agent has {name} {mine}, the environment {its}: it was trained for another one.")

    @torch.no_grad()
    def act(self, observations: Tensor, greedy: bool = False) -> Tensor:
        """Actions for the environment.

        Args:
            observations: Shape (B, *observation_shape).
            greedy: Whether to take the most likely ones instead of drawing them.
        """
        distribution, _ = self(observations)
        return self.in_space(distribution.mode if greedy else distribution.sample())


def save_agent(agent: Agent, path: Path) -> None:
    """Write an agent, whole or not at all."""
    weights = {name: tensor.contiguous() for name, tensor in agent.state_dict().items()}
    with replacing(path) as partial:
        save_file(weights, partial, {"format": _FORMAT, "config": json.dumps(asdict(agent.config))})


def load_agent(path: Path, device: str | torch.device = "cpu") -> Agent:
    """Read an agent.

    Raises:
        AgentError: If the file is missing, damaged or something else.
    """
    try:
        with safe_open(path, "pt", device="cpu") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (OSError, SafetensorError) as error:
        raise AgentError(f"{path} holds no agent ({error}). Train one: python -m training ppo ID") from error
    if header.get("format") != _FORMAT:
        raise AgentError(f"{path} has format {header.get('format')!r}, expected {_FORMAT!r}.")
    try:
        agent = Agent(TypeAdapter(AgentConfig).validate_json(header["config"]))
        agent.load_state_dict(weights)
    except (KeyError, ValueError, RuntimeError) as error:
        raise AgentError(f"{path} is damaged: {error}") from error
    return agent.to(device).eval()
