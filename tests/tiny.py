"""World models small enough for tests, with random weights, and the snapshots they travel in.

The weights are scaled so that pictures have contrast, actions matter, and episodes end now and then: a test that compares
two rollouts can then tell them apart.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import nn

from learned_envs.snapshot import EnvironmentConfig, SnapshotConfig, write_snapshot
from learned_envs.starts import Contexts, StartBank, StartKind
from learned_envs.twm.config import LatentConfig, ObservationConfig, TwmConfig, compact, faithful
from learned_envs.twm.observation_model import GridObservationModel
from learned_envs.twm.world_model import TransformerWorldModel

__all__ = [
    "KINDS",
    "NUM_ACTIONS",
    "TinyKind",
    "last_bias",
    "last_layer",
    "tiny_config",
    "tiny_model",
    "tiny_snapshot_config",
    "tiny_starts",
    "write_tiny_snapshot",
]

TinyKind = Literal["faithful", "compact"]
KINDS: tuple[TinyKind, ...] = get_args(TinyKind)
NUM_ACTIONS = 3
_INITIAL, _ANYWHERE, _ANYWHERE_STEPS = 5, 6, 4  # contexts of each kind, and observations in those of the second


def tiny_config(kind: TinyKind) -> TwmConfig:
    """The form of a preset in a size for tests."""
    hidden = {"latent_hidden": (24,), "reward_hidden": (16,), "discount_hidden": (16,), "context": 4}
    sizes = {"layers": 2, "width": 16, "heads": 2, "hidden": 32}
    if kind == "faithful":
        preset = faithful(NUM_ACTIONS)
        observation = ObservationConfig(stack=4, architecture="dense", channels=4, latent=LatentConfig(4, 4))
    else:
        preset = compact(NUM_ACTIONS)
        observation = ObservationConfig(stack=4, architecture="grid", channels=8, latent=LatentConfig(128, 4, 0.01))
        hidden["temperature"] = 0.0
    return replace(preset, observation=observation, transformer=replace(preset.transformer, **sizes), **hidden)


def tiny_model(kind: TinyKind, seed: int = 0, config: TwmConfig | None = None) -> TransformerWorldModel:
    """A model with random weights, in evaluation mode; of another configuration of its kind where one is given."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TransformerWorldModel(config or tiny_config(kind))
        observation_model, dynamics = model.observation_model, model.dynamics
        with torch.no_grad():
            for layer in observation_model.decoder:
                if isinstance(layer, nn.ConvTranspose2d | nn.Conv2d):
                    layer.weight.mul_(4 if kind == "faithful" else 2)
            if isinstance(observation_model, GridObservationModel):
                observation_model.background.fill_(0.5)
            else:
                last_bias(observation_model.decoder).fill_(0.5)
            for head in (dynamics.latent_head, dynamics.reward_head, dynamics.discount_head):
                last_layer(head).weight.mul_(3)
            last_bias(dynamics.discount_head).fill_(3.5)
    return model.eval()


def last_layer(layers: nn.Sequential) -> nn.Linear | nn.ConvTranspose2d:
    """The output layer of a stack."""
    layer = layers[-1]
    assert isinstance(layer, nn.Linear | nn.ConvTranspose2d)
    return layer


def last_bias(layers: nn.Sequential) -> torch.Tensor:
    """The bias of the output layer of a stack."""
    bias = last_layer(layers).bias
    assert bias is not None
    return bias


def tiny_starts(config: TwmConfig) -> StartBank:
    """Contexts of noise, so that no two are alike."""
    generator = torch.Generator().manual_seed(1)

    def contexts(count: int, steps: int) -> Contexts:
        frames = (count, config.observation.stack - 1 + steps, 64, 64)
        return (
            torch.randint(256, frames, generator=generator, dtype=torch.uint8),
            torch.randint(config.num_actions, (count, steps - 1), generator=generator),
            torch.randint(-1, 2, (count, steps - 1), generator=generator).float(),
        )

    both: dict[StartKind, Contexts] = {
        "initial": contexts(_INITIAL, 1),
        "anywhere": contexts(_ANYWHERE, _ANYWHERE_STEPS),
    }
    return StartBank.from_frames(both, config.observation.stack)


def tiny_snapshot_config(model: TwmConfig, id: str = "LearnedTiny-v0") -> SnapshotConfig:
    """What a snapshot of a small model says of itself."""
    environment = EnvironmentConfig(
        kind="atari",
        name="Pong",
        options={},
        num_actions=model.num_actions,
        action_meanings=("NOOP", "UP", "DOWN"),
        max_episode_steps=1000,
        reward="none, the weights are random",
        packages={},
    )
    return SnapshotConfig(id, "twm", model, environment, {"made": "for tests"})


def write_tiny_snapshot(folder: Path, kind: TinyKind, id: str = "LearnedTiny-v0") -> Path:
    """Write a snapshot of a small model and return its folder."""
    model = tiny_model(kind)
    write_snapshot(folder, tiny_snapshot_config(model.config, id), model, tiny_starts(model.config), {})
    return folder
