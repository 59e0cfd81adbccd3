"""Gradient rollouts per second: through an environment, by hand, and through torchrl: ``python -m benchmarks.gradient_rollouts``.

A rollout is an episode of H steps of a plan, and the gradient of its return with respect to every action. All of them use one
network with the same weights, and must find the same gradient.
"""

import gc
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.by_hand import unroll_by_hand
from benchmarks.report import write_result
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.environment import SystemConfig
from learned_envs.envs.real.systems import make_system
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.pretrained import Pretrained
from learned_envs.snapshot import SnapshotConfig
from learned_envs.starts import StartBank
from training.awm.episodes import record, uniform_plans
from training.awm.fit import make_model

Way = Callable[[Tensor], Tensor]
"""From a plan, shape (B, H, m), to the sum of all its rewards."""
_SYSTEM, _ID = "CancerTreatment", "LearnedCancerTreatment-v0"


def main(
    networks: tuple[str, ...] = ("awm-transformer", "awm-lstm", "markov-mlp"),
    horizon: int = 100,
    batch: int = 256,
    rounds: int = 7,
    threads: int = 1,
) -> None:
    """Measure all of them in turns, several times; the best time of each counts.

    Times are those of the processor, so that what else the machine does counts little, and the best is least disturbed by it.

    Args:
        networks: Family and backbone of each network, of the sizes that the authors of the paper released.
        horizon: Steps of a rollout, H.
        batch: Rollouts side by side, B.
        rounds: How often to measure.
        threads: CPU threads to use.
    """
    torch.set_num_threads(threads)
    figures: dict[str, Any] = {"horizon": horizon, "batch": batch, "rounds": rounds, "threads": threads}
    for name in networks:
        figures[name] = _compare(_ways(fresh_network(name, horizon), batch), batch, horizon, rounds)
    write_result("gradient_rollouts", figures)


def fresh_network(name: str, horizon: int) -> Pretrained:
    """A network with random weights, in the units of a real system; what it costs does not depend on its training."""
    torch.manual_seed(0)
    system = make_system(_SYSTEM, horizon=horizon)
    family, _, backbone = name.partition("-")
    model = make_model(system, family, backbone)  # type: ignore[arg-type]
    episodes = record(system, uniform_plans(system, 32))
    model.fit_normalization(episodes.observations)
    model.eval().requires_grad_(False)
    first, none = episodes.observations[:1, :1], torch.empty(1, 0)
    start = (first, none.unsqueeze(-1), none)
    environment = SystemConfig("system", _SYSTEM, {"horizon": horizon}, "known", {})
    bank = StartBank.from_contexts({"initial": start, "anywhere": start})
    return Pretrained(model, bank, SnapshotConfig(_ID, "awm", model.config, environment, {}))


def _ways(pretrained: Pretrained, batch: int) -> dict[str, Way]:
    model = pretrained.model
    assert isinstance(model, ContinuousWorldModel)
    start = pretrained.starts.contexts("initial")[0].expand(batch, -1, -1)
    envs = LearnedVectorEnv(pretrained, batch, output="torch", differentiable=True)
    none = torch.empty(batch, 0)

    def environment(plan: Tensor) -> Tensor:
        envs.reset(seed=0)
        total = torch.zeros(())
        for action in plan.unbind(1):
            total = total + envs.step(action)[1].sum()
        return total

    def functions(plan: Tensor) -> Tensor:
        state, total = model.start(start), torch.zeros(())
        for action in plan.unbind(1):
            state, prediction = model.step(state, action, none)
            total = total + prediction.reward.sum()
        return total

    ways: dict[str, Way] = {
        "environment": environment,
        "model_step": functions,
        "by_hand": lambda plan: unroll_by_hand(model, start[:, 0], plan),
    }
    if model.config.family == "awm":
        ways["parallel"] = lambda plan: model.imagine(start[:, 0], plan)[1].sum()
    try:
        from benchmarks.through_torchrl import torchrl_rollout
    except ImportError:
        print('Going on without torchrl: pip install -c constraints.txt "learned-envs[bench]".')
    else:
        ways["torchrl"] = torchrl_rollout(model, start)
    return ways


def _compare(ways: dict[str, Way], batch: int, horizon: int, rounds: int) -> dict[str, Any]:
    plan = (torch.rand(batch, horizon, 1) * 2 - 1).requires_grad_()
    gradients = {name: torch.autograd.grad(way(plan), plan)[0] for name, way in ways.items()}
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, gradients["by_hand"], rtol=1e-3, atol=1e-5, msg=name)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            gc.collect()
            begin = time.process_time()
            torch.autograd.grad(way(plan), plan)
            seconds[name].append(time.process_time() - begin)
    best = {name: min(times) for name, times in seconds.items()}
    return {
        "rollouts_per_second": {name: round(batch / time, 1) for name, time in best.items()},
        "cost_of_environment_to": {
            name: round(best["environment"] / time, 3) for name, time in best.items() if name != "environment"
        },
    } | ({"torchrl": version("torchrl")} if "torchrl" in ways else {})


if __name__ == "__main__":
    tyro.cli(main)
