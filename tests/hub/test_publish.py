"""What was built and published is what users of the repository play, to the bit; and nothing is published unchecked."""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from huggingface_hub import HfApi

import learned_envs
from hub.__main__ import main
from hub.build import build
from hub.card import card_settings, write_card
from hub.catalogue import pull, rows
from hub.check import _play as play_trial
from hub.check import check
from hub.publish import publish, publish_all
from learned_envs.cli import main as command_line
from learned_envs.errors import MissingModelError, SnapshotError
from learned_envs.manifest import CARD, MANIFEST, PREVIEW, write_manifest
from learned_envs.snapshot import write_snapshot
from tests.hub.server import Hub
from tests.tiny import tiny_model, tiny_snapshot_config, tiny_starts, write_tiny_snapshot

REPOSITORY = "lab/pong"
_MEASURED = {"open_loop": {"ball": {"1": 0.95, "15": 0.5}, "rollouts": 8}, "looks_right": 0.75}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot that can be published, made from the folder of a run; read only."""
    run = tmp_path_factory.mktemp("runs") / "run"
    model = tiny_model("compact")
    config = tiny_snapshot_config(model.config, "LearnedPong-v0")
    write_snapshot(run / "snapshot", config, model, tiny_starts(model.config), _MEASURED)
    (run / "run.json").write_text('{"preset": "compact", "seed": 3}')
    (run / "dynamics.pt").write_bytes(b"a pickle that nobody opens")
    return build(run, run.parent / "built", REPOSITORY)


@pytest.fixture
def folder(built: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return copytree(built, tmp_path / "copy")


def _play(model: str, **keywords: Any) -> list[np.ndarray]:
    env = gym.make("learned_envs:Learned-v0", model=model, **keywords)
    env.action_space.seed(1)
    observation, _ = env.reset(seed=3)
    seen = [observation]
    for _ in range(30):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen += [observation, np.array([reward, terminated, truncated])]
        if terminated or truncated:
            seen.append(env.reset()[0])
    return seen


def _commits(hub: Hub, repository: str = REPOSITORY) -> int:
    found = hub.store.get(repository)
    return len(found.commits) if found else 0


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["hub", *arguments])
    main()


def test_folder_named_like_an_id_is_tried_itself(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copytree(built, tmp_path / "LearnedHarvest-v0")
    monkeypatch.chdir(tmp_path)
    assert play_trial(Path("LearnedHarvest-v0"))[0].shape == (4, 64, 64)


# Round trip


def test_published_model_steps_the_identical_trajectory(hub: Hub, publisher: str, built: Path, cache: Path) -> None:
    commit = publish(built, REPOSITORY, tag="v1.0")
    assert commit and not cache.exists()
    local = _play(str(built))
    for keywords in ({}, {"revision": "v1.0"}, {"revision": commit}):
        there = _play(REPOSITORY, **keywords)
        assert len(there) == len(local)
        assert all(
            mine.dtype == its.dtype and np.array_equal(mine, its) for mine, its in zip(local, there, strict=True)
        )


def test_real_twins_and_commands_take_a_revision(
    hub: Hub, publisher: str, built: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(built, REPOSITORY, tag="v1.0")
    learned_envs.make_real(REPOSITORY, revision="v1.0").close()
    for make in (learned_envs.make_real, partial(learned_envs.make_real_vec, num_envs=1)):
        with pytest.raises(MissingModelError, match="no revision 'v9'"):
            make(REPOSITORY, revision="v9")
    for command in ("info", "demo", "play", "transfer"):
        with pytest.raises(SystemExit):
            command_line([command, REPOSITORY, "--revision", "v9"])
        assert "no revision 'v9'" in capsys.readouterr().err


def test_publishing_again_without_change_makes_no_commit(hub: Hub, publisher: str, built: Path) -> None:
    first = publish(built, REPOSITORY, tag="v1.0")
    before = _commits(hub)
    hub.requests.clear()
    assert publish(built, REPOSITORY, tag="v1.0") == first
    assert publish(built, REPOSITORY) == first
    assert _commits(hub) == before
    assert {request.method for request in hub.requests} == {"GET"}


def test_repository_that_was_made_beforehand_is_filled(hub: Hub, publisher: str, built: Path) -> None:
    """Or by a first attempt that was cut off."""
    HfApi().create_repo(REPOSITORY)
    publish(built, REPOSITORY)
    assert learned_envs.load(REPOSITORY).config == learned_envs.load(built).config


def test_everything_goes_in_one_commit_and_later_only_what_changed(
    hub: Hub, publisher: str, folder: Path, tmp_path: Path
) -> None:
    publish(folder, REPOSITORY)
    assert _commits(hub) == 2, "the repository's own first one, and ours"
    model = tiny_model("compact")
    config = tiny_snapshot_config(model.config, "LearnedPong-v0")
    better = {**_MEASURED, "looks_right": 0.875}
    write_snapshot(tmp_path / "run", config, model, tiny_starts(model.config), better)
    hub.requests.clear()
    commit = publish(build(tmp_path / "run", tmp_path / "better", REPOSITORY), REPOSITORY, tag="v2")
    repository = hub.store.get(REPOSITORY)
    assert repository and len(repository.commits) == 3
    assert not [request for request in hub.requests if request.method == "PUT"], "weights were sent again"
    notes = repository.commits[str(commit)].message
    assert "- looks right: 0.875 (0.75 before)" in notes and "- fidelity.json: changed" in notes
    assert "model.safetensors" not in notes
    assert repository.tags == {"v2": commit} and repository.tag_messages["v2"] == notes


def test_weights_in_parts_arrive_whole(tmp_path: Path, hub: Hub, publisher: str, built: Path) -> None:
    hub.part_size = 2**14
    publish(built, REPOSITORY)
    assert any(request.path.endswith("/complete") for request in hub.requests)
    out = pull(REPOSITORY, out=tmp_path / "pulled")
    assert (out / "model.safetensors").read_bytes() == (built / "model.safetensors").read_bytes()


def test_pulled_folder_is_a_snapshot_that_can_be_published(
    hub: Hub, publisher: str, built: Path, tmp_path: Path
) -> None:
    first = publish(built, REPOSITORY, tag="v1.0")
    out = pull(REPOSITORY, "v1.0", tmp_path / "pulled")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in built.iterdir()
    }
    assert publish(out, REPOSITORY) == first
    with pytest.raises(FileExistsError, match="pulled exists"):
        pull(REPOSITORY, out=out)


def test_card_names_the_repository_it_is_published_to_and_the_folder_stays_as_it_is(
    hub: Hub, publisher: str, folder: Path, tmp_path: Path
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    publish(folder, "someone/fork", private=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    text = (pull("someone/fork", out=tmp_path / "fork") / CARD).read_text()
    assert 'model="someone/fork"' in text and REPOSITORY not in text
    repository = hub.store.get("someone/fork")
    assert repository and repository.private


def test_dry_run_changes_nothing(hub: Hub, publisher: str, built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert publish(built, REPOSITORY, tag="v1", dry_run=True) is None
    assert hub.store.get(REPOSITORY) is None
    assert {request.method for request in hub.requests} == {"GET"}
    printed = capsys.readouterr().out
    assert "model.safetensors: new" in printed and "dry run" in printed


def test_tag_is_never_given_a_second_meaning(hub: Hub, publisher: str, folder: Path) -> None:
    first = publish(folder, REPOSITORY, tag="v1.0")
    (folder / "fidelity.json").write_text('{"looks_right": 0.5}')
    write_manifest(folder)
    build(folder, folder, REPOSITORY)
    with pytest.raises(ValueError, match=f"tag v1.0 of {REPOSITORY} stands for {first} already"):
        publish(folder, REPOSITORY, tag="v1.0")
    assert _commits(hub) == 2


def test_without_a_token_that_may_write_nothing_is_published_and_no_token_is_shown(
    hub: Hub, built: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises((MissingModelError, OSError)):
        publish(built, REPOSITORY)
    for token in ("hf_of_a_reader", "hf_of_nobody"):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(SystemExit) as raised:
            _run(monkeypatch, "publish", str(built), "--repo", REPOSITORY)
        assert "hf auth login" in str(raised.value)
        printed = capsys.readouterr()
        assert token not in f"{raised.value}{printed.out}{printed.err}"
    assert hub.store.get(REPOSITORY) is None


def test_whoever_published_meanwhile_is_not_overwritten(
    hub: Hub, publisher: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(folder, REPOSITORY)
    (folder / PREVIEW).unlink()
    from hub import publish as module

    compare = module.compare

    def meanwhile(*arguments: Any) -> Any:
        hub.store.commit(REPOSITORY, {"notes.txt": hub.store.add("notes.txt", b"mine")})
        return compare(*arguments)

    monkeypatch.setattr(module, "compare", meanwhile)
    write_card(folder)
    with pytest.raises(MissingModelError, match="412"):
        publish(folder, REPOSITORY)


# What is refused


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "model.pkl").write_bytes(b"\x80\x04."), "model.pkl is no part of a snapshot"),
        (lambda folder: (folder / "hook.py").write_text("import os"), "hook.py is no part of a snapshot"),
        (lambda folder: (folder / CARD).write_text("# Best model ever"), "README.md"),
        (lambda folder: (folder / CARD).unlink(), "README.md"),
        (lambda folder: (folder / "fidelity.json").write_text('{"ball": 1.0}'), "fidelity.json"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 64), "model.safetensors"),
    ],
    ids=["a pickle", "code", "another card", "no card", "better figures", "other weights"],
)
def test_snapshot_that_fails_the_check_is_not_published(
    hub: Hub, publisher: str, folder: Path, change: Callable[[Path], Any], words: str
) -> None:
    change(folder)
    with pytest.raises(SnapshotError, match=words):
        publish(folder, REPOSITORY)
    assert not hub.requests


def test_card_that_tells_other_figures_than_were_measured_is_refused(folder: Path) -> None:
    text = (folder / CARD).read_text()
    (folder / CARD).write_text(text.replace("0.75", "0.99"))
    write_manifest(folder)
    with pytest.raises(SnapshotError, match="does not tell what the snapshot holds"):
        list(check(folder))


@pytest.mark.parametrize("kind", ["compact", "faithful", "awm-transformer", "hwm-lstm"])
def test_every_family_is_built_checked_and_its_card_is_valid(tmp_path: Path, kind: str) -> None:
    folder = build(write_tiny_snapshot(tmp_path / "snapshot", kind), tmp_path / "built")
    assert len(list(check(folder))) == 6
    assert (folder / PREVIEW).is_file() == (kind in ("compact", "faithful"))


# Build


def test_build_takes_over_the_run_and_says_where_it_comes_from(built: Path) -> None:
    from learned_envs.snapshot import read_snapshot

    found = read_snapshot(built)
    assert found.config.provenance["recipe"] == {"preset": "compact", "seed": 3}
    assert found.fidelity == _MEASURED
    assert sorted(path.suffix for path in built.iterdir()) == [
        ".gif",
        ".json",
        ".json",
        ".json",
        ".md",
        *[".safetensors"] * 2,
    ]


def test_building_twice_gives_the_same_bytes(built: Path, tmp_path: Path) -> None:
    again = build(built, tmp_path / "again", REPOSITORY)
    assert {path.name: path.read_bytes() for path in built.iterdir()} == {
        path.name: path.read_bytes() for path in again.iterdir()
    }


def test_run_that_is_not_finished_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(SnapshotError, match="has no snapshot yet"):
        build(tmp_path, tmp_path / "out")
    with pytest.raises(SnapshotError, match="neither the folder of a training run nor"):
        build(tmp_path / "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_format_of_before_the_first_release_is_brought_to_todays(tmp_path: Path) -> None:
    import json

    folder = write_tiny_snapshot(tmp_path / "old", "compact")
    manifest = json.loads((folder / MANIFEST).read_text())
    content = json.loads((folder / "config.json").read_text())
    checksums = {name: manifest["files"][name]["sha256"] for name in ("model.safetensors", "starts.safetensors")}
    (folder / MANIFEST).unlink()
    (folder / "config.json").write_text(json.dumps({**content, "format": 1, "sha256": checksums}))
    weights = (folder / "model.safetensors").read_bytes()
    with pytest.raises(SnapshotError, match="python -m hub build"):
        list(check(folder))
    list(check(build(folder, folder)))
    assert (folder / "model.safetensors").read_bytes() == weights
    (folder / MANIFEST).unlink()
    checksums["model.safetensors"] = "0" * 64
    (folder / "config.json").write_text(json.dumps({**content, "format": 1, "sha256": checksums}))
    with pytest.raises(SnapshotError, match=r"model\.safetensors does not have the checksum"):
        build(folder, folder)


def test_card_is_metadata_and_a_page(built: Path) -> None:
    text = (built / CARD).read_text()
    _, head, page = text.split("---\n", 2)
    data = yaml.safe_load(head)
    assert (data["library_name"], data["license"]) == ("learned_envs", "mit")
    assert {"reinforcement-learning", "world-model", "gymnasium", "twm", "atari", "Pong"} <= set(data["tags"])
    [result] = data["model-index"]
    metrics = {metric["type"]: metric["value"] for metric in result["results"][0]["metrics"]}
    assert metrics == {"open_loop.ball.1": 0.95, "open_loop.ball.15": 0.5, "open_loop.rollouts": 8, "looks_right": 0.75}
    for expected in (f'model="{REPOSITORY}"', "preview.gif", "## Limits", '"made": "for tests"', "revision="):
        assert expected in page


def test_card_names_the_command_that_trained_it(tmp_path: Path) -> None:
    recipe, run, further = tmp_path / "recipe", tmp_path / "run", tmp_path / "further"
    write_tiny_snapshot(recipe, "compact", "LearnedPong-v0")
    model = tiny_model("faithful")
    told = {"atari100k": {"preset": "faithful", "score": 13.1}}
    config = replace(tiny_snapshot_config(model.config, "LearnedPong-v0"), provenance=told)
    write_snapshot(run, config, model, tiny_starts(model.config), {})
    refitted = {"command": "python -m training refit --recipe mine", "base": {"made": "by the recipe"}}
    write_snapshot(further, replace(config, provenance=refitted), model, tiny_starts(model.config), {})
    assert "Trained by `python -m training twm --recipe pong`." in write_card(recipe).read_text()
    assert "Trained by `python -m training atari100k --game Pong --preset faithful`." in write_card(run).read_text()
    both = "by `python -m training twm --recipe pong`, and further by `python -m training refit --recipe mine`."
    assert both in write_card(further).read_text()


# Catalogue


def test_catalogue_compares_what_is_published_with_what_is_bundled(
    hub: Hub, publisher: str, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = tmp_path / "bundled"
    copytree(built, bundled / "LearnedPong-v0")
    copytree(built, bundled / "LearnedOther-v0")
    for module in ("hub.catalogue", "hub.publish"):
        monkeypatch.setattr(f"{module}.BUNDLED", bundled)
    assert publish_all(tag="v1") == ["learned-envs/LearnedOther-v0", "learned-envs/LearnedPong-v0"]
    publish(built, "learned-envs/LearnedOnlyThere-v0")
    hub.store.delete("learned-envs/LearnedOther-v0")
    (bundled / "LearnedPong-v0" / "fidelity.json").write_text("{}")
    found = {row[0].partition("/")[2]: row for row in rows()}
    assert found["LearnedPong-v0"][2:] == ("v1", "differs in fidelity.json")
    assert found["LearnedOnlyThere-v0"][3] == "not bundled"
    assert found["LearnedOther-v0"][3].startswith("not published: python -m hub publish")
    copytree(built, bundled / "LearnedPong-v0", dirs_exist_ok=True)
    assert [row[3] for row in rows("pong")] == ["the same"]
    assert rows("nothing of the kind") == []


def test_command_line_builds_checks_publishes_lists_and_pulls(
    hub: Hub,
    publisher: str,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    _run(monkeypatch, "build", str(built.parent / "run"))
    assert (tmp_path / "dist" / "hub" / "LearnedPong-v0" / MANIFEST).is_file()
    _run(monkeypatch, "card", "dist/hub/LearnedPong-v0", "--repo", REPOSITORY, "--license", "apache-2.0")
    _run(monkeypatch, "build", "dist/hub/LearnedPong-v0")
    assert card_settings(tmp_path / "dist" / "hub" / "LearnedPong-v0") == (REPOSITORY, "apache-2.0")
    _run(monkeypatch, "check", "dist/hub/LearnedPong-v0")
    _run(monkeypatch, "publish", "dist/hub/LearnedPong-v0", "--repo", REPOSITORY, "--tag", "v1.0")
    capsys.readouterr()
    _run(monkeypatch, "catalogue", "--org", "lab")
    assert "v1.0" in capsys.readouterr().out
    _run(monkeypatch, "pull", REPOSITORY, "--revision", "v1.0")
    assert "license: apache-2.0" in (tmp_path / "pong" / CARD).read_text()
    for arguments in (["publish"], ["publish", "pong", "--all"], ["check", "nowhere"], ["pull", "lab/nothing"]):
        with pytest.raises(SystemExit, match="error: "):
            _run(monkeypatch, *arguments)
    hub.inject("drop")
    for arguments in (["catalogue"], ["publish", "pong", "--repo", REPOSITORY, "--dry-run"]):
        with pytest.raises(SystemExit, match=r"error: http://\S+ cannot be reached: "):
            _run(monkeypatch, *arguments)


def test_departments_keep_apart() -> None:
    """The library knows nothing of those that build on it, and shipping nothing of the factory."""
    import re

    root = Path(__file__).parents[2]
    for folder, foreign in (("learned_envs", "training|hub"), ("hub", "training")):
        for path in (root / folder).rglob("*.py"):
            assert not re.search(rf"^\s*(from|import) ({foreign})\b", path.read_text(), re.MULTILINE), path
