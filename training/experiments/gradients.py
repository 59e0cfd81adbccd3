"""How the policy gradient of each family grows with the horizon, and where it points (spec items 8 and 9).

Norms alone say little: a gradient may be small and wrong. So the cosine to the gradient through the true equations stands
beside them, for models before and after they are fitted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from learned_envs.envs.real.simulator import Simulator
from learned_envs.envs.real.systems import System, make_system
from learned_envs.world_model import WorldModel
from training.awm.episodes import record, uniform_plans
from training.awm.fit import Fitting, prediction_error
from training.awm.gradient import follow, imagine
from training.awm.policy import Policy
from training.experiments.experiment import Part, Results
from training.experiments.forms import COLORS, FORMS, fitted_model, new_model, starts_of
from training.experiments.statistics import growth, mean_interval
from training.loop import update_seed

__all__ = ["GradientGrowth"]

_MEASURES = ("norm", "cosine", "sensitivity")


@dataclass(frozen=True)
class GradientGrowth:
    """Norm and direction of the policy gradient against the horizon.

    The step of the systems stays as it is when the horizon grows, so that a longer horizon means a longer time. The policy is
    a new one.

    Args:
        systems: Names of real systems; deterministic ones.
        forms: Names of models, see `training.experiments.forms`.
        horizons: Steps of the episodes, H.
        seeds: How many seeds, from 0; a seed decides data, weights and policy.
        episodes: Recorded episodes of uniform actions to fit to.
        batch: Episodes that a gradient is the mean of.
        fitting: How models are fitted.
    """

    systems: tuple[str, ...] = ("CancerTreatment", "CopyTask")
    forms: tuple[str, ...] = tuple(FORMS)
    horizons: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    seeds: int = 5
    episodes: int = 256
    batch: int = 16
    fitting: Fitting = field(default_factory=lambda: Fitting(updates=2000, decay=True))

    def parts(self) -> dict[str, Part]:
        """See `Experiment`: one for each model, system, horizon and seed."""
        cases = product(self.systems, ("simulator", *self.forms), self.horizons, range(self.seeds))
        return {"-".join(map(str, case)): partial(self._measure, *case) for case in cases}

    def _measure(self, name: str, form: str, horizon: int, seed: int, folder: Path) -> dict[str, Any]:
        system = make_system(name, horizon=horizon, fixed="dt")
        torch.manual_seed(update_seed(seed, "data", 0))
        episodes = record(system, uniform_plans(system, self.episodes))
        held_back = record(system, uniform_plans(system, 32, torch.float64))
        policy = Policy(episodes.observations.shape[-1], system.action_dim)
        policy.normalizer.fit(episodes.observations)
        policy = policy.double()
        truth = self._gradient(Simulator(system), system, policy, seed)
        if form == "simulator":
            return {"trained": self._describe(truth, truth)}
        model = new_model(form, system, seed, episodes).double().requires_grad_(False)
        initial = self._gradient(model, system, policy, seed)
        model = fitted_model(model.float().requires_grad_(True), episodes, self.fitting, folder, seed)
        return {
            "initial": self._describe(initial, truth),
            "trained": self._describe(self._gradient(model, system, policy, seed), truth),
            "error": float(prediction_error(model, held_back).mean()),
        }

    def _gradient(self, model: WorldModel, system: System, policy: Policy, seed: int) -> tuple[Tensor, Tensor]:
        """Gradient of the return with respect to the policy, and Jacobian of the last state by the first action."""
        torch.manual_seed(update_seed(seed, "actor noise", 0))  # the same for every model
        starts = starts_of(system, self.batch)
        imagined = imagine(model, starts, policy, system.horizon)
        gradients = torch.autograd.grad(imagined.rewards.sum(1).mean(), list(policy.parameters()))
        plan = imagined.actions.detach().requires_grad_()
        noise = plan.new_zeros(*plan.shape[:2], model.noise_size)
        last = follow(model, starts, plan, noise)[0][:, -1, : system.state_dim].sum(0)
        rows = [_first_action(number, plan) for number in last]
        return torch.cat([gradient.flatten() for gradient in gradients]), torch.stack(rows, 1)

    def _describe(self, mine: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor]) -> dict[str, float]:
        """Norm, cosine to the truth, and the mean norm of the Jacobian by the first action."""
        cosine = torch.nn.functional.cosine_similarity(mine[0], truth[0], dim=0)
        sensitivity = mine[1].flatten(1).norm(dim=1).mean()
        return {"norm": float(mine[0].norm()), "cosine": float(cosine), "sensitivity": float(sensitivity)}

    def summarize(self, results: Results) -> dict[str, Any]:
        """Each measure with intervals, and how norms and Jacobians grow; by system, form and whether fitted."""
        summary: dict[str, Any] = {}
        for system, form, when in self._curves():
            values = {
                measure: np.array([self._values(results, system, form, when, h, measure) for h in self.horizons])
                for measure in _MEASURES
            }
            entry: dict[str, Any] = {
                measure: {str(h): mean_interval(row) for h, row in zip(self.horizons, values[measure], strict=True)}
                for measure in _MEASURES
            }
            for measure in ("norm", "sensitivity"):
                entry[f"{measure}_growth"] = self._growth(values[measure])
            summary.setdefault(system, {}).setdefault(form, {})[when] = entry
        return summary

    def _growth(self, sizes: np.ndarray) -> dict[str, Any] | None:
        """Growth of sizes, shape (horizons, seeds), with intervals over seeds; None if a size is 0 or there is one horizon."""
        if len(self.horizons) < 2 or not (sizes > 0).all():
            return None
        fits = [growth(self.horizons, column) for column in sizes.T]
        return {name: mean_interval([fit[name] for fit in fits]) for name in fits[0]}

    def _curves(self) -> Iterator[tuple[str, str, str]]:
        for system, form in product(self.systems, ("simulator", *self.forms)):
            yield from (
                (system, form, when) for when in ("initial", "trained") if (form, when) != ("simulator", "initial")
            )

    def _values(self, results: Results, system: str, form: str, when: str, horizon: int, measure: str) -> list[float]:
        return [results[f"{system}-{form}-{horizon}-{seed}"][when][measure] for seed in range(self.seeds)]

    def draw(self, results: Results, summary: dict[str, Any]) -> Figure:
        """Norm, cosine and sensitivity of fitted models over the horizon, a row a system."""
        figure = Figure((13, 4 * len(self.systems)), layout="constrained")
        grid = figure.subplots(len(self.systems), len(_MEASURES), squeeze=False)
        for row, system in zip(grid, self.systems, strict=True):
            for axes, measure in zip(row, _MEASURES, strict=True):
                for form in ("simulator", *self.forms):
                    entries = [summary[system][form]["trained"][measure][str(h)] for h in self.horizons]
                    axes.plot(self.horizons, [e["mean"] for e in entries], "o-", color=COLORS[form], label=form, ms=3)
                    low, high = ([entry[end] for entry in entries] for end in ("low", "high"))
                    axes.fill_between(self.horizons, low, high, color=COLORS[form], alpha=0.15)
                axes.set(xscale="log", xlabel="horizon H", title=f"{system}: {_TITLES[measure]}")
                if measure != "cosine":
                    axes.set_yscale("log")
        grid[0, 0].legend(fontsize=7)
        return figure


_TITLES = {
    "norm": "norm of the policy gradient",
    "cosine": "cosine to the true gradient",
    "sensitivity": "norm of d s_H+1 / d a_1",
}


def _first_action(number: Tensor, plan: Tensor) -> Tensor:
    """Derivative of a number, summed over the batch, by the first action: shape (B, m)."""
    (gradient,) = torch.autograd.grad(number, plan, retain_graph=True, allow_unused=True, materialize_grads=True)
    return gradient[:, 0]
