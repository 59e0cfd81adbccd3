"""The environments that every contract suite runs over: all bundled ids, and small ones of every form of model."""

from pathlib import Path

import pytest

from learned_envs.catalog import BUNDLED, CATALOG
from tests.contract.vector_checker import Subject
from tests.tiny import CONTROLS, KINDS

_BUNDLED = sorted(id for id, entry in CATALOG.items() if entry.bundled)
_GAMES = [id for id in _BUNDLED if CATALOG[id].real[0] == "atari"] + [f"tiny-{kind}" for kind in KINDS]
_CONTROLS = [id for id in _BUNDLED if CATALOG[id].real[0] == "system"] + [f"tiny-{kind}" for kind in CONTROLS]


@pytest.fixture(scope="session", params=_GAMES + _CONTROLS)
def subject(request: pytest.FixtureRequest, tiny_snapshots: dict[str, Path]) -> Subject:
    """Each learned environment in turn."""
    return _make_subject(request.param, tiny_snapshots)


@pytest.fixture(scope="session", params=_GAMES)
def game(request: pytest.FixtureRequest, tiny_snapshots: dict[str, Path]) -> Subject:
    """Each learned game in turn."""
    return _make_subject(request.param, tiny_snapshots)


@pytest.fixture(scope="session", params=_CONTROLS)
def control(request: pytest.FixtureRequest, tiny_snapshots: dict[str, Path]) -> Subject:
    """Each learned control problem in turn."""
    return _make_subject(request.param, tiny_snapshots)


def _make_subject(name: str, tiny_snapshots: dict[str, Path]) -> Subject:
    if name in CATALOG:
        return Subject(name, name, BUNDLED / name)
    folder = tiny_snapshots[name.removeprefix("tiny-")]
    return Subject(name, "learned_envs:Learned-v0", folder, {"model": str(folder)})
