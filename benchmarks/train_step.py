"""One train step of the faithful preset beside the authors' algorithm as written: ``python -m benchmarks.train_step``.

A train step is one update of the world model, one imagination, and one update of critic and actor (Robine et al., ICLR 2023,
algorithm 1). Both, and variants that lack one means of speed each, take their steps in turns on the same device.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.as_written import AsWritten, draw_starts, framework_dropout, imagine_as_written
from benchmarks.report import write_result
from learned_envs.twm.config import TwmConfig, faithful
from learned_envs.twm.world_model import TransformerWorldModel
from training.agents.actor_critic import ActorCritic, ActorCriticTraining
from training.agents.imagination import PaperImagination, Starts
from training.agents.paper_world import PaperTraining, PaperWorld
from training.agents.replay import AgentReplay
from training.twm.joint import JointTraining, JointUpdate
from training.twm.replay import BalancedSampler

_ACTIONS = 6
Step = Callable[[int], Any]


def main(
    device: str = "cpu",
    rounds: int = 3,
    steps: int = 1,
    threads: int = 2,
    quick: bool = False,
    only: tuple[str, ...] = (),
    replay: int = 2_000,
) -> None:
    """Measure.

    Args:
        device: Where to train.
        rounds: How often each takes its turn; the medians count.
        steps: Train steps of a turn.
        threads: CPU threads.
        quick: Small sizes, one round, and nothing written: shows that everything runs.
        only: Names of the variants to measure beside "as_written" and "ours"; by default all.
        replay: Recorded steps to draw from.
    """
    torch.set_num_threads(threads)
    rounds, replay = (1, 200) if quick else (rounds, replay)
    recorded = _recorded(replay, device)
    variants = _variants(recorded, quick, device)
    unknown = set(only) - set(variants)
    if unknown:
        raise SystemExit(f"error: there is no variant {unknown.pop()!r}. Known: {', '.join(variants)}.")
    chosen = {name: make for name, make in variants.items() if not only or name in (*only, "as_written", "ours")}
    made = {name: make() for name, make in chosen.items()}
    seconds: dict[str, list[float]] = {name: [] for name in made}
    for step in made.values():
        _time(step, 1, device)  # libraries set themselves up, graphs are captured
    for _ in range(rounds):
        for name, step in made.items():
            seconds[name].append(_time(step, steps, device))
    medians = {name: median(values) for name, values in seconds.items()}
    ratios = [theirs / mine for theirs, mine in zip(seconds["as_written"], seconds["ours"], strict=True)]
    figures = {
        "device": device,
        "threads": threads,
        "rounds": rounds,
        "steps": steps,
        "seconds_per_train_step": {name: round(value, 4) for name, value in medians.items()},
        "as_written_over_ours": round(median(ratios), 2),
        "as_written_over_ours_lowest": round(min(ratios), 2),
        "gain_of": {
            name: round(value / medians["ours"], 3) for name, value in medians.items() if name.startswith("no_")
        },
        "drawing_starts": _sampling(device),
        "acting": _acting(recorded, quick, device),
        "replay_bytes_of_a_step": {"single_frames": recorded.frames[0].nbytes, "stacks": 4 * recorded.frames[0].nbytes},
        "hours_of_125000_train_steps": round(125_000 * medians["ours"] / 3600, 2),
    }
    if quick:
        print(figures)
        print("Everything runs. Sizes were small: the figures say nothing.")
    else:
        write_result("train_step", figures, device)


def _sizes(quick: bool) -> tuple[TwmConfig, JointTraining, ActorCriticTraining]:
    model, joint, agent = faithful(_ACTIONS), JointTraining(), ActorCriticTraining()
    if not quick:
        return model, joint, agent
    model = replace(
        model,
        observation=replace(model.observation, channels=8),
        transformer=replace(model.transformer, layers=2, width=64, hidden=128),
    )
    return model, replace(joint, batch=8), replace(agent, starts=32, horizon=4, hidden=(64, 64))


def _variants(replay: AgentReplay, quick: bool, device: str) -> dict[str, Callable[[], Step]]:
    def ours(joint: dict[str, Any] | None = None, agent: dict[str, Any] | None = None) -> _Ours:
        return _Ours(replay, quick, device, joint or {}, agent or {})

    def without_cache() -> Step:
        step = ours()
        step.world.imagination = _Uncached(step.world.imagination)  # type: ignore[assignment]
        return step

    def without_own_dropout() -> Step:
        step = ours()
        framework_dropout(step.world.model)
        return step

    def as_written() -> Step:
        model, joint, agent = _sizes(quick)
        plain_joint, plain_agent = AsWritten.training()
        joint = replace(plain_joint, batch=joint.batch)
        agent = replace(agent, gather=plain_agent.gather, graph=plain_agent.graph)
        torch.manual_seed(0)
        world = TransformerWorldModel(model).to(device)
        return AsWritten(JointUpdate(world, joint), ActorCritic(world, agent, False, False), replay)

    variants: dict[str, Callable[[], Step]] = {
        "as_written": as_written,
        "ours": ours,
        "no_cache": without_cache,
        "no_bfloat16": lambda: ours({"bfloat16": False}),
        "no_channels_last": lambda: ours({"channels_last": False}),
        "no_fused_optimizers": lambda: ours({"fused": False}),
        "no_gather" if device == "cpu" else "no_matrix_product": lambda: ours(agent={"gather": device != "cpu"}),
        "no_own_dropout": without_own_dropout,
    }
    if device != "cpu":
        variants["no_graph"] = lambda: ours(agent={"graph": False})
    return variants


class _Ours:
    """A train step of this project."""

    def __init__(
        self, replay: AgentReplay, quick: bool, device: str, joint: dict[str, Any], agent: dict[str, Any]
    ) -> None:
        sizes, standard_joint, standard_agent = _sizes(quick)
        training = replace(standard_joint, **joint)
        torch.manual_seed(0)
        model = TransformerWorldModel(sizes).to(device)
        self.agent = ActorCritic(model, replace(standard_agent, **agent), training.bfloat16, training.fused)
        self.world = PaperWorld(model, replay, self.agent, PaperTraining(joint=training))

    def __call__(self, step: int) -> None:
        self.world.update(step)
        self.agent.update(self.world.imagine())


class _Uncached:
    """Imagination that projects what it remembers anew."""

    def __init__(self, imagination: PaperImagination) -> None:
        self.imagination = imagination

    @torch.no_grad()
    def __call__(self, starts: Starts, pool: torch.Tensor) -> Any:
        own = self.imagination
        own.refresh()
        shape = (own.config.horizon, len(starts.actions), starts.classes.shape[1] + 1)
        noise = torch.rand(shape, device=pool.device)
        dynamics, actor = own.copies
        return imagine_as_written(dynamics, actor, starts, lambda: pool, noise, own.config.restart_below)  # type: ignore[arg-type]


def _recorded(steps: int, device: str) -> AgentReplay:
    """Noise, in episodes of a hundred steps."""
    draws = np.random.default_rng(0)
    replay = AgentReplay(steps, device=device)
    frames = draws.integers(256, size=(64, 64, 64), dtype=np.uint8)
    replay.begin_episode(frames[0])
    for step in range(steps):
        ended = step % 100 == 99
        replay.add(int(draws.integers(_ACTIONS)), float(draws.integers(-1, 2)), ended, False, frames[step % 64])
        if ended:
            replay.begin_episode(frames[0])
    replay.sync()
    return replay


def _time(step: Step, count: int, device: str) -> float:
    """Seconds of a step."""
    _wait(device)
    begin = time.perf_counter()
    for index in range(count):
        step(index)
    _wait(device)
    return (time.perf_counter() - begin) / count


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def _sampling(device: str, size: int = 95_000, rounds: int = 20) -> dict[str, float]:
    """Milliseconds of drawing 100 starts from the visits of a whole run: on the CPU, and where they are wanted."""
    visits, sampler = torch.zeros(size), BalancedSampler(size, device=device)
    ways: dict[str, Step] = {
        "softmax_on_cpu": lambda _: draw_starts(visits, 100).to(device),
        "gumbel_on_device": lambda _: sampler.draw(100),
    }
    return {name: round(1e3 * median(_time(way, 1, device) for _ in range(rounds)), 3) for name, way in ways.items()}


def _acting(replay: AgentReplay, quick: bool, device: str, rounds: int = 20) -> dict[str, float]:
    """Milliseconds of choosing an action: with the 17 observations of a whole history, with one, and as one of a batch of 10."""
    model = TransformerWorldModel(_sizes(quick)[0]).to(device)
    policy = ActorCritic(model, _sizes(quick)[2]).policy

    def way(count: int) -> Step:
        seen = replay.observations(torch.arange(count, device=replay.device))
        return lambda _: policy.act(seen, torch.rand(count, device=device))[0].tolist()

    counts = {"history_of_17": 17, "single": 1, "batch_of_10": 10}
    times = {name: 1e3 * median(_time(way(count), 1, device) for _ in range(rounds)) for name, count in counts.items()}
    times["batch_of_10"] /= 10
    return {name: round(value, 3) for name, value in times.items()}


if __name__ == "__main__":
    tyro.cli(main)
