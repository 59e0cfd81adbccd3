"""What every test shares: one thread, no network, small snapshots with random weights, and no GPU where there is none."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import gettempdir

import pytest
import torch

from tests.tiny import CONTROLS, KINDS, write_tiny_snapshot

# Read when huggingface_hub is imported: nobody's models, tokens or network decide how a test ends.
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HOME": f"{gettempdir()}/no-such-folder", "HF_HUB_DISABLE_TELEMETRY": "1"}
os.environ.pop("HF_TOKEN", None)

torch.set_num_threads(1)  # two OpenMP threads spin against each other when something else runs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch sees none here"))


@pytest.fixture(autouse=True)
def gradients_stay_on() -> Iterator[None]:
    """Name the test that leaves gradients off, not the hundred after it that need them."""
    yield
    left_on = torch.is_grad_enabled()
    torch.set_grad_enabled(True)
    assert left_on, "gradients were left off"


@pytest.fixture(scope="session")
def tiny_snapshots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of a small snapshot of each kind; read only."""
    folder = tmp_path_factory.mktemp("snapshots")
    return {kind: write_tiny_snapshot(folder / kind, kind) for kind in (*KINDS, *CONTROLS)}


@pytest.fixture(scope="session", params=KINDS)
def tiny_snapshot(request: pytest.FixtureRequest, tiny_snapshots: dict[str, Path]) -> Path:
    """Each of the small snapshots in turn; read only."""
    return tiny_snapshots[request.param]
