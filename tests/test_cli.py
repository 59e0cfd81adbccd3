"""The command line as its users meet it: what it prints, and how it says no."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import learned_envs
from learned_envs.catalog import CATALOG
from learned_envs.cli import main
from learned_envs.manifest import write_manifest
from learned_envs.snapshot import write_snapshot
from tests.tiny import tiny_model, tiny_snapshot_config, tiny_starts, write_tiny_snapshot

_FIDELITY = {
    "open_loop": {
        "rollouts": 1024,
        "ball": {"1": 0.9951, "15": 0.75},
        "own_paddle": {"1": 1.0, "15": 0.875},
        "reward_recall": 0.625,
    }
}


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., Path]:
    """Makes a snapshot with given provenance and fidelity."""

    def make(provenance: dict[str, Any], fidelity: Any) -> Path:
        model = tiny_model("compact")
        config = replace(tiny_snapshot_config(model.config), provenance=provenance)
        write_snapshot(tmp_path / "snapshot", config, model, tiny_starts(model.config), fidelity)
        return tmp_path / "snapshot"

    return make


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    printed = capsys.readouterr()
    assert raised.value.code == code
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1, "one line, and no traceback"
    return printed.err


def _rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_list_shows_every_id_with_its_game_and_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    main(["list"])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if "Learned" in line}
    assert sorted(lines) == learned_envs.list_envs()
    for id, item in CATALOG.items():
        assert f"{item.real[1]} ({item.real[0]})" in lines[id]
        assert lines[id].rstrip().endswith("bundled" if item.bundled else item.recipe)


@pytest.mark.parametrize("arguments", [["list"], ["--help"], ["demo", "--help"], ["play", "--help"]], ids=" ".join)
def test_light_commands_do_without_torch(arguments: list[str]) -> None:
    code = f"""
import sys
from learned_envs.cli import main
try:
    main({arguments})
finally:
    print([name for name in ("torch", "pydantic", "ale_py", "cv2") if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"


def test_module_runs_as_a_program() -> None:
    command = [sys.executable, "-m", "learned_envs", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "usage: learned-envs" in done.stdout
    assert all(name in done.stdout for name in ("list", "info", "demo"))


def test_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["dance"])
    assert raised.value.code == 2
    assert "dance" in capsys.readouterr().err


def test_info_shows_what_the_snapshot_says_of_itself(
    capsys: pytest.CaptureFixture[str], measured: Callable[..., Path]
) -> None:
    provenance = {"recipe": {"seed": 7, "dynamics": {"updates": 12000}}, "policies": ["random", "tracker"]}
    folder = measured(provenance, _FIDELITY)
    main(["info", str(folder)])
    text = capsys.readouterr().out
    rows = _rows(text)
    assert ["id", "LearnedTiny-v0"] in rows
    assert ["real", "environment", "Pong", "(atari)"] in rows
    assert "Box(0, 255, (4, 64, 64), uint8)" in text and "Discrete(3)" in text and "NOOP, UP, DOWN" in text
    assert ["parameters", f"{sum(item.numel() for item in tiny_model('compact').parameters()):,}"] in rows
    assert ["transformer.layers", "2"] in rows
    assert ["recipe.seed", "7"] in rows and ["recipe.dynamics.updates", "12,000"] in rows
    assert ["policies", "random,", "tracker"] in rows


def test_info_shows_a_control_problem(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    main(["info", str(write_tiny_snapshot(tmp_path / "snapshot", "awm-lstm"))])
    text = capsys.readouterr().out
    rows = _rows(text)
    assert ["real", "environment", "InvasivePlant", "(system)"] in rows
    assert "Box(-1.0, 1.0, (5,), float32)" in text and "action meanings" not in text
    assert ["episode", "limit", "30", "steps"] in rows and ["option.distractors", "1"] in rows
    assert ["family", "awm"] in rows and ["backbone", "lstm"] in rows


def test_demo_of_a_control_problem_draws_an_episode(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    folder, out = write_tiny_snapshot(tmp_path / "snapshot", "awm-rnn"), tmp_path / "out"
    main(["demo", str(folder), "--out", str(out), "--num-envs", "2", "--steps", "3"])
    text = capsys.readouterr().out
    assert "imagined / real equations" in text and "an episode of 30 steps" in text
    assert [path.name for path in out.iterdir()] == ["curves.png"]
    with Image.open(out / "curves.png") as picture:
        panels = np.asarray(picture.convert("RGB"))
    red, black = ((panels == color).all(-1).sum() for color in ((214, 39, 40), (0, 0, 0)))
    assert red > 200 and black > 200, "both curves are there"


def test_info_shows_measured_fidelity_by_step(
    capsys: pytest.CaptureFixture[str], measured: Callable[..., Path]
) -> None:
    main(["info", str(measured({}, _FIDELITY))])
    rows = _rows(capsys.readouterr().out)
    assert ["Fidelity:", "open_loop"] in rows
    assert ["rollouts", "1,024"] in rows and ["reward_recall", "0.625"] in rows
    assert ["step", "ball", "own_paddle"] in rows
    assert ["1", "0.9951", "1"] in rows and ["15", "0.75", "0.875"] in rows


def test_info_says_when_nothing_was_measured(capsys: pytest.CaptureFixture[str], tiny_snapshot: Path) -> None:
    main(["info", str(tiny_snapshot)])
    assert "fidelity was not measured" in capsys.readouterr().out


def test_info_prints_strangers_words_as_they_are(
    capsys: pytest.CaptureFixture[str], measured: Callable[..., Path]
) -> None:
    """Neither markup, which could fail or hide words, nor escape sequences, which command the terminal."""
    main(["info", str(measured({"made": "[bold]by[/nobody]", "by\x1b[2J": "\x1b]0;title\x07"}, {"odd[/]": [1, None]}))])
    text = capsys.readouterr().out
    assert "[bold]by[/nobody]" in text and "odd[/]" in text
    assert "\x1b" not in text and "\x07" not in text


@pytest.mark.parametrize("content", ["[1]", "{", "\udc80"], ids=["no object", "no JSON", "no text"])
def test_info_refuses_a_damaged_fidelity_file(
    capsys: pytest.CaptureFixture[str], measured: Callable[..., Path], content: str
) -> None:
    folder = measured({}, {})
    (folder / "fidelity.json").write_text(content, encoding="utf-8", errors="surrogateescape")
    assert "fidelity.json" in _refusal(capsys, "info", str(folder))


@pytest.mark.parametrize("command", ["info", "demo"])
def test_mistyped_id_suggests_the_nearest(capsys: pytest.CaptureFixture[str], command: str) -> None:
    message = _refusal(capsys, command, "LearnedPogn-v0")
    assert "LearnedPogn-v0" in message and "did you mean LearnedPong-v0" in message


@pytest.mark.parametrize("command", ["info", "demo"])
def test_missing_model_tells_how_to_train_it(capsys: pytest.CaptureFixture[str], command: str) -> None:
    item = next(item for item in CATALOG.values() if not item.bundled)
    message = _refusal(capsys, command, item.id)
    assert item.id in message and item.recipe in message


@pytest.mark.parametrize("command", ["info", "demo"])
def test_damaged_snapshot_is_named(
    capsys: pytest.CaptureFixture[str], measured: Callable[..., Path], command: str
) -> None:
    folder = measured({}, {})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"family": "other"}))
    write_manifest(folder)
    message = _refusal(capsys, command, str(folder))
    assert "config.json" in message and "family" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-envs", "0"], "num_envs is 0"),
        (["--steps", "0"], "steps is 0"),
        (["--device", "abacus"], "'abacus' is not available"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_demo_refuses_what_cannot_be(
    capsys: pytest.CaptureFixture[str], tiny_snapshot: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    out = tmp_path / "out"
    assert message in _refusal(capsys, "demo", str(tiny_snapshot), "--out", str(out), *options)
    assert not out.exists()


def test_demo_says_when_it_cannot_write(
    capsys: pytest.CaptureFixture[str], tiny_snapshot: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    assert "taken" in _refusal(capsys, "demo", str(tiny_snapshot), "--out", str(tmp_path / "taken"))


def test_missing_package_is_told_with_its_install_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        monkeypatch.setitem(sys.modules, "ale_py", None)
        learned_envs.make_real("LearnedPong-v0")

    monkeypatch.setattr("learned_envs.demo.run_demo", fail)
    assert 'pip install "learned-envs[atari]"' in _refusal(capsys, "demo")


def test_interruption_ends_without_a_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("learned_envs.demo.run_demo", interrupt)
    with pytest.raises(SystemExit) as raised:
        main(["demo"])
    assert raised.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"
