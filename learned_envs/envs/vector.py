"""The torch core: a batch of imagined episodes in one model call, as a Gymnasium `VectorEnv`.

All faces of a learned environment stand on this one. It keeps to what a GPU asks for: static shapes, resets by selection
over the whole batch, and no wait for the device in `step`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from learned_envs.envs.contexts import CONTEXT_KEYS, parse_context
from learned_envs.envs.rendering import draw
from learned_envs.nn.noise import uniform
from learned_envs.pretrained import Pretrained, load_pretrained
from learned_envs.starts import StartKind
from learned_envs.world_model import State

__all__ = ["EnvState", "LearnedVectorEnv", "parse_device"]


@dataclass(frozen=True)
class EnvState(State):
    """Everything that `LearnedVectorEnv.set_state` restores. The batch is first in every tensor.

    Args:
        model: Where the model stands.
        keys: Key of each environment's noise, int64, shape (num_envs,).
        draws: How often each environment has drawn noise, int64, shape (num_envs,).
        elapsed: Steps in the running episode, int64, shape (num_envs,).
        returns: Reward gained in the running episode, float32, shape (num_envs,).
        ended: Whether the episode ended in the last step, bool, shape (num_envs,).
    """

    model: State
    keys: Tensor
    draws: Tensor
    elapsed: Tensor
    returns: Tensor
    ended: Tensor


class LearnedVectorEnv(VectorEnv):
    """Many learned environments, advanced together by one call of their world model.

    Environment i of a batch seeded with s plays the same episodes as a single environment seeded with s + i, whatever the
    size of the batch, up to the rounding of matrix products.

    Args:
        model: Id, folder or repository of the model, or a model that is loaded already.
        num_envs: Number of environments; at least 1.
        device: Where the model runs and, with ``output="torch"``, where everything is returned.
        output: ``"numpy"`` arrays, or ``"torch"`` tensors on the device.
        autoreset_mode: What happens at the end of an episode, see `gymnasium.vector.AutoresetMode`.
        starts: ``"initial"`` begins at real episode beginnings, ``"anywhere"`` in the middle of recorded experience.
        max_episode_steps: Steps after which an episode is truncated; None takes the limit of the model's real environment.
        render_mode: None or ``"rgb_array"``.
        differentiable: Whether `step` builds a graph of gradients, from rewards back to actions; needs ``output="torch"``.
            Discrete actions are then given as probabilities, float32, shape (num_envs, n). The graph, and with it the
            memory, grows by one model call a step until `detach` cuts it.
        revision: Revision of a model on the Hub.
        local_files_only: Whether to do without the network.

    Raises:
        ValueError: If an argument lies outside its range.
        MissingModelError: If the model is not to be had.
        SnapshotError: If the model's files are damaged.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 - as Gymnasium declares it
        "render_modes": ["rgb_array"],
        "render_fps": 15,
        "torch": True,
    }

    def __init__(
        self,
        model: str | Path | Pretrained,
        num_envs: int = 1,
        *,
        device: str | torch.device = "cpu",
        output: Literal["numpy", "torch"] = "numpy",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        starts: StartKind = "initial",
        max_episode_steps: int | None = None,
        render_mode: str | None = None,
        differentiable: bool = False,
        revision: str | None = None,
        local_files_only: bool = False,
    ) -> None:
        _check_arguments(num_envs, output, starts, max_episode_steps, render_mode, differentiable)
        self.device = parse_device(device)
        if not isinstance(model, Pretrained):
            model = load_pretrained(model, revision=revision, device=self.device, local_files_only=local_files_only)
        self.pretrained = model
        self.world_model = self.pretrained.model.to(self.device)
        self.num_envs = num_envs
        self.output = output
        self.autoreset_mode = _parse_autoreset_mode(autoreset_mode)
        # Per instance: the class's dict would leak the mode into other instances.
        self.metadata = {**type(self).metadata, "autoreset_mode": self.autoreset_mode}
        self.render_mode = render_mode
        self.differentiable = differentiable
        self.starts: StartKind = starts
        self.max_episode_steps = max_episode_steps or self.pretrained.max_episode_steps
        self.single_observation_space = self.pretrained.observation_space
        self.single_action_space = self.pretrained.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._bank: State | None = None
        self._state: EnvState | None = None

    def reset(
        self, *, seed: int | Sequence[int | None] | np.ndarray | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes.

        Args:
            seed: An integer s seeds the environments with s, s + 1, ...; a sequence gives one seed each. Without a seed,
                the running generators go on.
            options: May hold ``"reset_mask"``, bool, shape (num_envs,): the environments to reset, the others stay as they
                are; and a real context to continue from: ``"observations"``, shape (num_envs, T, *shape), with
                ``"actions"`` and ``"rewards"``, shape (num_envs, T - 1).

        Returns:
            Observations, shape (num_envs, *shape), and an empty info.

        Raises:
            ValueError: If an option is unknown or a shape does not fit.
        """
        super().reset(seed=seed if isinstance(seed, int) else None)
        options = dict(options or {})
        partial = options.get("reset_mask") is not None and self._state is not None
        mask = self._parse_mask(options.pop("reset_mask", None))
        context = {name: options.pop(name, None) for name in CONTEXT_KEYS}
        if options:
            raise ValueError(
                f"options has the unknown key {sorted(options)[0]!r}; known are reset_mask, observations, actions, rewards."
            )
        keys, draws = self._seeded(seed, mask)
        given = any(value is not None for value in context.values())
        fresh = self._continue(context) if given else self._draw_starts(keys, draws)
        state = self._fresh(fresh, keys, draws + 1)
        if partial:
            assert self._state is not None
            with torch.set_grad_enabled(self.differentiable):  # the others keep their past, and its graph
                state = state.where(mask, self._state)
        self._state = state
        return self._deliver(self.world_model.observe(self._state.model)), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Advance every environment by one step.

        Args:
            actions: One action for each environment, a NumPy array or a tensor.

        Returns:
            Observations, shape (num_envs, *shape); rewards, float32; terminated and truncated, bool, shape (num_envs,);
            and infos. In SAME_STEP mode ``infos["final_obs"]`` holds the last observations of the episodes that ended. With
            ``output="torch"``, ``infos["episode"]`` holds return ``"r"`` and length ``"l"`` of those where
            ``infos["_episode"]`` is True; NumPy arrays get them from Gymnasium's ``RecordEpisodeStatistics``.

        Raises:
            ValueError: If actions have a wrong shape or dtype, or lie outside the action space.
            gymnasium.error.ResetNeeded: If an environment was not reset when it had to be.
        """
        with torch.set_grad_enabled(self.differentiable):
            return self._step(self._running(), self._parse_actions(actions))

    def _step(self, before: EnvState, action: Tensor) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        noise = uniform(before.keys, before.draws, self.world_model.noise_size + 1)
        model_state, prediction = self.world_model.step(before.model, action, noise[:, :-1])
        terminated = noise[:, -1] < prediction.end_probability
        elapsed = before.elapsed + 1
        truncated = elapsed >= self.max_episode_steps  # also where the game ended, as TimeLimit has it
        returns = before.returns + prediction.reward.detach()
        state = EnvState(model_state, before.keys, before.draws + 1, elapsed, returns, terminated | truncated)
        reward = prediction.reward
        if self.autoreset_mode is AutoresetMode.NEXT_STEP:  # the action of an ended environment is ignored
            reward = reward.masked_fill(before.ended, 0.0)
            terminated, truncated = terminated & ~before.ended, truncated & ~before.ended
            state = self._reset_where(before.ended, state, before.draws)
        infos = self._episode_infos(elapsed, returns, terminated | truncated)
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            infos = self._final_infos(state, elapsed, returns) | infos
            state = self._reset_where(state.ended, state, state.draws)
        self._state = state
        flags = self._deliver(terminated), self._deliver(truncated)
        return self._deliver(self.world_model.observe(state.model)), self._deliver(reward), *flags, infos

    def detach(self) -> None:
        """Cut the graph of gradients: the next steps do not reach back beyond this point."""
        if self._state is not None:
            self._state = self._state.detach()

    def get_state(self) -> EnvState:
        """Copy everything that the future of the batch depends on.

        Raises:
            gymnasium.error.ResetNeeded: If the environments were never reset.
        """
        if self._state is None:
            raise gym.error.ResetNeeded("There is no state before the first reset(). Call reset() first.")
        return self._state.clone()

    def set_state(self, state: EnvState) -> None:
        """Go on from a copy made by `get_state`, here or in another environment of the same model and size.

        Raises:
            ValueError: If the state belongs to another number of environments.
        """
        if len(state) != self.num_envs:
            raise ValueError(
                f"state holds {len(state)} environments, expected {self.num_envs}. Use state.take(indices) to choose or "
                "repeat some."
            )
        self._state = state.clone().to(self.device)

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Pictures of the current observations, uint8, shape (height, width, 3), one for each environment."""
        if self.render_mode is None:
            gym.logger.warn('render() needs render_mode="rgb_array".')
            return None
        observations = self.world_model.observe(self.get_state().model).cpu().numpy()
        return tuple(draw(observation) for observation in observations)

    def _running(self) -> EnvState:
        """The state, if all environments may be stepped."""
        if self._state is None:
            raise gym.error.ResetNeeded("step() was called before reset(). Call reset() first.")
        # The only mode in which step() waits for the device: a forgotten reset would go unnoticed.
        if self.autoreset_mode is AutoresetMode.DISABLED and bool(self._state.ended.any()):
            ended = self._state.ended.nonzero().flatten().tolist()
            raise gym.error.ResetNeeded(
                f"Environments {ended} have ended and autoreset is disabled. Call "
                'reset(options={"reset_mask": terminated | truncated}) before the next step.'
            )
        return self._state

    def _seeded(self, seed: Any, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and draws of the noise, newly seeded where a seed is given."""
        count = self.num_envs
        if self._state is not None:
            keys, draws = self._state.keys, self._state.draws
        else:
            keys = torch.from_numpy(self.np_random.integers(2**63, size=count)).to(self.device)
            draws = torch.zeros_like(keys)
        if seed is None:
            return keys, draws
        seeds = [seed + index for index in range(count)] if isinstance(seed, int | np.integer) else list(seed)
        if len(seeds) != count:
            raise ValueError(f"seed has {len(seeds)} entries, expected {count}: one for each environment.")
        given = torch.tensor([value is not None for value in seeds], device=self.device) & mask
        # Keys are 64-bit patterns; Gymnasium's seeds may be longer.
        values = torch.tensor([(int(value or 0) + 2**63) % 2**64 - 2**63 for value in seeds], device=self.device)
        return torch.where(given, values, keys), draws.masked_fill(given, 0)

    def _draw_starts(self, keys: Tensor, draws: Tensor) -> State:
        """A recorded start for each environment, chosen by its own noise."""
        if self._bank is None:
            contexts = self.pretrained.starts.contexts(self.starts)
            self._bank = self.world_model.start(*(tensor.to(self.device) for tensor in contexts))
        choice = uniform(keys, draws, 1)[:, 0] * len(self._bank)
        return self._bank.take(choice.long().clamp_max(len(self._bank) - 1))

    def _continue(self, context: dict[str, Any]) -> State:
        """The state after a real context that the caller gives."""
        spaces = self.pretrained.observation_space, self.pretrained.action_space
        parsed = parse_context(context, self.num_envs, *spaces, self.device)
        return self.world_model.start(*parsed).clone()  # the caller may overwrite the context

    def _fresh(self, model: State, keys: Tensor, draws: Tensor) -> EnvState:
        """Episodes at their first step."""
        zeros = torch.zeros_like(draws)
        return EnvState(model, keys, draws, zeros, zeros.float(), zeros.bool())

    def _reset_where(self, mask: Tensor, state: EnvState, draws: Tensor) -> EnvState:
        """Begin new episodes where the mask is True; choosing the starts is draw number ``draws``."""
        if self.device.type == "cpu" and not bool(mask.any()):  # on a GPU, asking would wait for the device
            return state
        return self._fresh(self._draw_starts(state.keys, draws), state.keys, draws + 1).where(mask, state)

    def _episode_infos(self, elapsed: Tensor, returns: Tensor, over: Tensor) -> dict[str, Any]:
        """Return and length of the episodes that ended, for tensors.

        For arrays Gymnasium's RecordEpisodeStatistics does it, and refuses environments that do it themselves.
        """
        if self.output == "numpy":
            return {}
        episode = {"r": self._deliver(returns), "l": self._deliver(elapsed)}
        return {"episode": episode | {f"_{key}": self._deliver(over) for key in "rl"}, "_episode": self._deliver(over)}

    def _final_infos(self, state: EnvState, elapsed: Tensor, returns: Tensor) -> dict[str, Any]:
        """What SAME_STEP mode reports of the episodes that ended, before their environments are reset."""
        return {
            "final_obs": self._deliver(self.world_model.observe(state.model)),
            "_final_obs": self._deliver(state.ended),
            "final_info": self._episode_infos(elapsed, returns, state.ended),
            "_final_info": self._deliver(state.ended),
        }

    def _deliver(self, tensor: Tensor) -> Any:
        """A copy for the caller, who may write into it."""
        return tensor.clone() if self.output == "torch" else tensor.detach().cpu().numpy().copy()

    def _parse_mask(self, mask: Any) -> Tensor:
        if mask is None:
            return torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        mask = torch.as_tensor(mask, device=self.device)
        if mask.dtype != torch.bool or mask.shape != (self.num_envs,):
            raise ValueError(
                f"reset_mask has dtype {mask.dtype} and shape {tuple(mask.shape)}, expected bool and ({self.num_envs},)."
            )
        if not mask.any():
            raise ValueError("reset_mask is False everywhere: there is nothing to reset.")
        if self._state is None and not mask.all():
            raise ValueError(
                "reset_mask leaves out environments that were never reset. Call reset() without a mask first."
            )
        return mask

    def _parse_actions(self, actions: Any) -> Tensor:
        """Actions on the device, checked against the space.

        NumPy arrays are checked in value too. For tensors on a GPU that would wait for the device; there an index out of
        range fails inside the model.
        """
        action = torch.as_tensor(actions, device=self.device)
        space = self.single_action_space
        if isinstance(space, gym.spaces.Discrete):
            return self._parse_discrete(action, int(space.n))
        expected = (self.num_envs, *(space.shape or ()))
        if tuple(action.shape) != expected:
            raise ValueError(f"actions has shape {tuple(action.shape)}, expected {expected}.")
        return action.float()

    def _parse_discrete(self, action: Tensor, count: int) -> Tensor:
        if action.is_floating_point():
            if not self.differentiable or tuple(action.shape) != (self.num_envs, count):
                raise ValueError(
                    f"actions has dtype {action.dtype} and shape {tuple(action.shape)}, expected {self.num_envs} integers; "
                    f"with differentiable=True, also probabilities of shape ({self.num_envs}, {count})."
                )
            return action
        if tuple(action.shape) != (self.num_envs,):
            raise ValueError(
                f"actions has shape {tuple(action.shape)}, expected ({self.num_envs},): one action for each environment."
            )
        action = action.long()  # torch compares few of the unsigned types
        if self.device.type == "cpu" and bool(((action < 0) | (action >= count)).any()):
            wrong = action[(action < 0) | (action >= count)][0].item()
            raise ValueError(f"actions contains {wrong}, expected integers from 0 to {count - 1}.")
        return action


def _check_arguments(
    num_envs: int,
    output: str,
    starts: str,
    max_episode_steps: int | None,
    render_mode: str | None,
    differentiable: bool,
) -> None:
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}, but there must be at least 1 environment.")
    if output not in ("numpy", "torch"):
        raise ValueError(f'output is {output!r}, expected "numpy" or "torch".')
    if starts not in get_args(StartKind):
        raise ValueError(f'starts is {starts!r}, expected "initial" or "anywhere".')
    if max_episode_steps is not None and max_episode_steps < 1:
        raise ValueError(f"max_episode_steps is {max_episode_steps}, but an episode has at least 1 step.")
    if render_mode not in (None, "rgb_array"):
        raise ValueError(f'render_mode is {render_mode!r}, expected None or "rgb_array".')
    if differentiable and output != "torch":
        raise ValueError('differentiable=True needs output="torch": NumPy arrays carry no gradients.')


def _parse_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    try:
        return AutoresetMode(mode)
    except ValueError as error:
        known = ", ".join(f'"{known.value}"' for known in AutoresetMode)
        raise ValueError(f"autoreset_mode is {mode!r}, expected an AutoresetMode or one of {known}.") from error


def parse_device(device: str | torch.device) -> torch.device:
    """Check that a device is there.

    Raises:
        ValueError: If it is not.
    """
    try:
        parsed = torch.device(device)
        torch.empty(0, device=parsed)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f'device {str(device)!r} is not available here ({error}). Use device="cpu".') from error
    return parsed
