"""Where knowing only the actions must lose: noise, distractors, and the fuzzy bear (spec item 15)."""

from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from learned_envs.envs.real.systems import System, make_system
from training.awm.recipe import BpoRecipe
from training.awm.reference import measure_reference
from training.awm.run import train_and_evaluate
from training.experiments.experiment import Part, Results
from training.experiments.fuzzy_bear import FuzzyBear
from training.experiments.myriad import METHODS
from training.experiments.statistics import bars, mean_interval

__all__ = ["Failures"]

_BEAR = "fuzzy-bear"


@dataclass(frozen=True)
class Failures:
    """Normalised returns where the state says more than the actions do.

    In the fuzzy bear, 0 is what a plan made in advance earns, and 1 what the best policy earns. In the others, 0 is random and 1
    the best plan in the same system without noise and distractors.

    Args:
        system: Name of the Myriad system that is made noisy.
        horizon: Its steps, H.
        noises: Deviations of the noise on its state.
        distractors: Numbers of distractors.
        methods: Keys of `training.experiments.myriad.METHODS`.
        seeds: How many seeds, from 0.
        env_steps: Real steps of a training.
        warmup: Real steps before learning begins.
        policy_every: Real steps between two updates of the policy; 16 in the released code.
        policy_learning_rate: 1e-4 in the released code.
        evaluation_episodes: Episodes of an evaluation.
        iterations: Steps of the optimiser that finds the optimum.
    """

    system: str = "CancerTreatment"
    horizon: int = 50
    noises: tuple[float, ...] = (0.05, 0.1, 0.2)
    distractors: tuple[int, ...] = (4, 16)
    methods: tuple[str, ...] = ("simulator", "markov", "markov-critic", "awm-transformer", "hwm-transformer")
    seeds: int = 5
    env_steps: int = 5000
    warmup: int = 1500
    policy_every: int = 4
    policy_learning_rate: float = 1e-3
    evaluation_episodes: int = 256
    iterations: int = 500

    def cases(self) -> dict[str, System]:
        """The systems by name."""
        make = partial(make_system, self.system, horizon=self.horizon)
        noisy = {f"noise-{noise}": make(noise=noise) for noise in self.noises}
        distracted = {f"distractors-{count}": make(distractors=count) for count in self.distractors}
        return {_BEAR: FuzzyBear(), "plain": make(), **noisy, **distracted}

    def parts(self) -> dict[str, Part]:
        """See `Experiment`: one for each case, method and seed, and the reference."""
        trainings = {
            f"{case}-{method}-{seed}": partial(self._train, system, method, seed)
            for (case, system), method, seed in product(self.cases().items(), self.methods, range(self.seeds))
        }
        return {"reference": self._refer, **trainings}

    def _refer(self, folder: Path) -> dict[str, Any]:
        reference = measure_reference(self.cases()["plain"], iterations=self.iterations)
        return {"random": reference.random, "optimum": reference.optimum, "bear_optimum": FuzzyBear().optimum}

    def _train(self, system: System, method: str, seed: int, folder: Path) -> dict[str, Any]:
        recipe = BpoRecipe(
            type(system).__name__,
            horizon=system.horizon,
            seed=seed,
            env_steps=self.env_steps,
            warmup=self.warmup,
            policy_every=self.policy_every,
            policy_learning_rate=self.policy_learning_rate,
            evaluation_episodes=self.evaluation_episodes,
            **METHODS[method],
        )
        return {"returns": train_and_evaluate(recipe, folder, system)}

    def summarize(self, results: Results) -> dict[str, Any]:
        """Mean with its interval, by case and method."""
        reference = results["reference"]
        summary: dict[str, Any] = {}
        for case, method in product(self.cases(), self.methods):
            zero, one = (
                (0.0, reference["bear_optimum"]) if case == _BEAR else (reference["random"], reference["optimum"])
            )
            finals = [results[f"{case}-{method}-{seed}"]["returns"][-1][1] for seed in range(self.seeds)]
            scores = [(final - zero) / (one - zero) for final in finals]
            summary.setdefault(case, {})[method] = mean_interval(scores)
        return summary

    def draw(self, results: Results, summary: dict[str, Any]) -> Figure:
        """Bars of methods, grouped by case."""
        figure = Figure((11, 4.5), layout="constrained")
        axes = figure.subplots()
        width = 0.8 / len(self.methods)
        for place, method in enumerate(self.methods):
            middle, spans = bars(summary[case][method] for case in summary)
            at = np.arange(len(summary)) + (place - (len(self.methods) - 1) / 2) * width
            axes.bar(at, middle, width, yerr=spans, capsize=2, label=method)
        axes.set_xticks(range(len(summary)), list(summary))
        axes.set(ylabel="normalised return (95% interval)")
        axes.legend(fontsize=8)
        return figure
