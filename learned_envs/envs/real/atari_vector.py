"""ALE's vector environment, in C++, with the rules of `learned_envs.envs.real.atari`. Needs ale-py."""

from typing import Any

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from learned_envs.envs.actions import parse_batch
from learned_envs.envs.real.atari import FRAME_SIZE, FRAME_SKIP, FRAME_STACK, AtariRules
from learned_envs.envs.seeds import parse_seeds

__all__ = ["NativeAtariVectorEnv"]


class NativeAtariVectorEnv(AtariVectorEnv):
    """Many real games of one kind.

    Where an episode begins, ALE leaves the older frames of the stack black; here they repeat the first frame, as they do in
    the single environment and as the world models were trained. Where one ends, ALE does not finish the newest frame: it may
    lack what the last two emulator frames show.

    Args:
        rom: ALE's name of the game's file, such as ``"ms_pacman"``.
        num_envs: Number of games.
        rules: Where episodes begin and end.
        max_episode_steps: Steps after which an episode is truncated.
        autoreset_mode: NEXT_STEP or SAME_STEP.
    """

    def __init__(
        self, rom: str, num_envs: int, rules: AtariRules, max_episode_steps: int, autoreset_mode: AutoresetMode
    ) -> None:
        super().__init__(
            rom,
            num_envs,
            max_num_frames_per_episode=max_episode_steps * FRAME_SKIP,
            repeat_action_probability=rules.repeat_action_probability,
            autoreset_mode=autoreset_mode,
            img_height=FRAME_SIZE,
            img_width=FRAME_SIZE,
            stack_num=FRAME_STACK,
            frameskip=FRAME_SKIP,
            noop_max=rules.noop_max,
            use_fire_reset=rules.fire,  # pressed only where no no-ops come first; games that wait for it do not come here
            reward_clipping=False,
        )
        # Per instance: ALE writes the mode into the class's dict.
        self.metadata = {**type(self).metadata, "autoreset_mode": autoreset_mode}
        self._age = np.zeros(num_envs, np.int64)  # steps since the episode began
        self._over = np.zeros(num_envs, bool)

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Begin new episodes, see `AtariVectorEnv.reset`.

        Seeds are those of other vector environments: an integer s for s, s + 1, ..., or a sequence with one for each game,
        also where a mask chooses a few of them.

        Raises:
            ValueError: If there are not as many seeds as games, or one is no whole number of at least 0.
        """
        chosen = (options or {}).get("reset_mask", np.ones(self.num_envs, bool))
        observations, infos = super().reset(seed=self._seeds(seed, chosen), options=options)
        self._age[chosen], self._over[chosen] = 0, False
        return self._fill(observations, self._age), infos

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Advance all games by one step, see `AtariVectorEnv.step`. Rewards are float64, as in other environments.

        Raises:
            ValueError: If there are not as many actions as games, or one is no integer of the action space.
        """
        # ALE waits for ever for a game that was given an action it does not know.
        parsed = parse_batch(actions, self.num_envs, self.single_action_space).cpu().numpy()
        observations, rewards, terminated, truncated, infos = super().step(parsed)
        over = terminated | truncated
        age = self._age + 1
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:
            self._age = np.where(self._over, 0, age)
        else:
            self._age = np.where(over, 0, age)
            if "final_obs" in infos:
                infos["final_obs"], infos["_final_obs"] = self._fill(infos["final_obs"], age), over.copy()
        self._over = over
        return self._fill(observations, self._age), rewards.astype(np.float64), terminated, truncated, infos

    def _seeds(self, seed: Any, chosen: np.ndarray) -> np.ndarray | None:
        """As ALE takes them: 31 bits for each game that is reset, or -1 for none."""
        if seed is None:
            return None
        seeds = parse_seeds(seed, self.num_envs)
        return np.array([-1 if value is None else value % 2**31 for value in seeds])[chosen]

    def _fill(self, observations: np.ndarray, age: np.ndarray) -> np.ndarray:
        """Repeat the first frame of young episodes in place of the black ones before it."""
        if not (age < FRAME_STACK - 1).any():
            return observations
        observations = observations.copy()
        for index in np.flatnonzero(age < FRAME_STACK - 1):
            first = FRAME_STACK - 1 - age[index]
            observations[index, :first] = observations[index, first]
        return observations
