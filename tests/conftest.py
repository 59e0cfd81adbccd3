"""What every test shares: one thread, small snapshots with random weights, and no GPU where there is none."""

from pathlib import Path

import pytest
import torch

from tests.tiny import CONTROLS, KINDS, write_tiny_snapshot

torch.set_num_threads(1)  # two OpenMP threads spin against each other when something else runs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch sees none here"))


@pytest.fixture(scope="session")
def tiny_snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of a small snapshot of each kind; read only."""
    folder = tmp_path_factory.mktemp("snapshots")
    return {kind: write_tiny_snapshot(folder / kind, kind) for kind in (*KINDS, *CONTROLS)}


@pytest.fixture(scope="session", params=KINDS)
def tiny_snapshot(request: pytest.FixtureRequest, tiny_snapshots: dict[str, Path]) -> Path:
    """Each of the small snapshots in turn; read only."""
    return tiny_snapshots[request.param]
