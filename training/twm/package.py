"""Turn a trained run into a snapshot: what it learned from, its rewards, recorded starts, and its agent."""

from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learned_envs.catalog import CATALOG
from learned_envs.environment import AtariConfig
from learned_envs.envs.real.atari import make_atari
from learned_envs.policy import Policy, PolicyConfig
from learned_envs.starts import Contexts, StartBank, StartKind
from learned_envs.twm.world_model import TransformerWorldModel
from training.agents.agent import Agent
from training.experience import Experience, ExperienceError

__all__ = ["describe_game", "pack_agent", "pack_model", "reward_classes", "start_bank"]

_MOST_REWARD_CLASSES = 32


def reward_classes(rewards: NDArray[np.floating]) -> tuple[float, ...]:
    """The rewards that a model is to tell apart: those that were seen, and none.

    Args:
        rewards: What was seen, shape (steps,).

    Returns:
        Distinct rewards, ascending; empty if they are too many, or all the same: then a model predicts their mean instead.
    """
    values = np.unique(np.append(rewards, 0.0))
    return tuple(values.tolist()) if 1 < len(values) <= _MOST_REWARD_CLASSES else ()


def describe_game(game: str, reward_values: tuple[float, ...], **rules: Any) -> AtariConfig:
    """The real environment that a model was learned from.

    Args:
        game: ALE name.
        reward_values: Rewards that the model tells apart; empty if it predicts a mean.
        **rules: Fields of `learned_envs.envs.real.atari.AtariRules` that are not as usual.
    """
    env = make_atari(game)
    meanings = tuple(env.unwrapped.get_action_meanings())  # type: ignore[attr-defined]
    env.close()
    known = ", ".join(f"{value:g}" for value in reward_values)
    return AtariConfig(
        kind="atari",
        name=game,
        options=rules,
        num_actions=len(meanings),
        action_meanings=meanings,
        max_episode_steps=CATALOG[f"Learned{game}-v0"].max_episode_steps,
        reward=f"score of the game, to the nearest of {known}"
        if known
        else "tanh of the game's score, its predicted mean",
        packages={"ale-py": version("ale-py")},
    )


def start_bank(
    experience: Experience, stack: int, initial: int = 64, anywhere: int = 512, steps: int = 16
) -> StartBank:
    """Choose contexts from recorded experience.

    Episode beginnings are chosen evenly over the recording. Contexts from the middle are the likelier the later they were
    recorded: what agents did last is what the next one will meet, and scripted policies never came to.

    Args:
        experience: What was recorded.
        stack: Frames in an observation.
        initial: Most episode beginnings to keep, of one observation each.
        anywhere: Most contexts to keep from the middle of episodes.
        steps: Observations in those.

    Raises:
        ExperienceError: If no episode is long enough.
    """
    begins = experience.episode_starts
    begins = begins[np.linspace(0, len(begins) - 1, min(initial, len(begins))).astype(int)]
    ends = np.append(experience.episode_starts[1:], len(experience))
    inside = np.concatenate(
        [np.arange(first + stack - 1, end - steps) for first, end in zip(experience.episode_starts, ends, strict=True)]
    )
    if not len(inside):
        raise ExperienceError(f"No recorded episode has the {stack + steps} steps that a context needs. Collect more.")
    lateness = np.arange(1.0, len(inside) + 1)
    draws = np.random.default_rng(0)
    inside = draws.choice(inside, min(anywhere, len(inside)), replace=False, p=lateness / lateness.sum())
    contexts: dict[StartKind, Contexts] = {
        "initial": _contexts(experience, begins, 1, stack),
        "anywhere": _contexts(experience, np.sort(inside), steps, stack),
    }
    return StartBank.from_frames(contexts, stack)


def pack_agent(agent: Agent, model: TransformerWorldModel) -> Policy:
    """The policy of an agent that PPO trained, without its critic.

    Args:
        agent: It sees pixels.
        model: The world model that it comes with.
    """
    policy = Policy(model, PolicyConfig((agent.config.hidden,), channels=agent.config.channels))
    weights = agent.state_dict()
    policy.actor.load_state_dict({name: weights[name] for name in policy.actor.state_dict()})
    return policy


def pack_model(model: TransformerWorldModel, temperature: float) -> TransformerWorldModel:
    """What is written of a model, to be measured: it draws at a temperature, with weights in half precision.

    Args:
        model: What was trained.
        temperature: Of its latents.

    Returns:
        A copy on the CPU, in evaluation mode.
    """
    packed = TransformerWorldModel(replace(model.config, temperature=temperature)).eval()
    packed.load_state_dict({name: tensor.half().float().cpu() for name, tensor in model.state_dict().items()})
    return packed


def _contexts(experience: Experience, starts: np.ndarray, steps: int, stack: int) -> Contexts:
    """Single frames, actions and rewards of contexts that open at the given steps."""
    offsets = np.arange(1 - stack, steps)
    oldest = experience.frame_index[experience.first[starts]]  # a stack is padded with the episode's first frame
    rows = np.maximum(experience.frame_index[starts][:, None] + offsets, oldest[:, None])
    between = starts[:, None] + np.arange(steps - 1)
    return (
        torch.from_numpy(experience.frames[rows]),
        torch.from_numpy(experience.actions[between]),
        torch.from_numpy(experience.rewards[between]),
    )
