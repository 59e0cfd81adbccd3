"""Agents that come with a snapshot: they see an observation, and choose an action.

Either as Robine et al. (ICLR 2023, section 2.2) have it, where the policy sees the latent of the newest observation alone, so
that acting takes an encoder and a small perceptron, and no transformer. Or through convolutions of its own, as those agents
do that were trained in the finished environment and know nothing of what is inside it.

Letters: N observations, C codes that make up one, V latent variables, K classes, A actions.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from learned_envs.envs.actions import as_tensor
from learned_envs.nn.categorical import sample
from learned_envs.nn.pixels import PixelActor
from learned_envs.twm.config import ObservationConfig
from learned_envs.twm.dynamics import Memory
from learned_envs.twm.world_model import TransformerWorldModel
from learned_envs.world_model import State

__all__ = ["LatentPerceptron", "Policy", "PolicyConfig", "PolicyState", "load_policy", "one_hot_linear"]

_CELLS, _CELL_FEATURES = 64, 16  # of a grid of local codes


@dataclass(frozen=True)
class PolicyConfig:
    """Sizes of a policy.

    Args:
        hidden: Widths of the hidden layers.
        on_features: Whether it also sees the transformer's feature h of the step before; acting then takes the transformer.
        channels: Channels of the three convolutions, in front of one hidden layer, through which it sees pixels; empty where it
            sees codes of the world model.

    Raises:
        ValueError: If there is no hidden layer, or one of no width, or sizes do not fit each other.
    """

    hidden: tuple[int, ...] = (512, 512, 512, 512)
    on_features: bool = False
    channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.hidden or min(self.hidden) < 1:
            raise ValueError(f"hidden is {self.hidden}, but must name at least one width, of at least 1 each.")
        if not self.channels:
            return
        if len(self.channels) != 3 or min(self.channels) < 1:
            raise ValueError(f"channels is {self.channels}, but must name three widths of at least 1, or none.")
        if len(self.hidden) != 1 or self.on_features:
            raise ValueError(
                f"A policy that sees pixels has one hidden layer and no features, but hidden is {self.hidden} and on_features "
                f"is {self.on_features}."
            )


def one_hot_linear(classes: Tensor, weight: Tensor, bias: Tensor | None, num_classes: int, gather: bool) -> Tensor:
    """A linear layer on one-hot vectors that are given by their classes.

    Args:
        classes: int64, shape (N, S).
        weight: Shape (outputs, S * num_classes).
        bias: Shape (outputs,), or None.
        num_classes: Classes of each of the S variables.
        gather: Whether to sum up S columns of the weight, which is cheap on a CPU, instead of multiplying by the vectors.

    Returns:
        Shape (N, outputs).
    """
    if not gather:
        vectors = functional.one_hot(classes, num_classes).flatten(-2).to(weight.dtype)
        return functional.linear(vectors, weight, bias)
    offsets = torch.arange(classes.shape[-1], device=classes.device) * num_classes
    sums = functional.embedding_bag(classes + offsets, weight.t().contiguous(), mode="sum")
    return sums if bias is None else sums + bias


class LatentPerceptron(nn.Module):
    """A perceptron on the codes of an observation; actor and critic are one each.

    A code of a whole stack is seen as it is, as in the paper. Grids of local codes first become a few features a cell, by
    weights that all cells share.

    Args:
        observation: The observation model whose codes it sees.
        hidden: Widths of the hidden layers.
        outputs: Width of the output.
        features: Width of what it sees beside the codes; 0 for nothing.
    """

    def __init__(
        self, observation: ObservationConfig, hidden: tuple[int, ...], outputs: int, features: int = 0
    ) -> None:
        super().__init__()
        self.codes = observation.stack // observation.frames_per_code
        self.latent = observation.latent
        self.features = features
        self.gather = False
        width = self.codes * self.latent.features
        self.cell: nn.Linear | None = None
        if observation.architecture == "grid":
            self.cell = nn.Linear(width // _CELLS, _CELL_FEATURES)
            width = _CELLS * _CELL_FEATURES
        self.layers = nn.ModuleList()
        for size in (*hidden, outputs):
            self.layers.append(nn.Linear(width + (0 if len(self.layers) else features), size))
            width = size
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.orthogonal_(module.weight, 1.0 if module is self.layers[-1] else math.sqrt(2))
                nn.init.zeros_(module.bias)

    def forward(self, classes: Tensor, features: Tensor | None = None) -> Tensor:
        """Codes to outputs.

        Args:
            classes: int64, shape (..., C, V).
            features: What it sees beside, shape (..., features).

        Returns:
            Shape (..., outputs).
        """
        shape = classes.shape[:-2]
        hidden = self._first(classes.flatten(0, -3) if len(shape) else classes.unsqueeze(0))
        if features is not None:
            seen = features.reshape(-1, self.features).to(hidden.dtype)
            hidden = hidden + functional.linear(seen, self._layer(0).weight[:, -self.features :])
        for index in range(1, len(self.layers) - 1):
            hidden = self._layer(index)(functional.silu(hidden))
        output = self._layer(-1)
        with torch.autocast(hidden.device.type, enabled=False):  # an advantage is a small difference of outputs
            hidden = functional.linear(functional.silu(hidden.float()), output.weight.float(), output.bias.float())
        return hidden.unflatten(0, shape) if len(shape) else hidden.squeeze(0)

    def _first(self, classes: Tensor) -> Tensor:
        """What the first layer makes of the codes, shape (N, C, V) to (N, hidden)."""
        first, classes_each = self._layer(0), self.latent.classes
        if self.cell is None:
            weight = first.weight[:, : first.in_features - self.features]
            return one_hot_linear(classes.flatten(1), weight, first.bias, classes_each, self.gather)
        cells = (
            classes.unflatten(2, (_CELLS, -1)).transpose(1, 2).flatten(2).flatten(0, 1)
        )  # (N * cells, C * variables)
        seen = one_hot_linear(cells, self.cell.weight, self.cell.bias, classes_each, self.gather)
        inputs = functional.silu(seen).view(len(classes), -1)
        return functional.linear(inputs, first.weight[:, : inputs.shape[1]], first.bias)

    def _layer(self, index: int) -> nn.Linear:
        layer = self.layers[index]
        assert isinstance(layer, nn.Linear)
        return layer


@dataclass(frozen=True)
class PolicyState(State):
    """What a policy that sees features remembers of its episodes.

    Args:
        memory: The transformer's memory.
        features: The newest features, shape (N, D).
    """

    memory: Memory
    features: Tensor


class Policy(nn.Module):
    """A trained agent.

    Args:
        model: The world model through which it sees.
        config: Its sizes.

    Raises:
        ValueError: If it is to see features of a model that codes single frames.
    """

    def __init__(self, model: TransformerWorldModel, config: PolicyConfig) -> None:
        super().__init__()
        if config.on_features and model.config.observation.frames_per_code == 1:
            raise ValueError("on_features needs codes of whole observations, but the model's are of single frames.")
        self.config = config
        self.actor = _make_actor(model, config)
        self.model = model

    @torch.no_grad()
    def see(self, observations: Tensor) -> Tensor:
        """Codes of observations, the most likely class of each variable.

        Args:
            observations: uint8, shape (N, F, 64, 64).

        Returns:
            Classes, int64, shape (N, C, V).
        """
        per_code = self.model.config.observation.frames_per_code
        parts = observations.unflatten(1, (-1, per_code))
        logits = self.model.observation_model.encode(parts.flatten(0, 1).float() / 255)
        return logits.argmax(-1).unflatten(0, parts.shape[:2])

    def begin(self, count: int) -> PolicyState | None:
        """What it knows when ``count`` episodes begin: None if it remembers nothing anyway."""
        if not self.config.on_features:
            return None
        config, weight = self.model.config, self.model.dynamics.reward_embedding.weight
        empty = weight.new_zeros(count, 0, config.observation.latent.features)
        nothing = weight.new_zeros(count, 0)
        memory = self.model.dynamics.remember(empty, nothing.long(), nothing, nothing.bool())
        return PolicyState(memory, weight.new_zeros(count, config.transformer.width))

    @torch.no_grad()
    def act(
        self,
        observations: Tensor,
        noise: Tensor | None,
        state: PolicyState | None = None,
        rewards: Tensor | None = None,
    ) -> tuple[Tensor, PolicyState | None]:
        """Choose actions.

        Args:
            observations: uint8, shape (N, F, 64, 64).
            noise: Uniform in [0, 1), shape (N,), with which actions are drawn; None takes the most likely ones.
            state: What it remembers, see `begin`.
            rewards: Raw rewards of the last step, shape (N,); only a policy on features looks at them.

        Returns:
            Actions, int64, shape (N,), and what it remembers now.
        """
        if self.config.channels:
            return _choose(self.actor(observations), noise), None
        classes = self.see(observations)
        actions = _choose(self.actor(classes, None if state is None else state.features), noise)
        if state is None:
            return actions, None
        latents = functional.one_hot(classes[:, 0], self.model.config.observation.latent.classes).flatten(1).float()
        fed = torch.zeros(len(actions), device=actions.device) if rewards is None else self.model.feed(rewards.float())
        forecast, memory = self.model.dynamics.step(latents, actions, fed, state.memory)
        assert forecast.features is not None
        return actions, PolicyState(memory, forecast.features[:, 0])

    def predict(
        self,
        observation: Any,
        state: PolicyState | None = None,
        episode_start: Any = None,
        deterministic: bool = False,
        rewards: Any = None,
    ) -> tuple[Any, PolicyState | None]:
        """Choose actions, in the form that Stable-Baselines3's ``evaluate_policy`` expects.

        Drawn actions come from torch's global generator.

        Args:
            observation: One observation, uint8, shape (F, 64, 64), or N of them; an array or a tensor.
            state: What the last call returned; None at first.
            episode_start: Which of the N episodes begin with this observation, bool, shape (N,).
            deterministic: Whether to take the most likely action instead of drawing one.
            rewards: Raw rewards of the last step, shape (N,); only a policy on features looks at them.

        Returns:
            An integer or N of them, of the kind of ``observation``, and what to hand in next.

        Raises:
            ValueError: If the observation's shape or dtype does not fit.
        """
        expected = self.model.observation_shape
        given = as_tensor("observation", observation)
        if given.dtype != torch.uint8 or tuple(given.shape[-3:]) != expected or given.ndim not in (3, 4):
            raise ValueError(
                f"observation has shape {tuple(given.shape)} and dtype {given.dtype}, expected {expected}, or N of it, uint8."
            )
        device = next(self.parameters()).device
        batch = given.reshape(-1, *expected).to(device)
        if self.config.on_features:
            fresh = self.begin(len(batch))
            assert fresh is not None
            begins = (
                torch.zeros(len(batch), dtype=torch.bool)
                if episode_start is None
                else as_tensor("episode_start", episode_start)
            )
            state = fresh if state is None else fresh.where(begins.to(device).view(-1), state)
        noise = None if deterministic else torch.rand(len(batch), device=device)
        seen = None if rewards is None else as_tensor("rewards", rewards, device).float().view(-1)
        actions, state = self.act(batch, noise, state, seen)
        actions = actions.view(given.shape[:-3])
        return (actions if isinstance(observation, Tensor) else np.asarray(actions.cpu())), state


def _make_actor(model: TransformerWorldModel, config: PolicyConfig) -> LatentPerceptron | PixelActor:
    if config.channels:
        return PixelActor(model.observation_shape, config.channels, config.hidden[0], model.config.num_actions)
    features = model.config.transformer.width if config.on_features else 0
    return LatentPerceptron(model.config.observation, config.hidden, model.config.num_actions, features)


def _choose(logits: Tensor, noise: Tensor | None) -> Tensor:
    """Actions, shape (N,), from logits, shape (N, A): drawn by uniform numbers, shape (N,), or the most likely ones."""
    if noise is None:
        return logits.argmax(-1)
    return sample(logits.float().softmax(-1).unsqueeze(1), noise.unsqueeze(1)).squeeze(1)


def load_policy(
    name: str | Path, revision: str | None = None, device: str | torch.device = "cpu", local_files_only: bool = False
) -> Policy:
    """Load the agent that came with a snapshot.

    Args:
        name: Id, folder of a snapshot, or repository on the Hub, ``organization/name``.
        revision: Branch, tag or commit on the Hub; a folder has none.
        device: Where to put it.
        local_files_only: Whether to do without the network.

    Returns:
        The agent in evaluation mode; its ``predict`` takes observations of the real game and of the learned one alike. One
        that was trained on the transformer's features (``config.on_features``) must also be told rewards.

    Raises:
        MissingModelError: If the snapshot is not to be had, or holds no agent.
        SnapshotError: If its files are damaged.
        ValueError: If the device is not available, or a revision of a folder is asked for.
    """
    from learned_envs.device import parse_device
    from learned_envs.errors import MissingModelError
    from learned_envs.pretrained import find_snapshot
    from learned_envs.snapshot import read_policy, read_snapshot

    device = parse_device(device)
    folder = find_snapshot(name, revision, local_files_only)
    snapshot = read_snapshot(folder)
    if snapshot.config.policy is None:
        real = snapshot.config.environment
        hint = f" Train one: python -m training atari100k --game {real.name}" if real.kind == "atari" else ""
        raise MissingModelError(f"The snapshot {folder} holds a world model, but no agent.{hint}")
    return read_policy(snapshot).to(device)
