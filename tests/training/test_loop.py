"""The loop of long trainings: the same result whether it was interrupted or not."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from training.loop import RunError, open_run, run_stage, update_seed


class Walk:
    """A stage that walks at random, and is interrupted where asked."""

    name, log_every = "walk", 3

    def __init__(self, updates: int = 12, interrupt_at: int | None = None) -> None:
        self.updates, self.interrupt_at = updates, interrupt_at
        self.place, self.path, self.pictured = torch.zeros(2), [], []

    def update(self, step: int) -> dict[str, Tensor]:
        if step == self.interrupt_at:
            raise KeyboardInterrupt
        self.place = self.place + torch.randn(2)
        self.path.append(step)
        return {"walk/distance": self.place.norm()}

    def visualize(self, step: int) -> dict[str, Tensor]:
        self.pictured.append(step)
        return {"place": torch.zeros(1, 4, 4)}

    def state_dict(self) -> dict[str, Any]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.place = state["place"]


def _whole_walk(folder: Path, seed: int = 0) -> Tensor:
    stage = Walk()
    run_stage(stage, folder, seed)
    return stage.place


def test_interrupted_stage_ends_where_an_uninterrupted_one_does(tmp_path: Path) -> None:
    expected = _whole_walk(tmp_path / "whole")
    for interrupt_at in (5, 9):
        stage = Walk(interrupt_at=interrupt_at)
        with pytest.raises(KeyboardInterrupt):
            run_stage(stage, tmp_path / "parts", 0, checkpoint_seconds=0)
    last = Walk()
    run_stage(last, tmp_path / "parts", 0)
    assert last.path == [9, 10, 11], "updates were lost or taken twice"
    assert torch.equal(last.place, expected)


def test_folder_that_another_process_trains_in_is_left_to_it(tmp_path: Path) -> None:
    program = "from training.loop import _alone; from pathlib import Path; import sys\n"
    program += "with _alone(Path(sys.argv[1])): print(flush=True); input()"
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout and other.stdout.readline()
        with pytest.raises(RunError, match="Another process trains in"):
            run_stage(Walk(), tmp_path, 0)
        assert not list(tmp_path.iterdir())
        other.kill()
    run_stage(Walk(), tmp_path, 0)


def test_interruption_loses_only_what_came_after_the_last_checkpoint(tmp_path: Path) -> None:
    expected = _whole_walk(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run_stage(Walk(interrupt_at=5), tmp_path / "parts", 0)  # no checkpoint yet
    stage = Walk()
    run_stage(stage, tmp_path / "parts", 0)
    assert stage.path == list(range(12)) and torch.equal(stage.place, expected)


def test_finished_stage_is_restored_and_not_continued(tmp_path: Path) -> None:
    expected = _whole_walk(tmp_path)
    stage = Walk()
    run_stage(stage, tmp_path, 0)
    assert stage.path == [] and torch.equal(stage.place, expected)


def test_other_seed_goes_another_way_and_the_callers_generator_does_not_matter(tmp_path: Path) -> None:
    first = _whole_walk(tmp_path / "a")
    torch.manual_seed(12345)
    assert torch.equal(_whole_walk(tmp_path / "b"), first)
    assert not torch.equal(_whole_walk(tmp_path / "c", seed=1), first)


def test_pictures_are_drawn_with_every_checkpoint(tmp_path: Path) -> None:
    stage = Walk()
    run_stage(stage, tmp_path / "often", 0, checkpoint_seconds=0)
    assert stage.pictured == list(range(12))
    stage = Walk()
    run_stage(stage, tmp_path / "once", 0)
    assert stage.pictured == [11]


def test_seeds_of_updates_differ_by_run_stage_and_step_and_stay_the_same_for_ever() -> None:
    seeds = {update_seed(seed, stage, step) for seed in range(3) for stage in ("a", "b") for step in range(100)}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert update_seed(0, "dynamics", 7) == 8434925126903665681


def test_run_is_resumed_only_with_its_own_recipe(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    recipe = {"id": "LearnedPong-v0", "joint": {"batch": 3}, "hidden": (1, 2)}
    open_run(folder, recipe)
    before = (folder / "run.json").read_text()
    open_run(folder, recipe)
    with pytest.raises(RunError, match=r"another recipe \(it differs in: extra, joint\)"):
        open_run(folder, {**recipe, "joint": {"batch": 4}, "extra": 1})
    assert (folder / "run.json").read_text() == before
    assert json.loads(before)["joint"] == {"batch": 3}


def test_damaged_file_of_a_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()
    with pytest.raises(RunError, match=r"run\.json cannot be read as JSON .* delete it"):
        open_run(tmp_path, {})


def test_checkpoint_that_is_damaged_or_does_not_fit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "walk.pt"
    path.write_bytes(b"no checkpoint")
    with pytest.raises(RunError, match=r"walk\.pt is no checkpoint, or a damaged one. Delete it"):
        run_stage(Walk(), tmp_path, 0)
    torch.save({"step": 3, "state": {"somewhere": torch.zeros(2)}}, path)
    with pytest.raises(RunError, match=r"walk\.pt is a checkpoint of another run or version.*place"):
        run_stage(Walk(), tmp_path, 0)
