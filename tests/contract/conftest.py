"""The environments that every contract suite runs over: all bundled ids, and small ones of either preset's form."""

from pathlib import Path

import pytest

from learned_envs.catalog import BUNDLED, CATALOG
from tests.contract.vector_checker import Subject
from tests.tiny import KINDS

_BUNDLED_IDS = sorted(id for id, entry in CATALOG.items() if entry.bundled)


@pytest.fixture(scope="session", params=[*_BUNDLED_IDS, *(f"tiny-{kind}" for kind in KINDS)])
def subject(request: pytest.FixtureRequest, tiny_snapshots: dict[str, Path]) -> Subject:
    """Each learned environment in turn."""
    name = request.param
    if name in CATALOG:
        return Subject(name, name, BUNDLED / name)
    folder = tiny_snapshots[name.removeprefix("tiny-")]
    return Subject(name, "learned_envs:Learned-v0", folder, {"model": str(folder)})
