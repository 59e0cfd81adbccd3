"""A Hub on loopback, with the real client pointed at it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.hub.server import Hub, User

TOKEN = "hf_of_the_publisher"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty Hub, an empty cache, and short timeouts. Who has the token may write to ``lab``."""
    server = Hub(tmp_path / "hub")
    server.tokens[TOKEN] = User("someone", ("lab", "learned-envs"))
    server.tokens["hf_of_a_reader"] = User("reader", writes=False)
    cache = tmp_path / "cache"
    for name, value in {
        "ENDPOINT": server.endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": server.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(cache),
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN_PATH": str(tmp_path / "home" / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_ETAG_TIMEOUT": 0.4,
        "HF_HUB_DOWNLOAD_TIMEOUT": 0.4,
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr("learned_envs.download._WAITS", (0.01, 0.02))
    yield server
    server.close()


@pytest.fixture
def cache(hub: Hub) -> Path:
    """Where the client keeps what it downloaded."""
    return Path(constants.HF_HUB_CACHE)


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> str:
    """A token that may write, set as users set it."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return TOKEN


@pytest.fixture
def start(hub: Hub, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts a Python program in a process of its own, configured by environment variables alone."""

    def run(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        settings = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HOME": str(tmp_path / "home-of-processes"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "OMP_NUM_THREADS": "1",
        }
        return subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **settings, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run
