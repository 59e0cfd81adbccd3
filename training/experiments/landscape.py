"""What gradient ascent sees of tasks in which only the first action matters (spec item 10).

One bounce has a kink, the double pendulum is chaotic. Models are fitted to episodes of a uniform first action and zeros after
it; then return and derivative over the first action are compared with those of the simulator, and climbed.
"""

from collections.abc import Callable
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
from training.awm.episodes import first_action_plans, record
from training.awm.fit import Fitting
from training.awm.gradient import follow
from training.experiments.experiment import Part, Results
from training.experiments.forms import COLORS, fitted_model, new_model, starts_of
from training.experiments.statistics import bars, mean_interval
from training.loop import update_seed

__all__ = ["Landscape", "basin", "climb", "count_maxima"]

_CHUNK = 64  # actions at a time: a history-conditioned transformer keeps a copy of its cache for every step
_TRUE_CHUNK = 512  # the double pendulum keeps 6 kB an action and step
_NEAR = 0.05  # so far from the best action a climb may end to count as a success
_NUMBERS = ("maxima", "variation", "largest_slope", "median_slope", "error", "success", "basin", "earned")


@dataclass(frozen=True)
class Landscape:
    """Return and derivative over the first action, and climbs from even starts.

    Args:
        system: Name of a real system in which only the first action matters.
        horizons: Steps of the episodes, H.
        forms: Names of models, see `training.experiments.forms`.
        seeds: How many seeds, from 0; a seed decides data and weights.
        episodes: Recorded episodes to fit to.
        grid: Actions from -1 to 1 at which the landscape is taken.
        starts: Climbs.
        climb_steps: Steps of a climb.
        fitting: How models are fitted.
    """

    system: str
    horizons: tuple[int, ...]
    forms: tuple[str, ...] = ("markov", "awm-rnn", "awm-lstm", "awm-transformer", "hwm-transformer")
    seeds: int = 5
    episodes: int = 2000
    grid: int = 2001
    starts: int = 100
    climb_steps: int = 150
    fitting: Fitting = field(default_factory=lambda: Fitting(updates=20_000, decay=True))

    def parts(self) -> dict[str, Part]:
        """See `Experiment`: the simulator once, and models for each seed, for each horizon."""
        true = [(horizon, "simulator", 0) for horizon in self.horizons]
        cases = [*true, *product(self.horizons, self.forms, range(self.seeds))]
        return {"-".join(map(str, case)): partial(self._measure, *case) for case in cases}

    def _measure(self, horizon: int, form: str, seed: int, folder: Path) -> dict[str, Any]:
        system = make_system(self.system, horizon=horizon)
        model: WorldModel = Simulator(system)
        if form != "simulator":
            torch.manual_seed(update_seed(seed, "data", 0))
            first = torch.rand(self.episodes, system.action_dim) * 2 - 1
            episodes = record(system, first_action_plans(first, horizon))
            model = fitted_model(new_model(form, system, seed, episodes), episodes, self.fitting, folder, seed)
        actions = torch.linspace(-1, 1, self.grid, dtype=torch.float64)
        returns, slopes = _landscape(model, system, actions)
        true, _ = _landscape(Simulator(system), system, actions)
        starts = torch.linspace(-1, 1, self.starts, dtype=torch.float64)
        ends = climb(lambda at: _landscape(model, system, at)[1], starts, self.climb_steps)
        earned, _ = _landscape(Simulator(system), system, ends)
        best = float(actions[true.argmax()])
        low, high = basin(actions, true)
        return {
            "returns": _digits(returns),
            "slopes": _digits(slopes),
            "maxima": count_maxima(returns),
            "variation": float(returns.diff().abs().sum()),
            "largest_slope": float(slopes.abs().max()),
            "median_slope": float(slopes.abs().median()),
            "error": float((returns - true).abs().mean()),
            "best_action": best,
            "ends": _digits(ends),
            "success": float(((ends - best).abs() <= _NEAR).double().mean()),
            "basin": float(((low <= ends) & (ends <= high)).double().mean()),
            "earned": float(earned.mean()),
        }

    def summarize(self, results: Results) -> dict[str, Any]:
        """Each number with an interval over the seeds, by horizon and form."""
        summary: dict[str, Any] = {}
        for horizon, form in product(self.horizons, ("simulator", *self.forms)):
            seeds = range(1 if form == "simulator" else self.seeds)
            runs = [results[f"{horizon}-{form}-{seed}"] for seed in seeds]
            entry = {name: mean_interval([run[name] for run in runs]) for name in _NUMBERS}
            summary.setdefault(str(horizon), {})[form] = entry
        return summary

    def draw(self, results: Results, summary: dict[str, Any]) -> Figure:
        """Return and slope of the first seed, and where climbs end, a row a horizon."""
        figure = Figure((14, 3.6 * len(self.horizons)), layout="constrained")
        grid = figure.subplots(len(self.horizons), 3, squeeze=False)
        actions = np.linspace(-1, 1, self.grid)
        forms = ("simulator", *self.forms)
        for row, horizon in zip(grid, self.horizons, strict=True):
            for form in forms:
                result = results[f"{horizon}-{form}-0"]
                row[0].plot(actions, result["returns"], color=COLORS[form], lw=1, label=form)
                row[1].plot(actions, np.abs(result["slopes"]) + 1e-9, color=COLORS[form], lw=0.7)
            means, spans = bars(summary[str(horizon)][form]["basin"] for form in forms)
            row[2].barh(forms, means, xerr=spans, color=[COLORS[form] for form in forms])
            true = np.array(results[f"{horizon}-simulator-0"]["returns"])
            margin = 0.1 * float(np.ptp(true)) + 1e-9
            row[0].set(title=f"{self.system}, H = {horizon}: return", xlabel="first action")
            row[0].set_ylim(true.min() - margin, true.max() + margin)
            row[1].set(title="size of the slope", xlabel="first action", yscale="log")
            row[2].set(title="share of climbs that end in the goal's basin", xlim=(0, 1))
        grid[0, 0].legend(fontsize=7)
        return figure


def climb(slope: Callable[[Tensor], Tensor], starts: Tensor, steps: int, rate: float = 0.05) -> Tensor:
    """Climb with Adam, whose steps do not grow with the slope, inside [-1, 1]; the rate falls to zero.

    Args:
        slope: Derivative of what to climb at actions of shape (n,).
        starts: Where to begin, shape (n,).
        steps: Number of steps.
        rate: First learning rate.

    Returns:
        Where the climbs end, shape (n,).
    """
    actions = starts.clone().requires_grad_()
    optimizer = torch.optim.Adam([actions], rate)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        actions.grad = -slope(actions.detach()).nan_to_num(0.0, 0.0, 0.0)
        optimizer.step()
        with torch.no_grad():
            actions.clamp_(-1, 1)
    return actions.detach()


def basin(actions: Tensor, returns: Tensor) -> tuple[float, float]:
    """Ends of the stretch around the best action in which the return is above its median.

    Args:
        actions: Rising, shape (n,).
        returns: What they earn, shape (n,).
    """
    best = int(returns.argmax())
    outside = (returns <= returns.median()).nonzero()[:, 0]
    before, after = outside[outside < best], outside[outside > best]
    low = int(before[-1]) + 1 if len(before) else 0
    high = int(after[0]) - 1 if len(after) else len(actions) - 1
    return float(actions[low]), float(actions[high])


def count_maxima(values: Tensor) -> int:
    """Local maxima inside a row of values, shape (n,); a plateau counts once."""
    rises = values.diff()
    rises = rises[rises != 0].sign()
    return int(((rises[:-1] > 0) & (rises[1:] < 0)).sum())


def _landscape(model: WorldModel, system: System, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return and its derivative at first actions, each of shape (n,)."""
    chunk = _TRUE_CHUNK if isinstance(model, Simulator) else _CHUNK
    parts = [_chunk(model, system, part) for part in actions.split(chunk)]
    returns, slopes = zip(*parts, strict=True)
    return torch.cat(returns), torch.cat(slopes)


def _chunk(model: WorldModel, system: System, actions: Tensor) -> tuple[Tensor, Tensor]:
    first = actions.detach().unsqueeze(1).requires_grad_()
    plans = first_action_plans(first, system.horizon)
    noise = plans.new_zeros(*plans.shape[:2], model.noise_size)
    returns = follow(model, starts_of(system, len(plans)), plans, noise)[1].sum(1)
    (slopes,) = torch.autograd.grad(returns.sum(), first)
    return returns.detach(), slopes.squeeze(1)


def _digits(values: Tensor) -> list[float]:
    """Enough digits for a figure, and no NaN, which JSON does not know."""
    return [float(f"{value:.6g}") for value in values.nan_to_num(0.0).tolist()]
