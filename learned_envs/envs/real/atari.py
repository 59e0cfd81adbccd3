"""Real Atari games as the world models see them.

Rules of the Atari 100k experiments (Robine et al., ICLR 2023, appendix): every action is held for four emulator frames, of
which the last two are combined by their maximum; frames are grayscale, 64x64, resized by area; four of them make an
observation. Rewards are the game's own, unclipped. No sticky actions.
"""

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, TimeLimit
from pydantic import ConfigDict

from learned_envs.envs.autoreset import parse_autoreset_mode

__all__ = ["FRAME_SIZE", "FRAME_SKIP", "FRAME_STACK", "MAX_EPISODE_STEPS", "AtariRules", "make_atari", "make_atari_vec"]

FRAME_SIZE = 64
FRAME_SKIP = 4
FRAME_STACK = 4
MAX_EPISODE_STEPS = 27_000  # 108,000 emulator frames, half an hour of play

_INSTALL = 'pip install "learned-envs[atari]"'


@dataclass(frozen=True)
class AtariRules:
    """Where episodes begin and end.

    Args:
        noop_max: An episode opens with 1 to ``noop_max`` emulator frames without action, drawn by its seed; 0 for none.
        fire: Whether games that have a FIRE button (as action 1) get it pressed, followed by action 2, when an episode
            begins, and once more after each lost life; many games wait for it.
        terminal_on_life_loss: Whether a lost life ends the episode. The game itself goes on with the next `reset`, until
            all lives are lost.
        repeat_action_probability: Probability that the emulator repeats the last action instead of the new one.

    Raises:
        ValueError: If a value is of another type, or lies outside its range.
    """

    noop_max: int = 30
    fire: bool = True
    terminal_on_life_loss: bool = False
    repeat_action_probability: float = 0.0

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # where a snapshot names them

    def __post_init__(self) -> None:
        for name in ("fire", "terminal_on_life_loss"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"{name} is {value!r}, expected True or False.")
        noops, sticky = self.noop_max, self.repeat_action_probability
        if not isinstance(noops, Integral) or isinstance(noops, bool) or noops < 0:
            raise ValueError(f"noop_max is {noops!r}, expected a whole number of at least 0.")
        if not isinstance(sticky, Real) or isinstance(sticky, bool) or not 0 <= sticky <= 1:
            raise ValueError(f"repeat_action_probability is {sticky!r}, expected a number in [0, 1].")


def make_atari(
    game: str, *, max_episode_steps: int = MAX_EPISODE_STEPS, render_mode: str | None = None, **rules: Any
) -> gym.Env:
    """Make one real game.

    Args:
        game: ALE name, such as ``"Pong"``.
        max_episode_steps: Steps after which an episode is truncated, four emulator frames each; at least 1.
        render_mode: As ALE has it: None, ``"rgb_array"`` or ``"human"``.
        **rules: Fields of `AtariRules`.

    Returns:
        An environment with observations (4, 64, 64), uint8, the newest frame last, and the game's minimal set of actions.

    Raises:
        gymnasium.error.DependencyNotInstalled: If ale-py or OpenCV is missing.
        gymnasium.error.NameNotFound: If ALE has no such game.
        TypeError: If a rule is unknown.
        ValueError: If ``max_episode_steps`` is below 1, or a rule is of another type or lies outside its range.
    """
    chosen = AtariRules(**rules)
    _check_limit(max_episode_steps)
    _rom(game)
    env: gym.Env = gym.make(
        f"ALE/{game}-v5",
        frameskip=1,
        repeat_action_probability=chosen.repeat_action_probability,
        max_num_frames_per_episode=0,  # TimeLimit below counts steps
        render_mode=render_mode,
        disable_env_checker=True,
    )
    has_fire = _needs_fire(env)
    if chosen.fire and has_fire:
        env = _FireOnReset(env)
    env = AtariPreprocessing(env, noop_max=chosen.noop_max, frame_skip=FRAME_SKIP, screen_size=FRAME_SIZE)
    if chosen.fire and has_fire:
        env = _FireOnLifeLoss(env)
    if chosen.terminal_on_life_loss:
        env = _EndOnLifeLoss(env)
    return TimeLimit(FrameStackObservation(env, FRAME_STACK), max_episode_steps)


def make_atari_vec(
    game: str,
    num_envs: int,
    *,
    max_episode_steps: int = MAX_EPISODE_STEPS,
    autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    render_mode: str | None = None,
    **rules: Any,
) -> VectorEnv:
    """Make many real games, stepped together.

    ALE's own vector environment, in C++, runs them wherever it keeps the rules; elsewhere Gymnasium's `SyncVectorEnv` steps
    the environments of `make_atari`, at about half the speed. ALE's fits games without lives, or without `fire` and
    ``terminal_on_life_loss``, in the autoreset modes NEXT_STEP and SAME_STEP, unrendered.

    Args:
        game: ALE name, such as ``"Pong"``.
        num_envs: Number of games; at least 1.
        max_episode_steps: Steps after which an episode is truncated, four emulator frames each; at least 1.
        autoreset_mode: What happens at the end of an episode.
        render_mode: As ALE has it.
        **rules: Fields of `AtariRules`.

    Raises:
        gymnasium.error.DependencyNotInstalled: If ale-py or OpenCV is missing.
        gymnasium.error.NameNotFound: If ALE has no such game.
        TypeError: If a rule is unknown.
        ValueError: If ``num_envs`` or ``max_episode_steps`` is below 1, or a rule is of another type or lies outside its range.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}, but there must be at least 1 environment.")
    chosen, mode = AtariRules(**rules), parse_autoreset_mode(autoreset_mode)
    _check_limit(max_episode_steps)
    rom = _rom(game)
    if render_mode is None and mode is not AutoresetMode.DISABLED and _native_keeps(chosen, game):
        from learned_envs.envs.real.atari_vector import NativeAtariVectorEnv

        return NativeAtariVectorEnv(rom, num_envs, chosen, max_episode_steps, mode)

    def make() -> gym.Env:
        return make_atari(game, max_episode_steps=max_episode_steps, render_mode=render_mode, **vars(chosen))

    return SyncVectorEnv([make] * num_envs, autoreset_mode=mode)


def _check_limit(steps: Any) -> None:
    if not isinstance(steps, int) or steps < 1:  # as Gymnasium's TimeLimit takes it
        raise ValueError(f"max_episode_steps is {steps!r}, expected a whole number of at least 1.")


class _FireOnReset(gym.Wrapper):
    """Presses FIRE and action 2 for one emulator frame each when a game begins."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        for action in (1, 2):
            observation, _, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                observation, info = self.env.reset(options=options)
        return observation, info


class _FireOnLifeLoss(gym.Wrapper):
    """Presses FIRE for one step after a lost life, so that the game goes on."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self._lives = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        self._lives = info["lives"]
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        if info["lives"] < self._lives and not (terminated or truncated):
            observation, gained, terminated, truncated, info = self.env.step(1)
            reward = float(reward) + float(gained)
        self._lives = info["lives"]
        return observation, reward, terminated, truncated, info


class _EndOnLifeLoss(gym.Wrapper):
    """Ends the episode with each life; the next one goes on in the same game, until all lives are lost."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self._lives = 0
        self._game_over = True

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self._go_on(seed, options)
        self._lives, self._game_over = info["lives"], False
        return observation, info

    def _go_on(self, seed: int | None, options: dict[str, Any] | None) -> tuple[Any, dict[str, Any]]:
        if not self._game_over and seed is None:
            observation, _, terminated, truncated, info = self.env.step(0)
            if not (terminated or truncated):
                return observation, info
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._game_over = terminated or truncated
        life_lost, self._lives = info["lives"] < self._lives, info["lives"]
        return observation, reward, terminated or life_lost, truncated, info


def _needs_fire(env: gym.Env) -> bool:
    meanings = env.unwrapped.get_action_meanings()  # type: ignore[attr-defined]
    return len(meanings) > 2 and meanings[1] == "FIRE"


def _native_keeps(rules: AtariRules, game: str) -> bool:
    """Whether ALE's vector environment keeps these rules: it knows nothing of FIRE and resets after a lost life.

    A game without lives has none to lose, and does not wait for FIRE.
    """
    if not (rules.fire or rules.terminal_on_life_loss):
        return True
    env = gym.make(f"ALE/{game}-v5", disable_env_checker=True)
    try:
        _, info = env.reset(seed=0)
        return info["lives"] == 0
    finally:
        env.close()


def _rom(game: str) -> str:
    """ALE's name of the game's file, or a clear error."""
    try:
        import ale_py
        import cv2  # noqa: F401
    except ImportError as error:
        raise gym.error.DependencyNotInstalled(
            f"The real game {game!r} needs {error.name}, which is not installed. Run: {_INSTALL}"
        ) from error
    gym.register_envs(ale_py)
    try:
        return gym.spec(f"ALE/{game}-v5").kwargs["game"]
    except gym.error.Error as error:  # unregistered, or no well-formed name at all
        raise gym.error.NameNotFound(f"ALE has no game {game!r}. {_nearest(game)}") from error


def _nearest(game: str) -> str:
    import difflib

    names = [spec.name for spec in gym.registry.values() if spec.namespace == "ALE"]
    near = difflib.get_close_matches(game, np.unique(names).tolist(), n=3, cutoff=0.4)
    return f"Did you mean {' or '.join(near)}?" if near else 'Names are written like "Pong" or "MsPacman".'
