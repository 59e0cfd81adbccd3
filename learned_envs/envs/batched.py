"""The torch core: a batch of episodes in one call of a world model, as a Gymnasium `VectorEnv`.

All faces stand on this one, those of learned environments and those of the real systems beside them. It keeps to what a GPU
asks for: static shapes, resets by selection over the whole batch, and no wait for the device in `step`.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from torch import Tensor

from learned_envs.device import parse_device
from learned_envs.envs.actions import as_tensor, parse_batch
from learned_envs.envs.autoreset import parse_autoreset_mode
from learned_envs.envs.contexts import CONTEXT_KEYS, parse_context
from learned_envs.envs.rendering import draw, render_modes
from learned_envs.envs.seeds import parse_seeds
from learned_envs.nn.noise import uniform
from learned_envs.starts import Contexts
from learned_envs.world_model import State, WorldModel

__all__ = ["ENDLESS", "BatchedEnv", "EnvState"]

ENDLESS = 2**62
"""A number of steps that no episode reaches."""

_SUM_TOLERANCE = 1e-2  # of probabilities, which callers may have in bfloat16


@dataclass(frozen=True)
class EnvState(State):
    """Everything that `BatchedEnv.set_state` restores. The batch is first in every tensor.

    Args:
        model: Where the model stands.
        keys: Key of each environment's noise, int64, shape (num_envs,).
        draws: How often each environment has drawn noise, int64, shape (num_envs,).
        elapsed: Steps played in the running episode, int64, shape (num_envs,).
        horizon: Most steps that the running episode can have, by the clock at its start; `ENDLESS` in games, int64, shape
            (num_envs,).
        returns: Reward gained in the running episode, float32, shape (num_envs,).
        ended: Whether the episode ended in the last step, bool, shape (num_envs,).
    """

    model: State
    keys: Tensor
    draws: Tensor
    elapsed: Tensor
    horizon: Tensor
    returns: Tensor
    ended: Tensor


class BatchedEnv(VectorEnv, ABC):
    """Many environments, advanced together by one call of their world model.

    Environment i of a batch seeded with s plays the same episodes as a single environment seeded with s + i, whatever the
    size of the batch, up to the rounding of matrix products.

    Subclasses say where episodes begin, in `_draw_starts`, and how many steps there can be from there on, in `_horizon`.

    Args:
        world_model: What advances the episodes: a trained model, or the true equations.
        observation_space: Space of one observation.
        action_space: Space of one action.
        num_envs: Number of environments; at least 1.
        max_episode_steps: Steps, counted from where it began, after which an episode is truncated; at least 1.
        device: Where the model runs and, with ``output="torch"``, where everything is returned.
        output: ``"numpy"`` arrays, or ``"torch"`` tensors on the device.
        autoreset_mode: What happens at the end of an episode, see `gymnasium.vector.AutoresetMode`.
        render_mode: None, or ``"rgb_array"`` if there are pictures of the observations.
        differentiable: Whether `step` builds a graph of gradients; needs ``output="torch"``.

    Raises:
        ValueError: If an argument lies outside its range.
    """

    metadata: dict[str, Any] = {"render_modes": [], "torch": True}  # noqa: RUF012 - as Gymnasium declares it

    def __init__(
        self,
        world_model: WorldModel,
        observation_space: gym.spaces.Box,
        action_space: gym.Space,
        num_envs: int,
        max_episode_steps: int,
        *,
        device: str | torch.device,
        output: Literal["numpy", "torch"],
        autoreset_mode: AutoresetMode | str,
        render_mode: str | None,
        differentiable: bool,
    ) -> None:
        modes = render_modes(observation_space)
        _check_arguments(num_envs, max_episode_steps, output, render_mode, modes, differentiable)
        self.device = parse_device(device)
        self.world_model = _on_device(world_model, self.device)
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.output = output
        self.autoreset_mode = parse_autoreset_mode(autoreset_mode)
        # Per instance: the class's dict would leak the mode into other instances.
        own = {"render_modes": modes, "autoreset_mode": self.autoreset_mode}
        self.metadata = {**type(self).metadata, **own}
        self.render_mode = render_mode if modes else None
        self.differentiable = differentiable
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._state: EnvState | None = None

    @abstractmethod
    def _draw_starts(self, keys: Tensor, draws: Tensor) -> State:
        """A start for each environment, chosen by draw number ``draws`` of its own noise."""

    def _horizon(self, state: State) -> Tensor:
        """Most steps that an episode can have from each start on, int64, shape (num_envs,)."""
        return torch.full((self.num_envs,), ENDLESS, dtype=torch.int64, device=self.device)

    def reset(
        self, *, seed: int | Sequence[int | None] | np.ndarray | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin new episodes.

        Args:
            seed: An integer s seeds the environments with s, s + 1, ...; a sequence gives one seed each. Without a seed,
                the running generators go on.
            options: May hold ``"reset_mask"``, bool, shape (num_envs,): the environments to reset, the others stay as they
                are; and a real context to continue from: ``"observations"``, shape (num_envs, T, *shape), with
                ``"actions"``, shape (num_envs, T - 1, ...), and ``"rewards"``, shape (num_envs, T - 1). If the environment
                is differentiable, gradients reach the context.

        Returns:
            Observations, shape (num_envs, *shape), and an empty info.

        Raises:
            ValueError: If an option is unknown, a shape or dtype does not fit, a value lies outside its space, or a seed is no
                whole number of at least 0.
        """
        seeds = parse_seeds(seed, self.num_envs)
        super().reset(seed=seed if isinstance(seed, int) else None)
        options = dict(options or {})
        partial = options.get("reset_mask") is not None and self._state is not None
        mask = self._parse_mask(options.pop("reset_mask", None))
        given = {name: options.pop(name, None) for name in CONTEXT_KEYS}
        if options:
            raise ValueError(
                f"options has the unknown key {sorted(options)[0]!r}; known are reset_mask, observations, actions, rewards."
            )
        keys, draws = self._seeded(seeds, mask)
        with torch.set_grad_enabled(self.differentiable):
            fresh = (
                self._draw_starts(keys, draws) if _is_empty(given) else self._continue(self._parse_context(given, mask))
            )
            state = self._fresh(fresh, keys, draws + 1)
            if partial:  # the others keep their past, and its graph
                assert self._state is not None
                state = state.where(mask, self._state)
            self._state = state
            return self._deliver(self.world_model.observe(state.model)), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Advance every environment by one step.

        Args:
            actions: One action for each environment, a NumPy array or a tensor: integers, shape (num_envs,), or, with
                ``differentiable=True``, probabilities of all actions, float32, shape (num_envs, n); or numbers within the
                bounds of the action space, shape (num_envs, m). Values of tensors on a GPU are not checked, since that would
                wait for the device: what the model makes of an index out of range is undefined.

        Returns:
            Observations, shape (num_envs, *shape); rewards, float32; terminated and truncated, bool, shape (num_envs,);
            and infos. With ``output="torch"``, ``infos["episode"]`` holds return ``"r"`` and length ``"l"``, the steps
            played, of those episodes that ended, where ``infos["_episode"]`` is True; NumPy arrays get them from Gymnasium's
            ``RecordEpisodeStatistics``. In SAME_STEP mode ``infos["final_obs"]`` holds the last observations of the episodes
            that ended, and ``infos["final_info"]`` their ``"episode"``, of arrays too.

        Raises:
            ValueError: If actions have a wrong shape or dtype, or lie outside the action space.
            gymnasium.error.ResetNeeded: If an environment was not reset when it had to be.
        """
        with torch.set_grad_enabled(self.differentiable):
            return self._step(self._running(), self._parse_actions(actions))

    def _step(self, before: EnvState, action: Tensor) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        size = self.world_model.noise_size
        noise = uniform(before.keys, before.draws, size + self.world_model.ends)
        model_state, prediction = self.world_model.step(before.model, action, noise[:, :size])
        terminated = torch.zeros_like(before.ended)
        if self.world_model.ends:
            terminated = noise[:, size] < prediction.end_probability
        elapsed = before.elapsed + 1
        # Also where the game ended, as TimeLimit has it.
        truncated = elapsed >= before.horizon.clamp_max(self.max_episode_steps)
        reward = prediction.reward
        returns = before.returns + reward.detach()
        over = terminated | truncated
        state = EnvState(model_state, before.keys, before.draws + 1, elapsed, before.horizon, returns, over)
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._perhaps(before.ended):
            # The action of an ended environment is ignored.
            reward = reward.masked_fill(before.ended, 0.0)
            terminated, truncated = terminated & ~before.ended, truncated & ~before.ended
            over = terminated | truncated
            state = self._reset_where(before.ended, state, before.draws)
        # For arrays Gymnasium's RecordEpisodeStatistics does it, and refuses environments that do it themselves.
        infos = self._episode_infos(elapsed, returns, over) if self.output == "torch" else {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            infos = self._final_infos(state, elapsed, returns) | infos
            state = self._reset_where(state.ended, state, state.draws)
        self._state = state
        seen = self._deliver(self.world_model.observe(state.model))
        return seen, self._deliver(reward), self._hand_over(terminated), self._hand_over(truncated), infos

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
            ValueError: If the state has another structure, as those of other models mostly have, is of another number of
                environments, or is not finite; or if it holds episodes that have ended, which an environment that resets in
                the same step never does.
        """
        if len(state) != self.num_envs:
            raise ValueError(
                f"state holds {len(state)} environments, expected {self.num_envs}. Use state.take(indices) to choose or "
                "repeat some."
            )
        self.check_state(state)
        state = state.clone().to(self.device)
        self._state = state if self.differentiable else state.detach()

    def check_state(self, state: EnvState) -> None:
        """Refuse a state that `get_state` of such an environment cannot have made, whatever the number of environments.

        Raises:
            ValueError: If it has another structure, is not finite, or has ended where such an environment goes on at once.
        """
        keys = torch.zeros(self.num_envs, dtype=torch.int64, device=self.device)
        with torch.no_grad():
            own = self._fresh(self._draw_starts(keys, keys), keys, keys) if self._state is None else self._state
        found = {name: (tuple(x.shape), x.dtype) for name, x in state.tensors()}
        expected = {name: ((len(state), *x.shape[1:]), x.dtype) for name, x in own.tensors()}
        for name in sorted({*found, *expected}):
            if found.get(name) != expected.get(name):
                raise ValueError(
                    f"state has {found.get(name, 'nothing')} as {name}, expected {expected.get(name, 'nothing')}: it was not "
                    "made by get_state() of an environment of this kind."
                )
        for name, tensor in state.tensors():
            if not bool(tensor.isfinite().all()):
                raise ValueError(f"state holds NaN or infinite values in {name}, expected finite ones.")
        if self.autoreset_mode is AutoresetMode.SAME_STEP and bool(state.ended.any()):
            raise ValueError(
                f"state holds episodes that have ended, at {state.ended.nonzero().flatten().tolist()}, and this environment, in "
                "SAME_STEP mode, would go on playing them. Call reset() instead."
            )

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Pictures of the current observations, uint8, shape (height, width, 3), one for each environment."""
        if self.render_mode is None:
            there_are = bool(self.metadata["render_modes"])
            gym.logger.warn(
                'render() needs render_mode="rgb_array".'
                if there_are
                else "There are no pictures of these observations."
            )
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

    def _seeded(self, seeds: list[int | None], mask: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and draws of the noise, newly seeded where a seed is given."""
        if self._state is not None:
            keys, draws = self._state.keys, self._state.draws
        else:
            keys = torch.from_numpy(self.np_random.integers(2**63, size=self.num_envs)).to(self.device)
            draws = torch.zeros_like(keys)
        if all(value is None for value in seeds):
            return keys, draws
        given = torch.tensor([value is not None for value in seeds], device=self.device) & mask
        # Keys are 64-bit patterns; Gymnasium's seeds may be longer.
        values = torch.tensor([((value or 0) + 2**63) % 2**64 - 2**63 for value in seeds], device=self.device)
        return torch.where(given, values, keys), draws.masked_fill(given, 0)

    def _parse_context(self, given: dict[str, Any], mask: Tensor) -> Contexts:
        assert isinstance(self.single_observation_space, gym.spaces.Box)
        spaces = self.single_observation_space, self.single_action_space
        return parse_context(given, mask, *spaces)

    def _continue(self, context: Contexts) -> State:
        """The state after a real context that the caller gives."""
        state = self.world_model.start(*context)
        return state if self.differentiable else state.detach()

    def _fresh(self, model: State, keys: Tensor, draws: Tensor) -> EnvState:
        """Episodes at their start."""
        none = torch.zeros(self.num_envs, dtype=torch.float32, device=self.device)
        return EnvState(model, keys, draws, none.long(), self._horizon(model), none, none.bool())

    def _reset_where(self, mask: Tensor, state: EnvState, draws: Tensor) -> EnvState:
        """Begin new episodes where the mask is True; choosing the starts is draw number ``draws``."""
        if not self._perhaps(mask):
            return state
        return self._fresh(self._draw_starts(state.keys, draws), state.keys, draws + 1).where(mask, state)

    def _perhaps(self, mask: Tensor) -> bool:
        """Whether a mask may be True somewhere; on a GPU, looking would wait for the device."""
        return self.device.type != "cpu" or bool(mask.any())

    def _episode_infos(self, elapsed: Tensor, returns: Tensor, over: Tensor) -> dict[str, Any]:
        """Return and length of the episodes that ended."""
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

    def _hand_over(self, tensor: Tensor) -> Any:
        """A tensor that nobody else holds, for the caller."""
        return tensor if self.output == "torch" else tensor.detach().cpu().numpy()

    def _parse_mask(self, mask: Any) -> Tensor:
        if mask is None:
            return torch.ones(self.num_envs, dtype=torch.bool, device=self.device)
        mask = as_tensor("reset_mask", mask, self.device)
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
        """Actions on the device, checked against the space."""
        action, space = as_tensor("actions", actions), self.single_action_space
        # On a GPU, looking at values would wait for the device.
        check_values = action.device.type == "cpu"
        if isinstance(space, gym.spaces.Discrete) and action.is_floating_point():
            return self._parse_probabilities(action, int(space.n), check_values).to(self.device)
        return parse_batch(action, self.num_envs, space, check_values).to(self.device)

    def _parse_probabilities(self, action: Tensor, count: int, check_values: bool) -> Tensor:
        if not self.differentiable or tuple(action.shape) != (self.num_envs, count):
            raise ValueError(
                f"actions has dtype {action.dtype} and shape {tuple(action.shape)}, expected {self.num_envs} integers; "
                f"with differentiable=True, also probabilities of shape ({self.num_envs}, {count})."
            )
        if check_values and not bool(((action >= 0) & action.isfinite()).all()):
            wrong = float(action[~((action >= 0) & action.isfinite())][0])
            raise ValueError(f"actions contains the probability {wrong:g}, which is negative or not finite.")
        sums = action.detach().sum(1)
        if check_values and not bool(((sums - 1).abs() < _SUM_TOLERANCE).all()):
            wrong = float(sums[(sums - 1).abs().argmax()])
            raise ValueError(f"actions contains probabilities that sum to {wrong:g}, expected 1.")
        return action.float()


def _on_device(model: WorldModel, device: torch.device) -> WorldModel:
    """A model on a device; another environment may hold it where it is, so that it is copied rather than moved."""
    here = {tensor.device for tensor in (*model.parameters(), *model.buffers())}
    return model if here <= {device} else copy.deepcopy(model).to(device)


def _is_empty(given: dict[str, Any]) -> bool:
    return all(value is None for value in given.values())


def _check_arguments(
    num_envs: int,
    max_episode_steps: int,
    output: str,
    render_mode: str | None,
    modes: list[str],
    differentiable: bool,
) -> None:
    if num_envs < 1:
        raise ValueError(f"num_envs is {num_envs}, but there must be at least 1 environment.")
    if not isinstance(max_episode_steps, int | np.integer):
        raise ValueError(f"max_episode_steps is {max_episode_steps!r}, expected a whole number of steps.")
    if max_episode_steps < 1:
        raise ValueError(f"max_episode_steps is {max_episode_steps}, but an episode has at least 1 step.")
    if output not in ("numpy", "torch"):
        raise ValueError(f'output is {output!r}, expected "numpy" or "torch".')
    if render_mode == "rgb_array" and not modes:  # libraries ask for it unasked, and expect no more than a warning
        gym.logger.warn("There are no pictures of these observations: render_mode='rgb_array' is left aside.")
    elif render_mode is not None and render_mode not in modes:
        expected = 'None or "rgb_array"' if modes else "None: there are no pictures of these observations"
        raise ValueError(f"render_mode is {render_mode!r}, expected {expected}.")
    if differentiable and output != "torch":
        raise ValueError('differentiable=True needs output="torch": NumPy arrays carry no gradients.')
