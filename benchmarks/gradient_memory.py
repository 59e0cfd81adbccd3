"""What a differentiable step keeps in memory until `backward` or `detach`: ``python -m benchmarks.gradient_memory``."""

import torch
import tyro
from torch import Tensor

from benchmarks.gradient_rollouts import fresh_network
from benchmarks.report import write_result
from learned_envs.envs.vector import LearnedVectorEnv


def main(
    networks: tuple[str, ...] = ("awm-transformer", "awm-lstm", "markov-mlp"), horizon: int = 100, batch: int = 64
) -> None:
    """Count the bytes of all that a graph over an episode keeps, each storage once; weights are left out.

    Args:
        networks: Family and backbone of each network, of the sizes that the authors of the paper released.
        horizon: Steps of the episode, H.
        batch: Environments side by side.
    """
    figures = {name: round(_kept(name, horizon, batch) / (horizon * batch)) for name in networks}
    write_result("gradient_memory", {"horizon": horizon, "batch": batch, "bytes_an_environment_and_step": figures})


def _kept(name: str, horizon: int, batch: int) -> int:
    pretrained = fresh_network(name, horizon)
    envs = LearnedVectorEnv(pretrained, batch, output="torch", differentiable=True)
    weights = {tensor.untyped_storage().data_ptr() for tensor in pretrained.model.state_dict().values()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    plan = torch.zeros(batch, horizon, 1, requires_grad=True)
    envs.reset(seed=0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = sum(envs.step(action)[1].sum() for action in plan.unbind(1))
    assert isinstance(total, Tensor) and total.requires_grad
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in weights)


if __name__ == "__main__":
    tyro.cli(main)
