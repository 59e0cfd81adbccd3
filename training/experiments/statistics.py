"""Estimates with intervals: what a few seeds allow to say."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from rliable import library, metrics

__all__ = ["bars", "growth", "iqm_interval", "mean_interval"]

_REPETITIONS = 5000
_PERCENTILES = (2.5, 97.5)


def mean_interval(values: Any) -> dict[str, Any]:
    """Mean of the values of the seeds, with the 95% percentile bootstrap interval, which always comes out the same.

    Args:
        values: Shape (seeds,), finite.

    Returns:
        ``mean``, ``low``, ``high`` and ``values``.
    """
    values = np.asarray(values, float)
    means = np.random.default_rng(0).choice(values, (_REPETITIONS, len(values))).mean(1)
    low, high = np.percentile(means, _PERCENTILES)
    return {"mean": float(values.mean()), "low": float(low), "high": float(high), "values": values.tolist()}


def iqm_interval(scores: Any) -> dict[str, Any]:
    """Interquartile mean over runs and tasks, with the 95% interval of a bootstrap that is stratified by task.

    Computed by rliable (Agarwal et al., NeurIPS 2021).

    Args:
        scores: Shape (runs, tasks), finite.

    Returns:
        ``iqm``, ``low`` and ``high``.
    """
    scores = np.asarray(scores, float)
    points, intervals = library.get_interval_estimates(
        {"": scores},
        lambda drawn: np.array([metrics.aggregate_iqm(drawn)]),
        reps=_REPETITIONS,
        random_state=np.random.RandomState(0),
    )
    low, high = intervals[""][:, 0]
    return {"iqm": float(points[""][0]), "low": float(low), "high": float(high)}


def bars(entries: Iterable[Mapping[str, Any]], middle: str = "mean") -> tuple[np.ndarray, np.ndarray]:
    """What an error bar is drawn of: middles, shape (n,), and how far the intervals reach to either side, shape (2, n).

    Args:
        entries: Results of `mean_interval`, or of `iqm_interval`.
        middle: Name of the estimate, ``"mean"`` or ``"iqm"``.
    """
    low, at, high = np.array([(entry["low"], entry[middle], entry["high"]) for entry in entries]).T
    return at, np.stack([at - low, high - at]).clip(0)


def growth(horizons: Any, sizes: Any) -> dict[str, float]:
    """How a size grows with the horizon: as a power of it, or exponentially?

    Args:
        horizons: H, shape (n,), at least 2 different ones.
        sizes: Positive, shape (n,).

    Returns:
        ``power``, slope of log size over log H; ``rate``, slope of log size over H; and what share of the variance of log size
        each line explains, ``power_fit`` and ``rate_fit``. Near 1, ``rate_fit > power_fit`` speaks for exponential growth.
    """
    horizons, logs = np.asarray(horizons, float), np.log(np.asarray(sizes, float))
    power, power_fit = _line(np.log(horizons), logs)
    rate, rate_fit = _line(horizons, logs)
    return {"power": power, "power_fit": power_fit, "rate": rate, "rate_fit": rate_fit}


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of the line of least squares, and the share of variance that it explains."""
    slope, offset = np.polyfit(x, y, 1)
    spread = float(((y - y.mean()) ** 2).sum())
    left = float(((y - slope * x - offset) ** 2).sum())
    return float(slope), 1 - left / spread if spread else 1.0
