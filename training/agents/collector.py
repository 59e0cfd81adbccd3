"""Playing the real game: recording steps to learn from, and whole games to be judged by.

Follows the rules of Robine et al. (ICLR 2023, appendix): to learn from, games open with up to 30 steps without action, and a
lost life ends an episode; to be judged by, games open alike and are played to their end. FIRE is pressed where a game waits for
it. What that and the opening take is not counted as interaction, but is told.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from learned_envs.envs.real.atari import FRAME_SKIP, make_atari
from learned_envs.policy import Policy
from training.agents.replay import AgentReplay
from training.loop import RunError, update_seed

__all__ = ["Collector", "evaluate"]


class Collector:
    """Plays one real game after the other and records them.

    The emulator is deterministic: a killed run plays the present game again from the recorded actions, and stands where it
    stood.

    Args:
        game: ALE name of the game.
        seed: Seed of the run.
        replay: Where steps are recorded.
    """

    def __init__(self, game: str, seed: int, replay: AgentReplay) -> None:
        self.game, self.seed, self.replay = game, seed, replay
        self.env: gym.Env = make_atari(game, terminal_on_life_loss=True)
        self.number = -1  # of the game that is being played
        self.first_step = 0  # of it
        self.score = 0.0
        self.frames = 0  # that the emulator has shown in finished games
        self.memory: Any = None  # of a policy that has one
        self.last_reward = 0.0

    def random_step(self) -> None:
        """Take a uniformly random action, drawn from torch's global generator."""
        self._begin()
        self._take(int(torch.randint(self.num_actions, ())))

    def step(self, policy: Policy) -> float | None:
        """Take an action of a policy, drawn by torch's global generator.

        Returns:
            The score of the game, if this was its last step.
        """
        self._begin()
        device = self.replay.device
        seen = torch.from_numpy(self.replay.observation()).unsqueeze(0).to(device)
        if self.memory is None:
            self.memory = policy.begin(1)
        reward = torch.tensor([self.last_reward], device=device)
        action, self.memory = policy.act(seen, torch.rand(1, device=device), self.memory, reward)
        return self._take(int(action))

    @property
    def num_actions(self) -> int:
        """Size of the game's action set."""
        return int(self.env.action_space.n)  # type: ignore[attr-defined]

    @property
    def uncounted_frames(self) -> int:
        """Emulator frames that openings and FIRE took in finished games, beyond the four of every step."""
        return self.frames - FRAME_SKIP * self.first_step if self.number >= 0 else 0

    def _begin(self) -> None:
        if self.number < 0:
            self._next_game()

    def _next_game(self) -> None:
        self.number += 1
        self.first_step, self.score = self.replay.size, 0.0
        observation, _ = self.env.reset(seed=self._game_seed())
        self._begin_episode(observation)

    def _game_seed(self) -> int:
        return update_seed(self.seed, "game", self.number) % 2**31

    def _begin_episode(self, observation: np.ndarray) -> None:
        self.replay.begin_episode(observation[-1])
        self.memory, self.last_reward = None, 0.0

    def _take(self, action: int) -> float | None:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self.replay.add(action, float(reward), bool(terminated), bool(truncated), observation[-1])
        self.score, self.last_reward = self.score + float(reward), float(reward)
        if not (terminated or truncated):
            return None
        if not self._over():
            observation, _ = self.env.reset()
            self._begin_episode(observation)
            return None
        score = self.score
        self.frames += info["episode_frame_number"]
        self._next_game()
        return score

    def _over(self) -> bool:
        return self.env.unwrapped.ale.game_over()  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {
            "number": self.number,
            "first_step": self.first_step,
            "score": self.score,
            "frames": self.frames,
            "last_reward": self.last_reward,
            "memory": None if self.memory is None else dict(self.memory.tensors()),
        }

    def load_state_dict(self, state: dict[str, Any], policy: Policy | None) -> None:
        """Go on from what `state_dict` returned, with the replay as it was then; ``policy`` is who will act.

        Raises:
            RunError: If the emulator does not repeat what was recorded.
        """
        for name in ("number", "first_step", "score", "frames", "last_reward"):
            setattr(self, name, state[name])
        self.memory = None if policy is None else _restored(policy.begin(1), state["memory"])
        if self.number < 0:
            return
        observation, _ = self.env.reset(seed=self._game_seed())
        for action, done in zip(self._played("actions"), self._played("done"), strict=True):
            observation, *_ = self.env.step(int(action))
            if done:
                observation, _ = self.env.reset()
        if not np.array_equal(observation, self.replay.observation()):
            raise RunError(
                f"The emulator does not repeat the recorded game {self.number} of {self.game}: it is another version than the "
                "run was started with. Install that one, or start in another folder."
            )

    def _played(self, name: str) -> np.ndarray:
        return self.replay.arrays[name][self.first_step : self.replay.size]


def _restored(fresh: Any, tensors: dict[str, Tensor] | None) -> Any:
    """A policy's memory from its tensors."""
    if fresh is None or tensors is None:
        return None
    names = iter([name for name, _ in fresh.tensors()])
    return fresh.map(lambda tensor: tensors[next(names)].to(tensor.device))


@torch.no_grad()
def evaluate(
    policy: Policy, game: str, episodes: int, seed: int, device: torch.device | str, progress: bool = False
) -> list[float]:
    """Play whole games side by side, each once, with actions drawn by the policy.

    All begin alike, and each is played to its end: quick ones do not count twice.

    Args:
        policy: The agent.
        game: ALE name of the game.
        episodes: Number of games.
        seed: Seed of the actions.
        device: Where the policy is.
        progress: Whether to show a progress bar.

    Returns:
        Raw score of each game.
    """
    envs = [make_atari(game, noop_max=0) for _ in range(episodes)]
    draws = torch.Generator().manual_seed(seed)
    observations = np.stack([env.reset(seed=index)[0] for index, env in enumerate(envs)])
    scores, playing = np.zeros(episodes), np.arange(episodes)
    memory, rewards = policy.begin(episodes), np.zeros(episodes, np.float32)
    with tqdm(total=episodes, desc="evaluation", unit="game", disable=not progress, leave=False) as bar:
        while len(playing):
            noise = torch.rand(episodes, generator=draws)[playing].to(device)
            seen = torch.from_numpy(observations).to(device)
            actions, memory = policy.act(seen, noise, memory, torch.from_numpy(rewards[playing]).to(device))
            ended = np.zeros(len(playing), bool)
            for place, (index, action) in enumerate(zip(playing, actions.tolist(), strict=True)):
                observations[place], reward, terminated, truncated, _ = envs[index].step(action)
                scores[index] += float(reward)
                rewards[index] = float(reward)
                ended[place] = terminated or truncated
            if ended.any():
                bar.update(int(ended.sum()))
                playing, observations = playing[~ended], observations[~ended]
                memory = None if memory is None else memory.take(torch.from_numpy(np.flatnonzero(~ended)).to(device))
    for env in envs:
        env.close()
    return scores.tolist()
