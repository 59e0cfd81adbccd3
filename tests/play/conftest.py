"""What the tests of the play page share: a small model of Pong, and the extra that the page needs."""

from dataclasses import replace
from pathlib import Path

import pytest

from learned_envs.snapshot import write_snapshot
from tests.tiny import tiny_config, tiny_model, tiny_snapshot_config, tiny_starts

pytest.importorskip("fastapi", reason='the page needs pip install "learned-envs[play]"')
pytest.importorskip("websockets")

_WORDS = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")


@pytest.fixture(scope="session")
def tiny_pong(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model with the actions of the real Pong, whose episodes end now and then; read only."""
    folder = tmp_path_factory.mktemp("pong") / "snapshot"
    usual, config = tiny_config("compact"), replace(tiny_config("compact"), num_actions=len(_WORDS))
    told = tiny_snapshot_config(usual)
    environment = replace(told.environment, num_actions=len(_WORDS), action_meanings=_WORDS)
    told = replace(told, model=config, environment=environment)
    write_snapshot(folder, told, tiny_model("compact", config=config), tiny_starts(config), {})
    return folder


@pytest.fixture
def control(tiny_snapshots: dict[str, Path]) -> str:
    """Folder of a small model of a control problem."""
    return str(tiny_snapshots["awm-transformer"])
