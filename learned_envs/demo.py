"""A first look at a trained model: many imagined episodes at once, their speed, and a film or curves beside the real ones."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from learned_envs.curves import write_curves
from learned_envs.environment import AtariConfig
from learned_envs.envs.real.twin import find_twin, make_real_vec
from learned_envs.envs.single import LearnedEnv
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.fidelity.pong import detect
from learned_envs.pretrained import find_snapshot
from learned_envs.video import write_contact_sheet, write_gif

__all__ = ["Player", "choose_player", "film", "measure_speed", "run_demo"]

_CONTEXT_STEPS = 24  # real observations handed to the learned game
_FILM_STEPS = 90  # six seconds


def run_demo(
    model: str,
    num_envs: int,
    steps: int,
    device: str,
    out: Path,
    seed: int,
    console: Console,
    revision: str | None = None,
) -> None:
    """Measure speed, film or draw, and print what was measured and where the pictures are.

    Without the emulator the learned game is measured and filmed alone. Control problems have no pictures: of them, an episode is
    drawn as curves.

    Args:
        model: Id, folder of a snapshot, or repository on the Hub.
        num_envs: Games played in parallel while the speed is measured; at least 1.
        steps: Steps of each of these games; at least 1.
        device: Where the model runs.
        out: Folder for ``film.gif`` and ``contact_sheet.png``, or ``curves.png``.
        seed: Seed of starts, actions and imagination; at least 0.
        console: Where to print.
        revision: Branch, tag or commit of a model on the Hub.

    Raises:
        ValueError: If an argument lies outside its range.
        MissingModelError: If the model is not to be had.
        SnapshotError: If the model's files are damaged.
        OSError: If the files cannot be written.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}, but there must be at least 1 step.")
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected a whole number of at least 0.")
    folder = find_snapshot(model, revision)  # once: a branch of the Hub may move
    learned = LearnedVectorEnv(folder, num_envs, device=device)
    config = learned.pretrained.config
    out.mkdir(parents=True, exist_ok=True)
    games = bool(learned.metadata["render_modes"])
    console.print(
        f"{num_envs} {'games' if games else 'episodes'} of {config.id} in parallel, {steps:,} random steps each, on {device}",
        soft_wrap=True,
    )
    imagined = _measure(learned, steps, seed, "imagined", console)
    alone = LearnedEnv(folder, device=device)
    real, reason = find_twin(folder, alone)
    if real is None:
        console.print(f"Going on without the real game. {reason}", soft_wrap=True)
        emulated = None
    else:
        emulated = _measure(make_real_vec(folder, num_envs), steps, seed, "emulated" if games else "real", console)
    _print_speeds(imagined, emulated, games, console)
    if not games:
        assert real is not None  # its equations came with the package
        _draw_episode(alone, real, seed, out / "curves.png", console)
        return
    filmed_games = film(alone, real, choose_player(config.environment, seed), seed)
    paths = out / "film.gif", out / "contact_sheet.png"
    write_gif(paths[0], filmed_games, fps=LearnedEnv.metadata["render_fps"])
    write_contact_sheet(paths[1], filmed_games)
    filmed = len(filmed_games["learned"]) - 1
    early = "" if filmed == _FILM_STEPS else ", until a game ended"
    console.print(f"Filmed {' and '.join(filmed_games)} for {filmed} steps{early}:")
    for path in paths:
        console.print(f"  {path}", soft_wrap=True)


def measure_speed(env: VectorEnv, steps: int, seed: int = 0, advance: Callable[[], Any] = lambda: None) -> float:
    """Play random actions and measure how fast the environments are, observations delivered as NumPy arrays.

    Args:
        env: The environments.
        steps: Steps of each; at least 1.
        seed: Seed of environments and actions.
        advance: Called after each step.

    Returns:
        Steps per second, of all environments together.
    """
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    env.step(_random_actions(env, rng))  # the first step prepares what the others use again
    begin = time.perf_counter()
    for _ in range(steps):
        env.step(_random_actions(env, rng))
        advance()
    return env.num_envs * steps / (time.perf_counter() - begin)


def _random_actions(env: VectorEnv, rng: np.random.Generator) -> NDArray[Any]:
    """A random action for each environment."""
    space = env.single_action_space
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(int(space.n), size=env.num_envs)
    assert isinstance(space, gym.spaces.Box)
    return rng.uniform(space.low, space.high, (env.num_envs, *space.shape)).astype(np.float32)


class Player(Protocol):
    """Chooses actions for the film."""

    def act(self, observation: NDArray[np.uint8]) -> int:
        """Choose an action: index into the game's action set."""
        ...

    def sees_play(self, observation: NDArray[np.uint8]) -> bool:
        """Whether this is a moment worth filming from."""
        ...


def film(learned: gym.Env, real: gym.Env | None, player: Player, seed: int = 0) -> dict[str, NDArray[np.uint8]]:
    """Play the real and the learned game from the same moment with the same actions.

    The player looks at the real game only. The learned game is given some real steps, and from then on nothing but the
    player's actions. The film ends early where one of the games ends.

    Args:
        learned: The learned game.
        real: The real game; None films the learned one alone, from one of its own starts.
        player: Who plays.
        seed: Seed of the games.

    Returns:
        Observations of each game by its name, ``"real"`` first, uint8, shape (steps + 1, *observation shape).
    """
    games: dict[str, gym.Env] = {}
    seen: dict[str, list[NDArray[np.uint8]]] = {}
    context = None
    if real is not None:
        context = _play_context(real, player, seed)
        games["real"], seen["real"] = real, [context["observations"][-1]]
    first, _ = learned.reset(seed=seed, options=context)
    games["learned"], seen["learned"] = learned, [first]
    watched = next(iter(seen.values()))
    over = False
    while not over and len(watched) <= _FILM_STEPS:
        action = player.act(watched[-1])
        for name, game in games.items():
            observation, _, terminated, truncated, _ = game.step(action)
            seen[name].append(observation)
            over |= terminated or truncated
    return {name: np.stack(observations) for name, observations in seen.items()}


def choose_player(environment: AtariConfig, seed: int = 0) -> Player:
    """A simple player for a game: one that follows the ball in Pong, elsewhere one that holds random actions for a while.

    Args:
        environment: The real environment.
        seed: Seed of the random actions.
    """
    meanings = environment.action_meanings
    if environment.name == "Pong" and {"RIGHT", "LEFT", "NOOP"} <= set(meanings):
        return _BallFollower(*map(meanings.index, ("RIGHT", "LEFT", "NOOP")))  # ALE's words for up and down
    return _Wanderer(environment.num_actions, seed)


@dataclass
class _BallFollower:
    """Plays Pong: moves the paddle to the height of the ball."""

    up: int
    down: int
    stay: int

    def act(self, observation: NDArray[np.uint8]) -> int:
        scene = detect(observation[-1:])
        below = float(scene.ball[0, 0] - scene.own_paddle[0])
        if np.isnan(below) or abs(below) < 3:  # half a paddle, in pixels
            return self.stay
        return self.down if below > 0 else self.up

    def sees_play(self, observation: NDArray[np.uint8]) -> bool:
        return not np.isnan(detect(observation).ball).any()


class _Wanderer:
    """Plays any game: holds a random action for some steps."""

    def __init__(self, num_actions: int, seed: int) -> None:
        self._num_actions = num_actions
        self._rng = np.random.default_rng(seed)
        self._action = 0

    def act(self, observation: NDArray[np.uint8]) -> int:
        if self._rng.random() < 0.2:  # held for five steps on average
            self._action = int(self._rng.integers(self._num_actions))
        return self._action

    def sees_play(self, observation: NDArray[np.uint8]) -> bool:
        return True


def _draw_episode(learned: gym.Env, real: gym.Env, seed: int, path: Path, console: Console) -> None:
    """Play one episode of the real and of the learned system with the same actions, and draw both."""
    rng, space = np.random.default_rng(seed), real.action_space
    assert isinstance(space, gym.spaces.Box)
    first, _ = real.reset(seed=seed)
    learned.reset(seed=seed, options={"observations": first[None]})
    seen: dict[str, list[NDArray[Any]]] = {"real": [first], "learned": [first]}
    returns = dict.fromkeys(seen, 0.0)
    action, over = rng.uniform(space.low, space.high).astype(np.float32), False
    while not over:
        if rng.random() < 0.1:  # held for ten steps on average
            action = rng.uniform(space.low, space.high).astype(np.float32)
        for name, env in (("real", real), ("learned", learned)):
            observation, reward, terminated, truncated, _ = env.step(action)
            seen[name].append(observation)
            returns[name] += float(reward)
            over |= terminated or truncated
    curves = {name: np.stack(observations) for name, observations in seen.items()}
    last = curves["real"].shape[1] - 1  # the number of the step
    write_curves(path, {f"state {n}": {name: all[:, n] for name, all in curves.items()} for n in range(last)})
    steps = len(curves["real"]) - 1
    console.print(f"Drew an episode of {steps} steps with the same random actions:")
    console.print(f"  return {returns['real']:.4g} in the real system, {returns['learned']:.4g} in the learned one")
    console.print(f"  {path}", soft_wrap=True)


def _play_context(real: gym.Env, player: Player, seed: int) -> dict[str, Any]:
    """Play the real game until there are enough steps and play is on; the newest of them are the context."""
    observation, _ = real.reset(seed=seed)
    observations, actions, rewards = [observation], [], []
    while len(observations) < _CONTEXT_STEPS or not player.sees_play(observation):
        action = player.act(observation)
        observation, reward, terminated, truncated, _ = real.step(action)
        if terminated or truncated:
            observation, _ = real.reset()
            observations, actions, rewards = [observation], [], []
            continue
        observations.append(observation)
        actions.append(action)
        rewards.append(float(reward))
    between = slice(1 - _CONTEXT_STEPS, None)
    return {
        "observations": np.stack(observations[-_CONTEXT_STEPS:]),
        "actions": np.array(actions[between]),
        "rewards": np.array(rewards[between], np.float32),
    }


def _measure(env: VectorEnv, steps: int, seed: int, name: str, console: Console) -> float:
    """Measure with a bar that tells how long it will take; the environments are closed."""
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"{name:>8}", total=steps)
        speed = measure_speed(env, steps, seed, lambda: progress.advance(task))
    env.close()
    return speed


def _print_speeds(imagined: float, emulated: float | None, games: bool, console: Console) -> None:
    real = "emulator" if games else "real equations"
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_row("imagined, pixels decoded" if games else "imagined", f"{imagined:,.0f} steps/s")
    if emulated is not None:
        table.add_row(real, f"{emulated:,.0f} steps/s")
        table.add_row(f"imagined / {real}", f"{imagined / emulated:.3g}")
    console.print(table)
