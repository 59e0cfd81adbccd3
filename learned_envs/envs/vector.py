"""The batched face of a learned environment."""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from gymnasium.vector import AutoresetMode
from torch import Tensor

from learned_envs.envs.batched import BatchedEnv
from learned_envs.nn.noise import uniform
from learned_envs.pretrained import Pretrained, load_pretrained
from learned_envs.starts import Contexts, StartKind
from learned_envs.world_model import State, WorldModel

__all__ = ["LearnedVectorEnv"]

_CONTEXTS_AT_ONCE = 64  # bounds the memory that encoding the recorded starts takes


class LearnedVectorEnv(BatchedEnv):
    """Many learned environments, advanced together by one call of their world model.

    Environment i of a batch seeded with s plays the same episodes as a single environment seeded with s + i, whatever the
    size of the batch, up to the rounding of matrix products.

    Args:
        model: Id, folder or repository of the model, or what `learned_envs.load` returned.
        num_envs: Number of environments; at least 1.
        device: Where the model runs and, with ``output="torch"``, where everything is returned.
        output: ``"numpy"`` arrays, or ``"torch"`` tensors on the device.
        autoreset_mode: What happens at the end of an episode, see `gymnasium.vector.AutoresetMode`.
        starts: ``"initial"`` begins at real episode beginnings, ``"anywhere"`` in the middle of recorded experience.
        max_episode_steps: Steps, counted from where it began, after which an episode is truncated; None takes the limit of
            the model's real environment. A control problem ends in any case when its clock reaches the horizon.
        render_mode: None, or ``"rgb_array"`` if observations are pictures.
        differentiable: Whether `step` builds a graph of gradients, from rewards, and from observations that are no pixels,
            back to actions and to a context that `reset` was given; needs ``output="torch"``. Discrete actions may then
            be given as probabilities, float32, shape (num_envs, n). The graph, and with it the memory, grows by one model call
            a step until `detach` cuts it.
        revision: Branch, tag or commit of a model on the Hub; one that is loaded already has none.
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
        model: str | Path | WorldModel | Pretrained,
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
        self.starts = starts
        if revision is not None and not isinstance(model, str | Path):
            raise ValueError(f"revision is {revision!r}, but the model is loaded already. Leave it out.")
        if isinstance(model, WorldModel):
            model = Pretrained.of(model)
        elif isinstance(model, str | Path):
            model = load_pretrained(model, revision=revision, local_files_only=local_files_only)
        elif not isinstance(model, Pretrained):
            raise ValueError(
                f"model is a {type(model).__name__}, expected an id, a folder, a repository, or what learned_envs.load "
                "returned."
            )
        _check_ready(model.model)
        self.pretrained = model
        super().__init__(
            model.model,
            model.observation_space,
            model.action_space,
            num_envs,
            model.limit(max_episode_steps),
            device=device,
            output=output,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            differentiable=differentiable,
        )

    @property
    def starts(self) -> StartKind:
        """Where episodes begin, from the next one on.

        Raises:
            ValueError: If it is set to something else.
        """
        return self._starts

    @starts.setter
    def starts(self, starts: StartKind) -> None:
        if starts not in get_args(StartKind):
            raise ValueError(f'starts is {starts!r}, expected "initial" or "anywhere".')
        self._starts: StartKind = starts
        for of_the_old in ("_contexts", "_bank"):
            vars(self).pop(of_the_old, None)

    @torch.no_grad()
    def _draw_starts(self, keys: Tensor, draws: Tensor) -> State:
        """A recorded start for each environment, chosen by its own noise."""
        if self.num_envs == 1 and self.device.type == "cpu":  # encoding all of them takes longer than it ever saves
            choice = _choose(keys, draws, len(self._contexts[0]))
            return self.world_model.start(*(tensor[choice] for tensor in self._contexts))
        return self._bank.take(_choose(keys, draws, len(self._bank)))

    @cached_property
    def _contexts(self) -> Contexts:
        return self.pretrained.starts.contexts(self._starts)

    @cached_property
    def _bank(self) -> State:
        """Where each recorded start leads."""
        contexts = self.pretrained.starts.contexts(self._starts)
        parts = zip(*(tensor.split(_CONTEXTS_AT_ONCE) for tensor in contexts), strict=True)
        states = [self.world_model.start(*(tensor.to(self.device) for tensor in part)) for part in parts]
        return states[0].map(lambda *tensors: torch.cat(tensors), *states[1:])

    def _parse_context(self, given: dict[str, Any], mask: Tensor) -> Contexts:
        context = super()._parse_context(given, mask)
        if self.pretrained.system is not None:
            self.pretrained.system.check_observations(context[0][:, -1])
        return context

    def _horizon(self, state: State) -> Tensor:
        """What the clock of a control problem leaves; a game has no end of time."""
        system = self.pretrained.system
        if system is None:
            return super()._horizon(state)
        return system.horizon - system.split(self.world_model.observe(state))[1]


def _check_ready(model: WorldModel) -> None:
    """Refuse a model that would play otherwise than it was measured."""
    if model.training:
        raise ValueError(
            "The model is in training mode, in which the same seed plays other episodes. Call its eval() first."
        )
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ValueError(
                f"The model has {parameter.dtype} as {name}, expected torch.float32. Call its float() first."
            )


def _choose(keys: Tensor, draws: Tensor, count: int) -> Tensor:
    """One of so many starts for each environment: int64, shape (B,)."""
    return (uniform(keys, draws, 1)[:, 0] * count).long().clamp_max(count - 1)
