"""Scores of Atari 100k: aggregates that are known, runs of ours and of others, and what does not fit."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rliable", reason="rliable computes the intervals")

import training.scores
from training.atari100k_config import ablated, preset, reduced
from training.loop import RunError
from training.scores import Method, aggregate, compare, read_runs, reference_methods, reference_scales


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few repetitions of the bootstrap, where its result does not matter."""
    monkeypatch.setattr(training.scores, "_REPETITIONS", 20)


GAMES = tuple(reference_scales()[0])


def _result(folder: Path, game: str, seed: int, score: float, config: Any = None) -> Path:
    folder.mkdir(parents=True)
    config = json.loads(json.dumps(asdict(config or preset("faithful", game, seed))))
    content = {"format": "learned_envs.atari100k", "game": game, "seed": seed, "score": score, "config": config}
    (folder / "result.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("name", "mean", "median", "iqm", "gap", "human"),
    [
        ("TWM", 0.956, 0.505, 0.459, 0.513, 8),
        ("IRIS", 1.046, 0.289, 0.501, 0.512, 10),
        ("SimPLe", 0.332, 0.134, 0.130, 0.729, 1),
        ("SPR", 0.616, 0.396, None, None, 6),
    ],
)
def test_aggregates_of_published_runs_are_the_published_ones(
    name: str, mean: float, median: float, iqm: float | None, gap: float | None, human: int
) -> None:
    found = aggregate(reference_methods()[name], GAMES)
    for key, value in (("mean", mean), ("median", median), ("iqm", iqm), ("optimality_gap", gap)):
        assert (found[key] is None) == (value is None)
        assert value is None or found[key]["value"] == pytest.approx(value, abs=6e-4)
    assert found["games_at_or_above_human"] == human and found["games"] == 26


def test_intervals_are_those_of_a_bootstrap_over_runs_stratified_by_game() -> None:
    found = aggregate(reference_methods()["TWM"], GAMES)
    known = {"mean": (0.86, 1.06), "median": (0.33, 0.58), "iqm": (0.40, 0.52), "optimality_gap": (0.49, 0.54)}
    for name, (low, high) in known.items():
        assert found[name]["low"] == pytest.approx(low, abs=0.015) and found[name]["high"] == pytest.approx(
            high, abs=0.015
        )


def test_single_run_has_no_interval() -> None:
    found = aggregate(Method("one", {"Pong": [14.6]}), ("Pong",))
    assert found["mean"] == {"value": pytest.approx(1.0)} and found["runs"] == 1


def test_runs_are_gathered_by_game_and_by_how_they_were_made(tmp_path: Path) -> None:
    for seed, score in enumerate((10.0, 12.0)):
        _result(tmp_path / "all" / f"pong-{seed}", "Pong", seed, score)
    _result(tmp_path / "all" / "boxing", "Boxing", 0, 50.0)
    _result(tmp_path / "other", "Pong", 0, -3.0, ablated(preset("faithful", "Pong"), ("plain-entropy",)))
    _result(tmp_path / "short", "Pong", 0, -9.0, reduced(preset("compact", "Pong"), 20_000, None))
    paths = tuple(tmp_path / name for name in ("all", "other", "short"))
    found = {method.name: method.runs for method in read_runs(paths, "us")}
    assert found == {
        "us, faithful": {"Pong": [10.0, 12.0], "Boxing": [50.0]},
        "us, faithful, entropy_threshold = 1.0": {"Pong": [-3.0]},
        "us, compact, steps = 20000": {"Pong": [-9.0]},
    }


def test_runs_that_differ_in_what_a_name_leaves_out_are_not_mixed(tmp_path: Path) -> None:
    base = reduced(preset("faithful", "Pong"), 20_000, 1_000)
    for seed, part in enumerate(("uniform-sampling", "no-consistency")):
        config = ablated(base, ("short-memory", "plain-entropy", part))
        _result(tmp_path / part, "Pong", seed, float(seed), replace(config, seed=seed))
    names = {method.name for method in read_runs((tmp_path,), "us")}
    assert len(names) == 2 and any("balance = None" in name for name in names)


@pytest.mark.parametrize("names", [("TWM",), ("mine", "mine")])
def test_methods_of_the_same_name_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    paths = tuple(tmp_path / f"{number}.json" for number in range(len(names)))
    for path, name in zip(paths, names, strict=True):
        path.write_text(json.dumps({"name": name, "runs": {"Pong": [-20.0]}}))
    with pytest.raises(RunError, match=f"Two methods are called '{names[0]}'"):
        compare(paths, "us", tmp_path / "out")


def test_comparison_is_printed_written_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    for seed, score in enumerate((18.0, 20.0)):
        _result(tmp_path / "runs" / f"pong-{seed}", "Pong", seed, score)
    _result(tmp_path / "runs" / "boxing", "Boxing", 0, 50.0)
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"name": "Other", "runs": {"Pong": [1, 2, 3]}}))
    content = compare((tmp_path / "runs", other), "us", tmp_path / "out")
    assert content == json.loads((tmp_path / "out" / "scores.json").read_text())
    assert content["games"] == ["Pong"] and content["aggregates"]["Other"]["runs"] == 3
    assert content["scores"]["us, faithful"] == {"Boxing": [50.0], "Pong": [18.0, 20.0]}
    assert content["aggregates"]["TWM"]["mean"]["value"] == pytest.approx(1.119, abs=1e-3), (
        "over the same games as ours"
    )
    assert (tmp_path / "out" / "scores.png").read_bytes().startswith(b"\x89PNG")
    printed = capsys.readouterr().out
    for text in ("19.0 ± 1.0 (2)", "2.0 ± 0.8 (3)", "18.8", "-20.7", "over 1 of 26 games", "2 of 26 games"):
        assert text in printed, text


def test_games_with_more_runs_than_others_are_cut_and_that_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
) -> None:
    for seed in range(3):
        _result(tmp_path / "runs" / f"pong-{seed}", "Pong", seed, float(seed))
    for seed in range(2):
        _result(tmp_path / "runs" / f"boxing-{seed}", "Boxing", seed, float(seed))
    content = compare((tmp_path / "runs",), "us", tmp_path / "out")
    assert content["aggregates"]["us, faithful"]["runs"] == 2
    assert "games have 2 to 3 runs; aggregates take 2 of each" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is not of the form"),
        ('{"name": "x", "runs": {}}', "is not of the form"),
        ('{"runs": {"Pnog": [1]}}', r"no game 'Pnog'\. Did you mean Pong?"),
        ('{"runs": {"Pong": []}}', r"scores of Pong are \[\]"),
        ('{"runs": {"Pong": ["good"]}}', "scores of Pong are"),
        ('{"runs": {"Pong": [NaN]}}', "finite"),
    ],
)
def test_other_projects_file_that_does_not_fit_is_told(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(RunError, match=told):
        read_runs((path,), "us")


def test_missing_damaged_and_contradicting_runs_are_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no finished run"):
        read_runs((tmp_path / "nowhere",), "us")
    damaged = _result(tmp_path / "damaged", "Pong", 0, 1.0)
    (damaged / "result.json").write_text('{"format": "learned_envs.atari100k", "game": "Pong"}')
    with pytest.raises(RunError, match="lacks seed, score, config"):
        read_runs((damaged,), "us")
    twice = tuple(_result(tmp_path / str(score), "Pong", 0, score) for score in (1.0, 2.0))
    with pytest.raises(RunError, match="Pong, seed 0 is there twice"):
        read_runs(twice, "us")
    with pytest.raises(RunError, match="at least one folder"):
        compare((), "us", tmp_path)
    apart = _result(tmp_path / "boxing", "Boxing", 0, 1.0)
    other = tmp_path / "other.json"
    other.write_text('{"runs": {"Pong": [1.0]}}')
    with pytest.raises(RunError, match="no game in common"):
        compare((apart, other), "us", tmp_path)
