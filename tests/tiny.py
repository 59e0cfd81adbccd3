"""World models small enough for tests, with random weights, and the snapshots they travel in.

The weights are scaled so that pictures have contrast, actions matter, and episodes of games end now and then: a test that
compares two rollouts can then tell them apart.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import nn

from learned_envs.awm.config import AwmConfig
from learned_envs.awm.config import faithful as faithful_awm
from learned_envs.awm.transformer import Transformer
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.environment import AtariConfig, SystemConfig
from learned_envs.envs.real.systems import System
from learned_envs.snapshot import SnapshotConfig, write_snapshot
from learned_envs.starts import Contexts, StartBank, StartKind
from learned_envs.twm.config import LatentConfig, ObservationConfig, TwmConfig, compact, faithful
from learned_envs.twm.observation_model import GridObservationModel
from learned_envs.twm.world_model import TransformerWorldModel

__all__ = [
    "CONTROLS",
    "CONTROL_HORIZON",
    "KINDS",
    "NUM_ACTIONS",
    "Control",
    "TinyKind",
    "last_bias",
    "last_layer",
    "tiny_config",
    "tiny_control_config",
    "tiny_control_model",
    "tiny_control_starts",
    "tiny_model",
    "tiny_snapshot_config",
    "tiny_starts",
    "write_tiny_snapshot",
]

TinyKind = Literal["faithful", "compact"]
KINDS: tuple[TinyKind, ...] = get_args(TinyKind)
NUM_ACTIONS = 3
_INITIAL, _ANYWHERE, _ANYWHERE_STEPS = 5, 6, 4  # contexts of each kind, and observations in those of the second
CONTROL_HORIZON = 30  # steps of an episode
_WINDOW = 5  # steps after which a model of a control problem re-anchors


@dataclass(frozen=True)
class Control:
    """A small model of a control problem.

    Args:
        system: Name of the problem.
        options: What is not as usual about it, beside the horizon.
        sizes: What is not as in the released form of the model.
    """

    system: str
    options: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def environment(self) -> SystemConfig:
        """What was learned."""
        return SystemConfig("system", self.system, {"horizon": CONTROL_HORIZON, **self.options}, "its own", {})


CONTROLS: dict[str, Control] = {
    "markov-mlp": Control("BearPopulations", sizes={"feedback_gradient": 0.9}),
    "hwm-rnn": Control("HIVTreatment", sizes={"reward": "learned"}),
    "hwm-lstm": Control("CopyTask", {"target_deviation": 0.5, "show_phase": True}, {"clock": False}),
    "hwm-transformer": Control("Harvest", sizes={"reward": "learned"}),
    "awm-rnn": Control("OneBounce", sizes={"reward": "learned"}),
    "awm-lstm": Control("InvasivePlant", {"distractors": 1}, {"reward": "learned", "prediction": "delta"}),
    "awm-transformer": Control("CancerTreatment"),
}
"""A model of each family and backbone; between them they have known and learned rewards, noise, and every kind of bounds."""


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
            if dynamics.local_head is not None:
                last_layer(dynamics.local_head.layers).weight.mul_(3)
            last_bias(dynamics.discount_head).fill_(3.5)
    return model.eval()


def last_layer(layers: nn.Sequential) -> nn.Linear | nn.Conv2d | nn.ConvTranspose2d:
    """The output layer of a stack."""
    layer = layers[-1]
    assert isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d)
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


def tiny_control_config(kind: str) -> AwmConfig:
    """The released form of a family and backbone in a size for tests."""
    control = CONTROLS[kind]
    family, backbone = kind.split("-")
    system, sizes = control.environment.system, dict(control.sizes)
    clock = sizes.get("clock", True)
    state_dim = len(system.observation_bounds) - clock
    config = faithful_awm(family, state_dim, system.action_dim, _WINDOW, backbone)  # type: ignore[arg-type]
    return replace(config, width=12, hidden=(16,), reward_hidden=(8,), **sizes)


def tiny_control_model(kind: str, seed: int = 0) -> ContinuousWorldModel:
    """A model of a control problem with random weights, in evaluation mode, and in the units of real episodes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        system = CONTROLS[kind].environment.system
        model = ContinuousWorldModel(tiny_control_config(kind))
        if model.config.reward == "known":
            model.use_reward(system.reward)
        model.use_bounds(system.observation_bounds)
        observations, _, rewards = _play(system, 50)
        model.fit_normalization(observations, rewards)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, Transformer):  # its attention would be even, and forget the actions
                    for part in module.modules():
                        if isinstance(part, nn.Linear | nn.Embedding):
                            part.weight.mul_(20)
    return model.eval()


def tiny_control_starts(kind: str) -> StartBank:
    """Contexts of real episodes with random actions."""
    observations, actions, rewards = _play(CONTROLS[kind].environment.system, 2 * _ANYWHERE, seed=1)
    begins = torch.arange(2 * _ANYWHERE) + 1
    steps = begins.unsqueeze(1) + torch.arange(_ANYWHERE_STEPS)
    rows = torch.arange(2 * _ANYWHERE).unsqueeze(1)
    return StartBank.from_contexts(
        {
            "initial": (observations[:_INITIAL, :1], actions[:_INITIAL, :0], rewards[:_INITIAL, :0]),
            "anywhere": (observations[rows, steps], actions[rows, steps[:, :-1]], rewards[rows, steps[:, :-1]]),
        }
    )


def _play(system: System, episodes: int, seed: int = 0) -> Contexts:
    """Whole real episodes with random actions."""
    generator = torch.Generator().manual_seed(seed)
    actions = torch.rand(episodes, system.horizon, system.action_dim, generator=generator) * 2 - 1
    noise = torch.randn(episodes, system.horizon + 1, system.noise_size, generator=generator)
    states, rewards = system.rollout(actions, noise=noise)
    observations = [system.observe(state, step) for step, state in enumerate(states.unbind(1))]
    return torch.stack(observations, 1), actions, rewards


def tiny_snapshot_config(model: TwmConfig, id: str = "LearnedTiny-v0") -> SnapshotConfig:
    """What a snapshot of a small model of a game says of itself."""
    environment = AtariConfig(
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


def write_tiny_snapshot(folder: Path, kind: str, id: str = "LearnedTiny-v0") -> Path:
    """Write a snapshot of a small model, of a game or one of `CONTROLS`, and return its folder."""
    if kind in CONTROLS:
        model, starts = tiny_control_model(kind), tiny_control_starts(kind)
        config = SnapshotConfig(id, "awm", model.config, CONTROLS[kind].environment, {"made": "for tests"})
    else:
        model = tiny_model("faithful" if kind == "faithful" else "compact")
        starts, config = tiny_starts(model.config), tiny_snapshot_config(model.config, id)
    write_snapshot(folder, config, model, starts, {})
    return folder
