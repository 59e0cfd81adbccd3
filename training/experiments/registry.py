"""The experiments by name, and how one is run: part by part, so that it can be interrupted."""

import json
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from learned_envs.files import replacing, write_json
from training.awm.fit import Fitting
from training.experiments.experiment import Experiment, Results
from training.experiments.failures import Failures
from training.experiments.gradients import GradientGrowth
from training.experiments.landscape import Landscape
from training.experiments.myriad import MyriadReturns
from training.loop import RunError, open_run
from training.provenance import provenance

__all__ = ["EXPERIMENTS", "Size", "run_experiment"]

Size = Literal["full", "reduced", "quick"]
_REDUCED_FIT = Fitting(updates=1000, batch=16, learning_rate=2e-3, decay=True)
_QUICK_FIT = Fitting(updates=30, batch=16, decay=True)
_QUICK_LANDSCAPE: dict[str, Any] = {
    "forms": ("markov", "awm-transformer"),
    "seeds": 2,
    "episodes": 64,
    "grid": 65,
    "starts": 16,
    "climb_steps": 10,
    "fitting": _QUICK_FIT,
}

_REDUCED_LANDSCAPE: dict[str, Any] = {
    "forms": ("markov", "awm-lstm", "awm-transformer"),
    "episodes": 1000,
    "grid": 1001,
    "climb_steps": 80,
    "fitting": Fitting(updates=6000, batch=32, learning_rate=2e-3, decay=True),
}

_REDUCED_MYRIAD: dict[str, Any] = {
    "env_steps": 2500,
    "warmup": 500,
    "model_every": 4,
    "model_batch": 16,
    "policy_every": 8,
}
_HORIZON_METHODS = ("markov", "awm-transformer")

EXPERIMENTS: dict[str, dict[Size, Experiment]] = {
    "gradients": {
        "full": GradientGrowth(),
        "reduced": GradientGrowth(
            systems=("CancerTreatment", "DoublePendulum"),
            forms=("markov", "awm-lstm", "awm-transformer", "hwm-transformer"),
            horizons=(5, 10, 20, 50, 100, 200),
            batch=8,
            fitting=_REDUCED_FIT,
        ),
        "quick": GradientGrowth(
            systems=("CancerTreatment",),
            forms=("markov", "awm-transformer", "hwm-transformer"),
            horizons=(3, 6),
            seeds=2,
            episodes=16,
            batch=4,
            fitting=_QUICK_FIT,
        ),
    },
    "one-bounce": {
        "full": Landscape("OneBounce", (20, 100)),
        "reduced": Landscape("OneBounce", (20,), **_REDUCED_LANDSCAPE),
        "quick": Landscape("OneBounce", (8,), **_QUICK_LANDSCAPE),
    },
    "double-pendulum": {
        "full": Landscape("DoublePendulum", (10, 20, 100)),
        "reduced": Landscape("DoublePendulum", (100,), **_REDUCED_LANDSCAPE),
        "quick": Landscape("DoublePendulum", (6,), **_QUICK_LANDSCAPE),
    },
    "myriad": {
        "full": MyriadReturns(),
        "reduced": MyriadReturns(
            horizons=(100,),
            methods=("simulator", "markov", "awm-transformer", "hwm-transformer", "sac"),
            **_REDUCED_MYRIAD,
        ),
        "quick": MyriadReturns(
            systems=("CancerTreatment", "MouldFungicide"),
            horizons=(5,),
            methods=("simulator", "markov-critic", "awm-transformer"),
            seeds=2,
            env_steps=120,
            warmup=20,
            iterations=30,
        ),
    },
    "myriad-horizons": {
        "full": MyriadReturns(methods=_HORIZON_METHODS),
        "reduced": MyriadReturns(methods=_HORIZON_METHODS, **_REDUCED_MYRIAD),
        "quick": MyriadReturns(
            systems=("CancerTreatment",),
            horizons=(5, 8),
            methods=_HORIZON_METHODS,
            seeds=2,
            env_steps=60,
            warmup=20,
            iterations=30,
        ),
    },
    "failures": {
        "full": Failures(),
        "reduced": Failures(
            horizon=20,
            noises=(0.1,),
            distractors=(4,),
            methods=("markov-critic", "awm-transformer", "hwm-transformer"),
            env_steps=1500,
            warmup=300,
            evaluation_episodes=64,
        ),
        "quick": Failures(
            horizon=5,
            noises=(0.1,),
            distractors=(2,),
            methods=("markov-critic", "awm-transformer"),
            seeds=1,
            env_steps=100,
            warmup=20,
            evaluation_episodes=16,
            iterations=30,
        ),
    },
}
"""Each in its sizes: as the paper, or nearly; for some hours of one core; and one that shows that everything runs."""


def run_experiment(name: str, folder: Path, size: Size = "full", seeds: int | None = None) -> tuple[Path, Path]:
    """Run an experiment, or what is left of it.

    Every finished part lies in ``parts/`` as JSON and is not done again; a part that was interrupted goes on from its last
    checkpoint where it has one.

    Args:
        name: A key of `EXPERIMENTS`.
        folder: Folder of the run.
        size: How large: ``"full"``, ``"reduced"`` for some hours of one core, or ``"quick"``, which only shows that
            everything runs.
        seeds: Another number of seeds.

    Returns:
        Paths of the figure and of the JSON, ``NAME.png`` and ``NAME.json``.

    Raises:
        RunError: If there is no such experiment, the number of seeds is below 1, or the folder belongs to another run.
    """
    if name not in EXPERIMENTS:
        near = get_close_matches(name, EXPERIMENTS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise RunError(f"There is no experiment {name!r}.{hint} Known: {', '.join(EXPERIMENTS)}.")
    experiment: Any = EXPERIMENTS[name][size]
    if seeds is not None:
        if seeds < 1:
            raise RunError(f"seeds is {seeds}, but must be at least 1.")
        experiment = replace(experiment, seeds=seeds)
    settings = asdict(experiment)
    open_run(folder, {"experiment": name, "size": size, "settings": settings})
    results = _do_parts(experiment, folder)
    summary = experiment.summarize(results)
    numbers, figure = folder / f"{name}.json", folder / f"{name}.png"
    with replacing(figure) as partial:
        experiment.draw(results, summary).savefig(partial, dpi=130, format="png")
    seeds_used = list(range(experiment.seeds))
    content = {"experiment": name, "size": size, "settings": settings, "seeds": seeds_used, "summary": summary}
    write_json(numbers, {**content, "provenance": provenance()})
    return figure, numbers


def _do_parts(experiment: Experiment, folder: Path) -> Results:
    results: Results = {}
    parts = experiment.parts()
    (folder / "parts").mkdir(exist_ok=True)
    for number, (name, part) in enumerate(parts.items(), 1):
        path = folder / "parts" / f"{name}.json"
        if not path.exists():
            print(f"part {number} of {len(parts)}: {name}", flush=True)
            write_json(path, part(folder / "work" / name))
        results[name] = json.loads(path.read_text())
    return results
