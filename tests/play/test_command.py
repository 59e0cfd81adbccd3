"""``learned-envs play`` as its users meet it: how it starts, how it ends, and how it says no."""

import logging
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from learned_envs.catalog import CATALOG
from learned_envs.cli import main


def _refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that the command ends with."""
    with pytest.raises(SystemExit) as raised:
        main(["play", *arguments])
    printed = capsys.readouterr()
    assert raised.value.code == 1
    assert printed.err.startswith("error: ") and printed.err.count("\n") == 1
    return printed.err


def test_serves_the_page_until_it_is_interrupted(control: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "learned_envs", "play", control, "--port", "0", "--out", str(tmp_path / "films")]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests run in the background may ignore Ctrl-C
    with subprocess.Popen(command, **pipes, preexec_fn=heed) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"Play LearnedTiny-v0 on (http://127\.0\.0\.1:\d+) \(Ctrl-C ends it\)\n", line)
        assert found is not None, line
        with urllib.request.urlopen(found[1]) as answer:
            assert b"learned_envs" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == "Stopped.\n" and process.stderr.read() == ""
    assert not (tmp_path / "films").exists(), "the folder is made with the first film"


def test_missing_emulator_is_told_and_does_not_matter(
    tiny_pong: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    main(["play", str(tiny_pong), "--port", "0"])
    text = capsys.readouterr().out
    assert "Going on without the real game" in text and 'pip install "learned-envs[atari]"' in text
    assert "Play LearnedTiny-v0 on http://127.0.0.1:" in text


def test_log_files_of_others_stay_open(control: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.FileHandler(tmp_path / "log.txt")
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    main(["play", control, "--port", "0", "--out", str(tmp_path / "films")])
    assert log.stream is not None, "tensorboard's logging library closes standard error with its handler"
    log.close()


def test_open_house_is_told(control: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    main(["play", control, "--port", "0", "--host", "0.0.0.0"])
    assert "Everybody who can reach this address can play" in capsys.readouterr().out


def test_busy_port_is_named(control: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = _refusal(capsys, control, "--port", str(port))
    assert f"port {port} on 127.0.0.1 is already in use" in message and "--port" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "65536"], "port is 65536"),
        (["--port", "-1"], "port is -1"),
        (["--host", "192.0.2.1"], "host '192.0.2.1' is no address of this machine"),
        (["--host", "no such name"], "host 'no such name' is no address of this machine"),
        (["--device", "abacus"], "device 'abacus' is not available"),
        (["--speed", "0"], "speed is 0"),
        (["--seed", "-1"], "seed is -1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_is_refused(
    control: str, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert words in _refusal(capsys, control, *(["--port", "0"] if "--port" not in options else []), *options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there, so asking for it is no mistake")
def test_absent_gpu_is_named(control: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = _refusal(capsys, control, "--port", "0", "--device", "cuda")
    assert "device 'cuda' is not available" in message and 'device="cpu"' in message


def test_unknown_id_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean LearnedPong-v0" in _refusal(capsys, "LearnedPogn-v0", "--port", "0")


def test_model_that_is_not_bundled_tells_how_to_train_it(capsys: pytest.CaptureFixture[str]) -> None:
    item = next(item for item in CATALOG.values() if not item.bundled)
    assert item.recipe in _refusal(capsys, item.id, "--port", "0")


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "websockets"])
def test_missing_extra_is_told_with_its_install_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for name in ("server", "player"):
        monkeypatch.delitem(sys.modules, f"learned_envs.play.{name}", raising=False)
    message = _refusal(capsys)
    assert package in message and 'pip install "learned-envs[play]"' in message
