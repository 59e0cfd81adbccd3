"""What a run of Atari 100k does: the presets, the ablations of the paper, and the games."""

from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Literal, get_args

import numpy as np

from learned_envs.catalog import CATALOG
from learned_envs.twm.config import TwmConfig, compact, faithful
from training.agents.actor_critic import ActorCriticTraining
from training.agents.compact_world import CompactTraining
from training.agents.paper_world import PaperTraining
from training.loop import RunError
from training.ranges import check_ranges
from training.twm.package import reward_classes

__all__ = ["GAMES", "Ablation", "Atari100kConfig", "Preset", "ablated", "game_names", "in_float32", "preset", "reduced"]

GAMES = tuple(entry.real[1] for entry in CATALOG.values() if entry.real[0] == "atari")
Preset = Literal["faithful", "compact"]
Ablation = Literal[
    "no-reward-tokens", "uniform-sampling", "short-memory", "plain-entropy", "policy-on-features", "no-consistency"
]


@dataclass(frozen=True)
class Atari100kConfig:
    """A whole run. The defaults are those of the paper.

    Args:
        game: ALE name of the game.
        seed: Seed of everything.
        preset: ``"faithful"``, the paper's model and schedule, or ``"compact"``, ours for two CPU cores.
        steps: Interactions in all, four emulator frames each.
        prefill: Interactions with random actions, before any training; part of ``steps``.
        updates: Updates of world model and agent, spread evenly over the other interactions; ``compact.online`` takes as many.
        history: Steps that the transformer looks back on before the current one; None for the preset's.
        reward_tokens: Whether the transformer is told rewards.
        paper: Schedule of the faithful world model.
        compact: Schedule of the compact one.
        agent: How the agent learns.
        evaluate_every: Interactions between two evaluations; the first comes right after pretraining.
        evaluation_games: Games of each.
        final_games: Games of the last one, whose mean is the score of the run.

    Raises:
        ValueError: If the numbers of steps make no run.
    """

    game: str
    seed: int = 0
    preset: Preset = "faithful"
    steps: int = 100_000
    prefill: int = 5_000
    updates: int = 125_000
    history: int | None = None
    reward_tokens: bool = True
    paper: PaperTraining = field(default_factory=PaperTraining)
    compact: CompactTraining = field(default_factory=CompactTraining)
    agent: ActorCriticTraining = field(default_factory=ActorCriticTraining)
    evaluate_every: int = 5_000
    evaluation_games: int = 10
    final_games: int = 100

    def __post_init__(self) -> None:
        if not 0 < self.prefill < self.steps:
            raise ValueError(f"prefill is {self.prefill}, but must lie between 1 and steps - 1, {self.steps - 1}.")
        check_ranges(self, counts=("updates", "evaluate_every", "evaluation_games", "final_games"))
        online = replace(self.compact.online, updates=self.updates)
        object.__setattr__(self, "compact", replace(self.compact, online=online))

    def model(self, num_actions: int, rewards: np.ndarray) -> TwmConfig:
        """Sizes of the world model, for a game with so many actions that gave such rewards in random play."""
        if self.preset == "faithful":
            config = faithful(num_actions)
        else:
            config = compact(num_actions, reward_classes(np.append(rewards, [-1.0, 1.0])))
        context = config.context if self.history is None else self.history + 1
        return replace(config, context=context, reward_tokens=self.reward_tokens)

    def interactions_before(self, update: int) -> int:
        """Interactions that precede an update."""
        return self.prefill + -(-(self.steps - self.prefill) * (update + 1) // self.updates)


def preset(name: Preset, game: str, seed: int = 0) -> Atari100kConfig:
    """A run as it is meant to be.

    Args:
        name: ``"faithful"`` or ``"compact"``.
        game: ALE name of the game.
        seed: Seed of everything.
    """
    if name == "faithful":
        return Atari100kConfig(game, seed)
    agent = ActorCriticTraining(
        starts=128,
        hidden=(256, 256),
        actor_learning_rate=3e-4,
        critic_learning_rate=3e-4,
        entropy_weight=0.02,
        entropy_threshold=1.0,
        normalize=True,
    )
    return Atari100kConfig(game, seed, "compact", updates=9_500, agent=agent)


def ablated(config: Atari100kConfig, ablations: tuple[Ablation, ...]) -> Atari100kConfig:
    """A run without parts of the method (Robine et al., ICLR 2023, section 3.3).

    Args:
        config: A faithful run.
        ablations: Which parts: ``"no-reward-tokens"``, reward tokens say nothing; ``"uniform-sampling"`` of sequences;
            ``"short-memory"``, the transformer looks back on 4 steps instead of 16; ``"plain-entropy"``, an entropy bonus
            without threshold; ``"policy-on-features"``, the agent also sees the transformer's feature;
            ``"no-consistency"``, the encoder is not drawn towards what was predicted.

    Raises:
        RunError: If the preset is not faithful, or an ablation is unknown.
    """
    if ablations and config.preset != "faithful":
        raise RunError(
            f"Ablations are of the paper's method, but the preset is {config.preset!r}. Use --preset faithful."
        )
    for name in ablations:
        paper, agent = config.paper, config.agent
        match name:
            case "no-reward-tokens":
                config = replace(config, reward_tokens=False)
            case "uniform-sampling":
                config = replace(config, paper=replace(paper, balance=None))
            case "short-memory":
                config = replace(config, history=4)
            case "plain-entropy":
                config = replace(config, agent=replace(agent, entropy_threshold=1.0))
            case "policy-on-features":
                config = replace(config, agent=replace(agent, on_features=True))
            case "no-consistency":
                joint = replace(paper.joint, consistency_weight=0.0)
                config = replace(config, paper=replace(paper, joint=joint))
            case _:
                raise RunError(f"There is no ablation {name!r}. Known: {', '.join(get_args(Ablation))}.")
    return config


def reduced(config: Atari100kConfig, interactions: int | None, updates: int | None) -> Atari100kConfig:
    """A run with another number of interactions or updates, where one is given.

    Raises:
        ValueError: If that leaves no interaction after those with random actions.
    """
    if interactions is not None and interactions <= config.prefill:
        raise ValueError(
            f"interactions is {interactions}, but must be above {config.prefill}: so many are of random actions, before training."
        )
    return replace(
        config,
        steps=config.steps if interactions is None else interactions,
        updates=config.updates if updates is None else updates,
    )


def in_float32(config: Atari100kConfig) -> Atari100kConfig:
    """A run that computes in float32 throughout."""
    paper = replace(config.paper, joint=replace(config.paper.joint, bfloat16=False))
    stages = {
        name: replace(getattr(config.compact, name), bfloat16=False) for name in ("observation", "dynamics", "online")
    }
    return replace(config, paper=paper, compact=replace(config.compact, bfloat16=False, **stages))


def game_names(given: str) -> tuple[str, ...]:
    """The games that a comma-separated list names; ``"all"`` names the 26 of Atari 100k.

    Raises:
        RunError: If there is no such game; the message suggests the nearest names.
    """
    if given == "all":
        return GAMES
    names = tuple(name.strip() for name in given.split(","))
    for name in names:
        if name not in GAMES:
            by_lower = {game.lower(): game for game in GAMES}
            near = [by_lower[match] for match in get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)]
            hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: all, {', '.join(GAMES)}."
            raise RunError(f"Atari 100k has no game {name!r}. {hint}")
    return names
