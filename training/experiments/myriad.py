"""What policies earn in the Myriad systems, by what their gradient went through (spec items 12 and 13)."""

from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from learned_envs.envs.real.systems import make_system
from training.awm.recipe import BpoRecipe
from training.awm.reference import Reference, measure_reference
from training.awm.run import train_and_evaluate
from training.experiments.experiment import Part, Results
from training.experiments.statistics import bars, iqm_interval

__all__ = ["METHODS", "SUITE", "MyriadReturns"]

SUITE = (
    "CancerTreatment",
    "BearPopulations",
    "HIVTreatment",
    "MouldFungicide",
    "Bacteria",
    "Harvest",
    "TimberHarvest",
    "InvasivePlant",
)
"""Our choice of eight: those that doing nothing does not solve. The paper's eight are not known to us."""

METHODS: dict[str, dict[str, Any]] = {
    "simulator": {"family": "simulator"},
    "markov": {"family": "markov"},
    "markov-critic": {"family": "markov-critic"},
    "awm-rnn": {"family": "awm", "backbone": "rnn"},
    "awm-lstm": {"family": "awm", "backbone": "lstm"},
    "awm-transformer": {"family": "awm", "backbone": "transformer"},
    "hwm-transformer": {"family": "hwm", "backbone": "transformer"},
    "hwm-detached": {"family": "hwm-detached", "backbone": "transformer"},
    "sac": {"family": "sac"},
}
"""Fields of a `BpoRecipe` by the name of the method. Open-loop optimisation is the optimum that returns are measured by."""


@dataclass(frozen=True)
class MyriadReturns:
    """Normalised returns, (R - random) / (optimum - random), of the last evaluation.

    Args:
        systems: Names of Myriad systems.
        horizons: Steps of the episodes, H; the physical duration stays.
        methods: Keys of `METHODS`.
        seeds: How many seeds, from 0.
        env_steps: Real steps of a training.
        warmup: Real steps before learning begins.
        model_every: Real steps between two updates of the model; 2 in the released code.
        model_batch: Episodes in such an update; 64 in the released code.
        policy_every: Real steps between two updates of the policy; 16 in the released code.
        policy_learning_rate: 1e-4 in the released code.
        iterations: Steps of the optimiser that finds the optimum.
    """

    systems: tuple[str, ...] = SUITE
    horizons: tuple[int, ...] = (20, 50, 100, 200)
    methods: tuple[str, ...] = tuple(METHODS)
    seeds: int = 5
    env_steps: int = 5000
    warmup: int = 1500
    model_every: int = 2
    model_batch: int = 64
    policy_every: int = 4
    policy_learning_rate: float = 1e-3
    iterations: int = 500

    def parts(self) -> dict[str, Part]:
        """See `Experiment`: a reference for each system and horizon, and the trainings."""
        pairs = list(product(self.systems, self.horizons))
        references = {
            f"{system}-{horizon}-reference": partial(self._refer, system, horizon) for system, horizon in pairs
        }
        cases = [(*pair, *rest) for pair, rest in product(pairs, product(self.methods, range(self.seeds)))]
        return references | {"-".join(map(str, case)): partial(self._train, *case) for case in cases}

    def _refer(self, system: str, horizon: int, folder: Path) -> dict[str, Any]:
        return asdict(measure_reference(make_system(system, horizon=horizon), iterations=self.iterations))

    def _train(self, system: str, horizon: int, method: str, seed: int, folder: Path) -> dict[str, Any]:
        recipe = BpoRecipe(
            system,
            horizon=horizon,
            seed=seed,
            env_steps=self.env_steps,
            warmup=self.warmup,
            model_every=self.model_every,
            model_batch=self.model_batch,
            policy_every=self.policy_every,
            policy_learning_rate=self.policy_learning_rate,
            **METHODS[method],
        )
        return {"returns": train_and_evaluate(recipe, folder)}

    def summarize(self, results: Results) -> dict[str, Any]:
        """Interquartile mean over systems and seeds with its interval, and means by system; by horizon and method."""
        summary: dict[str, Any] = {}
        for horizon, method in product(self.horizons, self.methods):
            scores = np.array([self._scores(results, system, horizon, method) for system in self.systems]).T
            entry = iqm_interval(scores)
            entry |= {"mean": float(scores.mean()), "systems": dict(zip(self.systems, scores.T.tolist(), strict=True))}
            summary.setdefault(str(horizon), {})[method] = entry
        return summary

    def _scores(self, results: Results, system: str, horizon: int, method: str) -> list[float]:
        reference = Reference(**results[f"{system}-{horizon}-reference"])
        finals = [results[f"{system}-{horizon}-{method}-{seed}"]["returns"][-1][1] for seed in range(self.seeds)]
        return [reference.normalize(final) for final in finals]

    def draw(self, results: Results, summary: dict[str, Any]) -> Figure:
        """Interquartile mean over the horizon, or of each method where there is one horizon."""
        figure = Figure((8, 5), layout="constrained")
        axes = figure.subplots()
        label = "normalised return (interquartile mean, 95% interval)"
        if len(self.horizons) == 1:
            middle, spans = bars(summary[str(self.horizons[0])].values(), "iqm")
            axes.barh(self.methods, middle, xerr=spans, capsize=2)
            axes.axvline(1, color="grey", lw=0.8, ls="--")
            axes.set(
                xlabel=label, title=f"H = {self.horizons[0]}: 0 is random, 1 the best plan found in the true equations"
            )
            return figure
        for offset, method in enumerate(self.methods):
            middle, spans = bars((summary[str(horizon)][method] for horizon in self.horizons), "iqm")
            axes.errorbar(
                np.array(self.horizons) * 1.01**offset, middle, spans, fmt="o-", ms=4, capsize=2, label=method
            )
        axes.axhline(1, color="grey", lw=0.8, ls="--")
        axes.set(xscale="log", xlabel="horizon H", ylabel=label)
        axes.set_xticks(self.horizons, map(str, self.horizons))
        axes.set_xticks([], minor=True)
        axes.set_title("0 is random, 1 the best plan found in the true equations")
        axes.legend(fontsize=8)
        return figure
