"""The same network behind torchrl's environment of world models."""

# pyright: reportMissingImports=false
# torchrl is optional.
from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule
from torch import Tensor
from torchrl.data import Bounded, Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.envs.model_based import WorldModelEnv
from torchrl.modules import WorldModel

from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.world_model import State

__all__ = ["torchrl_rollout"]


def torchrl_rollout(model: ContinuousWorldModel, start: Tensor) -> Callable[[Tensor], Tensor]:
    """A function from plans, shape (B, H, m), to the sum of all rewards.

    The state of the model travels as entries of the tensor dictionary, a tensor each; the reward is read off it.

    Args:
        model: The network.
        start: First observations, shape (B, 1, n).
    """
    batch, none = len(start), torch.empty(len(start), 0)
    first = model.start(start)
    names = [name.replace(".", "_") for name, _ in first.tensors()]

    def advance(*entries: Tensor) -> tuple[Tensor, ...]:
        *tensors, action = entries
        state, prediction = model.step(_rebuilt(first, tensors), action, none)
        return *(tensor for _, tensor in state.tensors()), prediction.reward.unsqueeze(-1)

    dynamics = TensorDictModule(advance, [*names, "action"], [("next", name) for name in [*names, "reward"]])
    reward = TensorDictModule(lambda value: value, [("next", "reward")], [("next", "reward")])
    encoder = TensorDictModule(lambda value: value, [names[0]], [names[0]])
    shapes = {
        name: Unbounded(tensor.shape, dtype=tensor.dtype)
        for name, (_, tensor) in zip(names, first.tensors(), strict=True)
    }
    envs = WorldModelEnv(
        WorldModel(encoder, dynamics, reward),
        base_env=_Specs(),
        observation_spec=Composite(shapes, shape=(batch,)),
        batch_size=[batch],
        latent_key=names[0],
    )
    begin = TensorDict(dict(zip(names, (tensor for _, tensor in first.tensors()), strict=True)), [batch])

    def rollout(plan: Tensor) -> Tensor:
        current, total = envs.reset(begin), torch.zeros(())
        for action in plan.unbind(1):
            step, current = envs.step_and_maybe_reset(current.set("action", action))
            total = total + step["next", "reward"].sum()
        return total

    return rollout


def _rebuilt(like: State, tensors: list[Tensor]) -> Any:
    """A state of the same structure, from tensors in the order of `State.tensors`."""
    left = iter(tensors)
    return like.map(lambda _: next(left))


class _Specs(EnvBase):
    """Says what actions and rewards look like; never stepped."""

    def __init__(self) -> None:
        super().__init__()
        self.action_spec = Bounded(-1, 1, torch.Size([1]))  # expanded to the batch by WorldModelEnv
        self.reward_spec = Unbounded(torch.Size([1]))
        self.observation_spec = Composite()

    def _reset(self, tensordict: Any = None, **_: Any) -> Any:
        raise NotImplementedError

    def _step(self, tensordict: Any) -> Any:
        raise NotImplementedError

    def _set_seed(self, seed: int | None) -> None:
        raise NotImplementedError
