"""The Stable-Baselines3 face: a `VecEnv` over the torch core, and one over the real twin.

    from learned_envs.sb3 import make_real_vec_env, make_vec_env

    agent = PPO("CnnPolicy", make_vec_env("LearnedPong-v0", n_envs=64))
    agent.learn(1_000_000, EvalCallback(make_real_vec_env("LearnedPong-v0", n_envs=8)))

Needs Stable-Baselines3.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import Tensor

from learned_envs.envs.batched import BatchedEnv, EnvState
from learned_envs.envs.real.twin import make_real_vec
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.starts import StartKind

try:
    from stable_baselines3.common.monitor import Monitor
    from stable_baselines3.common.vec_env import VecEnv
except ImportError as error:
    raise gym.error.DependencyNotInstalled(
        'learned_envs.sb3 needs Stable-Baselines3, which is not installed. Run: pip install "learned-envs[sb3]"'
    ) from error

__all__ = ["BatchedVecEnv", "make_real_vec_env", "make_vec_env"]


def make_vec_env(
    id: str | Path,
    n_envs: int = 1,
    *,
    device: str | torch.device = "cpu",
    seed: int | None = None,
    starts: StartKind = "initial",
    max_episode_steps: int | None = None,
    render_mode: str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
) -> "BatchedVecEnv":
    """Make many learned environments that are advanced together by one call of their model.

    Args:
        id: Id, folder or repository of the model.
        n_envs: Number of environments; at least 1.
        device: Where the model runs. Results come back in one transfer a step.
        seed: Seeds the environments with seed, seed + 1, ... at the first reset, as ``seed()`` does.
        starts: ``"initial"`` begins at real episode beginnings, ``"anywhere"`` in the middle of recorded experience.
        max_episode_steps: Steps after which an episode is truncated; None takes the limit of the model's real environment.
        render_mode: None, or ``"rgb_array"`` if observations are pictures.
        revision: Revision of a model on the Hub.
        local_files_only: Whether to do without the network.

    Raises:
        ValueError: If an argument is of a wrong type or outside its range, or the device is not available.
        MissingModelError: If the model is not to be had.
        SnapshotError: If the model's files are damaged.
    """
    _check_count(n_envs)
    _check_seed(seed)
    envs = LearnedVectorEnv(
        id,
        n_envs,
        device=device,
        output="torch",
        autoreset_mode=AutoresetMode.SAME_STEP,
        starts=starts,
        max_episode_steps=max_episode_steps,
        render_mode=render_mode,
        revision=revision,
        local_files_only=local_files_only,
    )
    return _seeded(BatchedVecEnv(envs), seed)


def make_real_vec_env(
    id: str | Path, n_envs: int = 1, *, seed: int | None = None, revision: str | None = None, **kwargs: Any
) -> "BatchedVecEnv":
    """Make many of the environments that a learned one was learned from.

    Args:
        id: Id of the learned environment, folder of a snapshot, or repository on the Hub.
        n_envs: Number of environments; at least 1.
        seed: Seeds the environments with seed, seed + 1, ... at the first reset, as ``seed()`` does.
        revision: Branch, tag or commit of a snapshot on the Hub.
        **kwargs: Passed on to the real environment, such as ``render_mode``; they override its standard rules.

    Raises:
        ValueError: If ``n_envs`` is no whole number of at least 1, or another autoreset mode is asked for.
        gymnasium.error.NameNotFound: If the id is unknown.
        MissingModelError: If there is no such folder, or the Hub does not have the snapshot.
        gymnasium.error.DependencyNotInstalled: If the real environment needs a package that is missing.
        SnapshotError: If the snapshot is damaged.
    """
    _check_count(n_envs)
    _check_seed(seed)
    if (mode := kwargs.pop("autoreset_mode", AutoresetMode.SAME_STEP)) not in (AutoresetMode.SAME_STEP, "SameStep"):
        raise ValueError(f"autoreset_mode is {mode!r}, but Stable-Baselines3 resets in the same step. Leave it out.")
    envs = make_real_vec(id, n_envs, revision=revision, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)
    return _seeded(BatchedVecEnv(envs), seed)


class BatchedVecEnv(VecEnv):
    """A Gymnasium vector environment as Stable-Baselines3 wants it.

    Every result is an array of its own, which the caller may write into. Of an episode that ended, ``infos[i]`` holds
    ``"terminal_observation"``, and ``"episode"`` with return ``"r"``, length ``"l"`` in steps played, and seconds ``"t"`` since
    the last `reset`; ``"TimeLimit.truncated"`` tells whether only the time was up. `VecMonitor` is not needed.

    One model plays all environments: ``set_attr`` sets an attribute for all of them at once, and of methods of a single
    one, ``env_method`` knows ``get_state``, ``set_state`` and ``render``. ``set_options`` takes real contexts to continue from,
    as `learned_envs.envs.single.LearnedEnv.reset` does.

    Args:
        envs: In SAME_STEP mode; of tensors on any device, or of NumPy arrays.

    Raises:
        ValueError: If they are in another autoreset mode.
    """

    def __init__(self, envs: VectorEnv) -> None:
        if (mode := envs.metadata.get("autoreset_mode")) is not AutoresetMode.SAME_STEP:
            raise ValueError(f"The environments have autoreset_mode={mode}, expected AutoresetMode.SAME_STEP.")
        self.envs = envs
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)
        self.metadata = {**self.metadata, "render_fps": envs.metadata.get("render_fps", 30)}
        self._actions: np.ndarray | None = None
        self._began = time.monotonic()
        # Of environments that do not count for themselves.
        self._returns, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, np.int64)

    def reset(self) -> np.ndarray:
        """Begin new episodes, with the seeds and options that wait for it; shape (n_envs, *shape)."""
        seeds: Any = None if all(seed is None for seed in self._seeds) else self._seeds
        try:
            observations, infos = self.envs.reset(seed=seeds, options=self._merged_options())
        finally:  # those that were refused would block every later reset
            self._reset_seeds()
            self._reset_options()
        self.reset_infos = _split(infos, self.num_envs)
        self._began = time.monotonic()
        self._returns[:], self._lengths[:] = 0, 0
        return _fetch([observations])[0]

    def step_async(self, actions: np.ndarray) -> None:
        """Take note of one action for each environment."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Advance every environment by one step.

        Returns:
            Observations, shape (n_envs, *shape), of the next episode where one ended; rewards, float32, and whether an episode
            ended, bool, shape (n_envs,); a dict for each environment.
        """
        observations, rewards, terminated, truncated, infos = self.envs.step(self._actions)
        results = [observations, rewards, terminated, truncated]
        if isinstance(self.envs, BatchedEnv):
            episode = infos["final_info"]["episode"]
            results += [infos["final_obs"], episode["r"], episode["l"]]
        observations, rewards, terminated, truncated, *ends = _fetch(results)
        dones = terminated | truncated
        last, returns, lengths = ends or (infos.get("final_obs", ()), *self._count(rewards, dones))
        ours = _split(infos, self.num_envs)
        for info, time_was_up in zip(ours, (truncated & ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = time_was_up
        seconds = round(time.monotonic() - self._began, 6)
        for index in np.flatnonzero(dones).tolist():
            ours[index]["terminal_observation"] = np.array(last[index])
            ours[index]["episode"] = {"r": float(returns[index]), "l": int(lengths[index]), "t": seconds}
        return observations, rewards.astype(np.float32, copy=False), dones, ours

    def _count(self, rewards: np.ndarray, dones: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns and lengths of the episodes after a step; those that ended begin anew."""
        returns, lengths = self._returns + rewards, self._lengths + 1
        self._returns, self._lengths = np.where(dones, 0, returns), np.where(dones, 0, lengths)
        return returns, lengths

    def _merged_options(self) -> dict[str, Any] | None:
        """The options of all environments as those of one batch."""
        given = [{name: value for name, value in each.items() if value is not None} for each in self._options]
        names = set().union(*given)
        if not names:
            return None
        if not isinstance(self.envs, BatchedEnv):
            raise ValueError(f"options has {sorted(names)}, but these environments take none.")
        if lacking := [index for index, options in enumerate(given) if options.keys() != names]:
            raise ValueError(
                f"options of environment {lacking[0]} lacks some of {sorted(names)}: one batch needs the same of all."
            )
        return {name: np.stack([np.asarray(options[name]) for options in given]) for name in names}

    def close(self) -> None:
        """Close the environments; twice is harmless."""
        self.envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """Pictures of the current observations, uint8, shape (height, width, 3); None without a render mode."""
        pictures: Any = None if self.render_mode is None else self.envs.render()
        return [None] * self.num_envs if pictures is None else list(pictures)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of each environment; spaces are those of a single one.

        Raises:
            IndexError: If there is no such environment.
        """
        chosen = self._chosen(indices)
        if isinstance(self.envs, SyncVectorEnv):
            return [self.envs.envs[index].get_wrapper_attr(attr_name) for index in chosen]
        single = f"single_{attr_name}" if attr_name in ("observation_space", "action_space") else attr_name
        return [getattr(self.envs, single)] * len(chosen)

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of all environments.

        Raises:
            IndexError: If there is no such environment.
            ValueError: If only some of them are named, and they are one batch.
        """
        chosen = self._chosen(indices)
        if isinstance(self.envs, SyncVectorEnv):
            for index in chosen:
                self.envs.envs[index].set_wrapper_attr(attr_name, value)
        elif set(chosen) == set(range(self.num_envs)):
            setattr(self.envs, attr_name, value)
        else:
            raise ValueError(
                f"set_attr({attr_name!r}) names environments {chosen} of {self.num_envs}, but one batch plays them all: "
                "leave out indices."
            )

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of each environment.

        Raises:
            AttributeError: If a single environment has no such method.
            IndexError: If there is no such environment.
        """
        chosen = self._chosen(indices)
        if isinstance(self.envs, SyncVectorEnv):
            methods = [self.envs.envs[index].get_wrapper_attr(method_name) for index in chosen]
        else:
            methods = [self._method(method_name, index) for index in chosen]
        return [method(*method_args, **method_kwargs) for method in methods]

    def _chosen(self, indices: Any) -> list[int]:
        """Numbers of the environments that are named, of which negative ones count from the end."""
        return [range(self.num_envs)[index] for index in self._get_indices(indices)]

    def _method(self, name: str, index: int) -> Any:
        known = {"render": self._render}
        if isinstance(self.envs, BatchedEnv):
            known |= {"get_state": self._get_state, "set_state": self._set_state}
        if name not in known:
            raise AttributeError(
                f"A single environment of this batch has no method {name!r}, only {', '.join(known)}. Those of the whole batch "
                "are methods of .envs."
            )
        return lambda *args, **kwargs: known[name](index, *args, **kwargs)

    def _get_state(self, index: int) -> EnvState:
        assert isinstance(self.envs, BatchedEnv)
        return self.envs.get_state().take(torch.tensor([index], device=self.envs.device))

    def _set_state(self, index: int, state: EnvState) -> None:
        assert isinstance(self.envs, BatchedEnv)
        if len(state) != 1:
            raise ValueError(
                f"state holds {len(state)} environments, expected 1. Use state.take(indices) to choose one."
            )
        self.envs.check_state(state)
        place = torch.tensor([index], device=self.envs.device)
        self.envs.set_state(
            self.envs.get_state().map(lambda all, one: all.index_copy(0, place, one.to(all.device)), state)
        )

    def _render(self, index: int) -> np.ndarray | None:
        return self.get_images()[index]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """Whether each environment does what a wrapper does; what `Monitor` reports is reported here."""
        chosen = self._chosen(indices)
        if isinstance(wrapper_class, type) and issubclass(wrapper_class, Monitor):
            return [True] * len(chosen)
        if isinstance(self.envs, SyncVectorEnv):
            return [_is_wrapped(self.envs.envs[index], wrapper_class) for index in chosen]
        return [False] * len(chosen)


def _check_count(n_envs: int) -> None:
    if not _is_whole(n_envs) or n_envs < 1:
        raise ValueError(f"n_envs is {n_envs!r}, expected a whole number of environments, at least 1.")


def _check_seed(seed: int | None) -> None:
    if seed is not None and (not _is_whole(seed) or seed < 0):
        raise ValueError(f"seed is {seed!r}, expected a whole number of at least 0, or None.")


def _is_whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _seeded(envs: BatchedVecEnv, seed: int | None) -> BatchedVecEnv:
    if seed is not None:
        envs.seed(seed)
    return envs


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _is_wrapped(env: gym.Env, wrapper_class: Any) -> bool:
    while isinstance(env, gym.Wrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False


def _split(infos: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """Infos of a batch as infos of its environments; what tells of the end of an episode is told elsewhere."""
    ours: list[dict[str, Any]] = [{} for _ in range(count)]
    for name, values in infos.items():
        if name in ("final_obs", "final_info", "episode") or name.startswith("_"):
            continue
        parts = _split(values, count) if isinstance(values, dict) else values
        for index in np.flatnonzero(infos.get(f"_{name}", np.ones(count, bool))):
            ours[index][name] = parts[index]
    return ours


def _fetch(results: list[Any]) -> list[np.ndarray]:
    """Results as arrays of their own. Tensors on a GPU are packed, so that there is a single transfer to wait for."""
    if not all(map(_is_tensor, results)):
        return [np.asarray(result) for result in results]
    if results[0].device.type == "cpu":
        return [tensor.numpy() for tensor in results]
    return [tensor.numpy() for tensor in _unpack(_to_host(_pack(results)), results)]


def _to_host(packed: Tensor) -> Tensor:
    if packed.device.type != "cuda":
        return packed.cpu()
    host = torch.empty(packed.shape, dtype=packed.dtype, pin_memory=True)
    host.copy_(packed, non_blocking=True)
    torch.cuda.current_stream(packed.device).synchronize()
    return host


def _pack(tensors: list[Tensor]) -> Tensor:
    """The bytes of all, those of wide numbers first, so that each lies where its type may lie."""
    by_width = sorted(tensors, key=lambda tensor: -tensor.itemsize)
    return torch.cat([tensor.contiguous().flatten().view(torch.uint8) for tensor in by_width])


def _unpack(packed: Tensor, like: list[Tensor]) -> list[Tensor]:
    """What `_pack` packed, given tensors of the same shapes and types."""
    order = sorted(range(len(like)), key=lambda index: -like[index].itemsize)
    parts = packed.split([like[index].nbytes for index in order])
    found = {
        index: part.view(like[index].dtype).view(like[index].shape) for index, part in zip(order, parts, strict=True)
    }
    return [found[index] for index in range(len(like))]
