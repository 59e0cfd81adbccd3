"""Experiments: each writes its figure and its numbers, goes on where it stopped, and its tools count rightly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training.experiments import EXPERIMENTS, registry, run_experiment
from training.experiments.fuzzy_bear import FuzzyBear
from training.experiments.landscape import basin, climb, count_maxima
from training.experiments.statistics import growth, iqm_interval, mean_interval
from training.loop import RunError


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiment_writes_a_figure_and_numbers_and_is_done_once(tmp_path: Path, name: str) -> None:
    figure, numbers = run_experiment(name, tmp_path, size="quick", seeds=1)
    assert figure.read_bytes().startswith(b"\x89PNG")
    content = json.loads(numbers.read_text())
    assert content["experiment"] == name and content["size"] == "quick" and content["seeds"] == [0]
    assert "command" in content["provenance"] and content["settings"]["seeds"] == 1
    assert '"low"' in numbers.read_text() and "NaN" not in numbers.read_text()
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    run_experiment(name, tmp_path, size="quick", seeds=1)
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
    assert json.loads(numbers.read_text())["summary"] == content["summary"]


def test_interrupted_experiment_keeps_its_finished_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = registry.write_json

    def fail_on_the_second(path: Path, content: dict) -> None:
        if path.name == "8-markov-0.json":
            raise KeyboardInterrupt
        write(path, content)

    monkeypatch.setattr(registry, "write_json", fail_on_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_experiment("one-bounce", tmp_path, size="quick", seeds=1)
    assert [path.name for path in (tmp_path / "parts").iterdir()] == ["8-simulator-0.json"]
    assert not (tmp_path / "one-bounce.json").exists()


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no experiment 'gradient'\. Did you mean gradients"):
        run_experiment("gradient", tmp_path)
    with pytest.raises(RunError, match="seeds is 0"):
        run_experiment("gradients", tmp_path, seeds=0)
    assert not list(tmp_path.iterdir())


def test_growth_tells_a_power_from_an_exponential() -> None:
    horizons = np.array([5, 10, 20, 50, 100])
    power, exponential = growth(horizons, 3.0 * horizons**2.5), growth(horizons, 0.1 * 1.2**horizons)
    assert power["power"] == pytest.approx(2.5) and power["power_fit"] == pytest.approx(1)
    assert power["rate_fit"] < 0.95
    assert exponential["rate"] == pytest.approx(np.log(1.2)) and exponential["rate_fit"] == pytest.approx(1)
    assert exponential["power_fit"] < 0.95


def test_intervals_hold_the_estimate_and_shrink_with_more_seeds() -> None:
    draws = np.random.default_rng(1).normal(size=200)
    few, many = mean_interval(draws[:5]), mean_interval(draws)
    assert few["low"] < few["mean"] < few["high"] and few["values"] == draws[:5].tolist()
    assert many["high"] - many["low"] == pytest.approx(2 * 1.96 / 200**0.5, rel=0.2)
    assert mean_interval([2.0])["low"] == mean_interval([2.0])["high"] == 2.0


def test_interquartile_mean_leaves_the_outer_quarters_out_and_keeps_tasks_apart() -> None:
    scores = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [1000.0, -1000.0]])
    assert iqm_interval(scores)["iqm"] == pytest.approx((2 + 3 + 10 + 20) / 4)
    constant = np.tile([1.0, 5.0], (4, 1))  # every run of a task alike: nothing to resample
    interval = iqm_interval(constant)
    assert interval["low"] == interval["high"] == interval["iqm"] == 3.0


def test_maxima_are_counted_inside_and_a_plateau_once() -> None:
    assert count_maxima(torch.tensor([0.0, 1, 0, 2, 2, 1, 3])) == 2
    assert count_maxima(torch.tensor([3.0, 2, 1])) == 0
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)
    assert count_maxima((2 * torch.pi * 7 * x).sin()) == 7


def test_basin_is_the_stretch_around_the_best_action_above_the_median() -> None:
    actions = torch.linspace(-1, 1, 9, dtype=torch.float64)
    assert basin(actions, torch.tensor([0.0, 5, 1, 2, 4, 6, 3, 0, 4])) == (0.0, 0.25)
    assert basin(actions, torch.arange(9.0)) == (0.25, 1.0)
    assert basin(actions, -torch.arange(9.0)) == (-1.0, -0.25)


def test_climb_reaches_the_top_and_stays_inside() -> None:
    starts = torch.linspace(-1, 1, 9, dtype=torch.float64)
    assert torch.allclose(climb(lambda at: -1e6 * (at - 0.3), starts, 150), torch.tensor(0.3).double(), atol=0.02)
    assert torch.equal(climb(torch.ones_like, starts, 300), torch.ones(9, dtype=torch.float64))


def test_fuzzy_bear_pays_only_those_who_look() -> None:
    bear = FuzzyBear(deviation=2.0)
    noise = torch.randn(4000, 4, 1, generator=torch.Generator().manual_seed(0))
    seen = noise[:, 1, 0] * 2
    plans = torch.ones(4000, 3, 1)
    _, rewards = bear.rollout(plans, noise=noise)
    assert torch.allclose(rewards.sum(1), seen) and abs(rewards.sum(1).mean()) < 0.1
    plans[:, 1, 0] = seen.sign()
    assert float(bear.rollout(plans, noise=noise)[1].sum(1).mean()) == pytest.approx(bear.optimum, rel=0.03)
    with pytest.raises(ValueError, match="horizon is 4"):
        FuzzyBear(horizon=4)
