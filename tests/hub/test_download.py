"""Whatever the Hub answers, a download ends in the model, in the cached model and a warning, or in an error that helps."""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from huggingface_hub import constants

import learned_envs
from learned_envs.catalog import CATALOG
from learned_envs.download import download
from learned_envs.errors import MissingModelError, SnapshotError
from learned_envs.manifest import ENVIRONMENT, MANIFEST, damaged_files, write_manifest
from learned_envs.snapshot import read_snapshot
from tests.hub.conftest import TOKEN
from tests.hub.server import FaultKind, Hub
from tests.tiny import write_tiny_snapshot

REPOSITORY = "lab/model"
FILES = (MANIFEST, *ENVIRONMENT)


@pytest.fixture(scope="session")
def snapshot(tiny_snapshots: dict[str, Path]) -> Path:
    """What is published."""
    return tiny_snapshots["awm-transformer"]


@pytest.fixture
def commit(hub: Hub, snapshot: Path) -> str:
    """It is published, and tagged v1.0."""
    return hub.store.upload(REPOSITORY, snapshot, tag="v1.0")


@pytest.fixture
def newer(hub: Hub, commit: str, tmp_path: Path) -> Callable[[], str]:
    """Publishes a second version."""

    def publish() -> str:
        return hub.store.upload(REPOSITORY, write_tiny_snapshot(tmp_path / "newer", "awm-rnn"))

    return publish


def _same(folder: Path, other: Path) -> bool:
    return all((folder / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def _silently(*arguments: Any, **keywords: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return download(*arguments, **keywords)


@pytest.mark.parametrize("revision", [None, "main", "v1.0", "commit"])
def test_repository_is_found_by_branch_tag_and_commit(hub: Hub, commit: str, snapshot: Path, revision: str) -> None:
    folder = _silently(REPOSITORY, commit if revision == "commit" else revision)
    assert _same(folder, snapshot) and folder.name == commit


def test_only_files_of_the_format_are_fetched(hub: Hub, snapshot: Path, tmp_path: Path) -> None:
    folder = copytree(snapshot, tmp_path / "with more")
    for name in ("evil.py", "pytorch_model.bin", "model.pkl", "README.md", "preview.gif"):
        (folder / name).write_bytes(b"\x80\x04cos\nsystem\n")
    hub.store.upload(REPOSITORY, folder)
    fetched = download(REPOSITORY)
    assert sorted(path.name for path in fetched.iterdir()) == sorted(FILES)
    paths = {request.path.rpartition("/")[2] for request in hub.requests if "/resolve/" in request.path}
    assert paths == set(FILES)


def test_tag_pins_while_the_main_branch_moves_on(hub: Hub, commit: str, newer: Callable[[], str]) -> None:
    assert download(REPOSITORY).name == commit
    later = newer()
    assert download(REPOSITORY).name == later
    assert download(REPOSITORY, "v1.0").name == commit
    assert read_snapshot(download(REPOSITORY, "v1.0")).config.environment.name == "CancerTreatment"


def test_cached_commit_is_taken_without_a_request(hub: Hub, commit: str) -> None:
    download(REPOSITORY)
    hub.requests.clear()
    assert _silently(REPOSITORY, commit).name == commit
    assert not hub.requests


def test_second_load_fetches_nothing(hub: Hub, commit: str) -> None:
    download(REPOSITORY)
    hub.requests.clear()
    _silently(REPOSITORY)
    assert not [request for request in hub.requests if request.method == "GET" and "/resolve/" in request.path]


@pytest.mark.parametrize("switch", ["local_files_only", "HF_HUB_OFFLINE"])
def test_without_network_the_cache_serves_silently_and_asks_nobody(
    hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch, switch: str
) -> None:
    def load() -> Path:
        return _silently(REPOSITORY, local_files_only=switch == "local_files_only")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", switch == "HF_HUB_OFFLINE")
    with pytest.raises(MissingModelError, match=f"{REPOSITORY} is not in the cache"):
        load()
    with monkeypatch.context() as online:
        online.setattr(constants, "HF_HUB_OFFLINE", False)
        download(REPOSITORY)
    hub.requests.clear()
    assert load().name == commit
    assert not hub.requests


@pytest.mark.parametrize("revision", [None, "v1.0"])
def test_unreachable_hub_falls_back_to_the_cache_and_names_the_revision(
    hub: Hub, commit: str, revision: str | None
) -> None:
    download(REPOSITORY, revision)
    hub.close()
    with pytest.warns(UserWarning, match=f"using revision {commit} from the cache"):
        assert download(REPOSITORY, revision).name == commit


def test_unreachable_hub_and_an_empty_cache_is_told(hub: Hub, commit: str) -> None:
    hub.close()
    with pytest.raises(MissingModelError) as raised:
        download(REPOSITORY)
    message = str(raised.value)
    assert REPOSITORY in message and hub.endpoint in message and constants.HF_HUB_CACHE in message


_PASSING: dict[str, tuple[FaultKind, str, str, Any]] = {
    "the listing fails": ("status", "/api/models", "GET", 500),
    "the listing is refused for a moment": ("status", "/api/models", "GET", 429),
    "the listing is cut": ("cut", "/api/models", "GET", None),
    "the listing is dropped": ("drop", "/api/models", "GET", None),
    "the listing is slow": ("slow", "/api/models", "GET", 0.6),
    "looking up a file fails": ("status", "model.safetensors", "HEAD", 503),
    "looking up a file is dropped": ("drop", "model.safetensors", "HEAD", None),
    "looking up a file is slow": ("slow", "model.safetensors", "HEAD", 0.6),
    "a file fails": ("status", "model.safetensors", "GET", 500),
    "a file is refused for a moment": ("status", "model.safetensors", "GET", 429),
    "a file is cut": ("cut", "model.safetensors", "GET", None),
    "a file is dropped": ("drop", "model.safetensors", "GET", None),
    "a file is slow": ("slow", "model.safetensors", "GET", 0.6),
    "weights arrive changed": ("corrupt", "model.safetensors", "GET", None),
    "the configuration arrives changed": ("corrupt", "config.json", "GET", None),
    "the manifest arrives changed": ("corrupt", "manifest.json", "GET", None),
    "the ETag is wrong": ("wrong etag", "model.safetensors", "HEAD", "0" * 64),
}


@pytest.mark.parametrize("kind, path, method, value", _PASSING.values(), ids=_PASSING)
def test_fault_that_passes_ends_in_the_model(
    hub: Hub, commit: str, snapshot: Path, kind: FaultKind, path: str, method: str, value: Any
) -> None:
    hub.inject(kind, path, method, times=1, value=value)
    assert _same(_silently(REPOSITORY), snapshot)
    assert not hub.faults[0].times, "the fault was never met"


@pytest.mark.parametrize("path", ["model.safetensors", "config.json"])
def test_etag_of_another_file_ends_in_the_model(hub: Hub, commit: str, snapshot: Path, path: str) -> None:
    other = hub.store.get(REPOSITORY).commits[commit].files["manifest.json"]  # type: ignore[union-attr]
    hub.inject("wrong etag", path, times=1, value=other.etag)
    assert _same(_silently(REPOSITORY), snapshot)
    assert _same(_silently(REPOSITORY), snapshot)


_LASTING: dict[str, tuple[FaultKind, str, str, Any, type[Exception], str]] = {
    "the server is broken": ("status", "/api/models", "", 500, MissingModelError, "500"),
    "too many requests": ("status", "/api/models", "", 429, MissingModelError, "429"),
    "unauthorized": ("status", "/api/models", "", 401, MissingModelError, "hf auth login"),
    "forbidden": ("status", "/api/models", "", 403, MissingModelError, "hf auth login"),
    "gone": ("status", "/api/models", "", 410, MissingModelError, "410"),
    "a file is forbidden": ("status", "model.safetensors", "", 403, MissingModelError, "hf auth login"),
    "a file fails": ("status", "model.safetensors", "GET", 500, MissingModelError, "500"),
    "the listing is dropped": ("drop", "/api/models", "", None, MissingModelError, "not in the cache"),
    "weights arrive changed": ("corrupt", "model.safetensors", "", None, SnapshotError, "model.safetensors"),
    "starts arrive changed": ("corrupt", "starts.safetensors", "", None, SnapshotError, "starts.safetensors"),
    "the configuration arrives changed": ("corrupt", "config.json", "", None, SnapshotError, "config.json"),
    "the manifest arrives changed": ("corrupt", "manifest.json", "", None, SnapshotError, "manifest.json"),
}


@pytest.mark.parametrize("kind, path, method, value, error, words", _LASTING.values(), ids=_LASTING)
def test_fault_that_lasts_is_told_and_leaves_a_cache_that_works(
    hub: Hub,
    commit: str,
    snapshot: Path,
    kind: FaultKind,
    path: str,
    method: str,
    value: Any,
    error: type[Exception],
    words: str,
) -> None:
    hub.inject(kind, path, method, value=value)
    with pytest.raises(error) as raised:
        download(REPOSITORY)
    assert REPOSITORY in str(raised.value) and words in str(raised.value)
    hub.faults.clear()
    assert _same(_silently(REPOSITORY), snapshot)


@pytest.mark.parametrize("kind, path, method, value, error, words", _LASTING.values(), ids=_LASTING)
def test_fault_while_a_new_version_is_fetched_leaves_the_old_one_usable(
    hub: Hub,
    commit: str,
    newer: Callable[[], str],
    kind: FaultKind,
    path: str,
    method: str,
    value: Any,
    error: type[Exception],
    words: str,
) -> None:
    download(REPOSITORY)
    later = newer()
    hub.inject(kind, path, method, value=value)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            assert download(REPOSITORY).name == commit
            assert f"using revision {commit}" in str(told[-1].message)
        except error as refused:
            assert REPOSITORY in str(refused) and words in str(refused)
    assert _silently(REPOSITORY, local_files_only=True).name == commit, "half of the new version has taken its place"
    hub.faults.clear()
    assert _silently(REPOSITORY).name == later


@pytest.mark.parametrize("file", FILES)
def test_file_damaged_on_disk_is_noticed_offline_and_mended_online(
    hub: Hub, commit: str, snapshot: Path, file: str
) -> None:
    folder = download(REPOSITORY)
    blob = (folder / file).resolve()
    blob.write_bytes(blob.read_bytes()[:-2])
    with pytest.raises(SnapshotError, match=rf"{file}.*once with the network"):
        download(REPOSITORY, local_files_only=True)
    assert _same(_silently(REPOSITORY), snapshot)
    (folder / file).unlink()
    assert _same(_silently(REPOSITORY, commit), snapshot)


def test_private_repository_needs_a_token(hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = hub.store.get(REPOSITORY)
    assert repository is not None
    repository.private = True
    hub.store.put(repository)
    for token in (None, "hf_of_a_reader", "hf_of_nobody"):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(MissingModelError, match="hf auth login") as raised:
            download(REPOSITORY)
        assert token is None or token not in str(raised.value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert download(REPOSITORY).name == commit


def test_token_is_read_from_where_hf_auth_login_puts_it(hub: Hub, commit: str) -> None:
    repository = hub.store.get(REPOSITORY)
    assert repository is not None
    repository.private = True
    hub.store.put(repository)
    path = Path(constants.HF_TOKEN_PATH)
    path.parent.mkdir(parents=True)
    path.write_text(TOKEN)
    assert download(REPOSITORY).name == commit


def test_gated_repository_says_where_to_ask(hub: Hub, commit: str) -> None:
    repository = hub.store.get(REPOSITORY)
    assert repository is not None
    repository.gated = True
    hub.store.put(repository)
    with pytest.raises(MissingModelError, match=f"gated: ask for access at {hub.endpoint}/{REPOSITORY}"):
        download(REPOSITORY)


def test_repository_that_does_not_exist_is_named(hub: Hub) -> None:
    with pytest.raises(MissingModelError, match=r"no model .*/lab/nothing, or it is private"):
        download("lab/nothing")


def test_revision_that_does_not_exist_is_named_with_those_that_do(hub: Hub, commit: str) -> None:
    with pytest.raises(MissingModelError, match=r"no revision 'v9'. It has main, v1.0"):
        download(REPOSITORY, "v9")
    with pytest.raises(MissingModelError, match="no revision"):
        download(REPOSITORY, "0" * 40)


def test_somebody_elses_model_is_refused_without_fetching_it(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"architectures": ["Bert"]}')
    (tmp_path / "other" / "model.safetensors").write_bytes(b"weights")
    hub.store.upload(REPOSITORY, tmp_path / "other")
    with pytest.raises(SnapshotError, match=f"{REPOSITORY} is no snapshot of learned_envs"):
        download(REPOSITORY)
    assert not [request for request in hub.requests if "/resolve/" in request.path]


def test_file_of_another_size_than_announced_is_refused_without_fetching_it(
    hub: Hub, snapshot: Path, tmp_path: Path
) -> None:
    folder = copytree(snapshot, tmp_path / "large")
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"\0" * 2**20)
    hub.store.upload(REPOSITORY, folder)
    with pytest.raises(SnapshotError, match=r"model\.safetensors has \d+ bytes, but manifest\.json says"):
        download(REPOSITORY)
    assert not hub.count("GET", "model.safetensors")


def test_pickle_in_place_of_weights_is_refused(hub: Hub, snapshot: Path, tmp_path: Path) -> None:
    folder = copytree(snapshot, tmp_path / "pickled")
    (folder / "model.safetensors").write_bytes(b"\x80\x04\x95\x0c\x00\x00\x00cos\nsystem\n(S'touch owned'\ntR.")
    write_manifest(folder)
    hub.store.upload(REPOSITORY, folder)
    with pytest.raises(SnapshotError, match=r"model\.safetensors is not a safetensors file"):
        learned_envs.load(REPOSITORY)


def test_newer_format_on_the_hub_names_the_release(hub: Hub, snapshot: Path, tmp_path: Path) -> None:
    folder = copytree(snapshot, tmp_path / "newer")
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, "format": 3, "written_by": "4.0.0"}))
    hub.store.upload(REPOSITORY, folder)
    with pytest.raises(SnapshotError, match=r"learned-envs>=4\.0\.0"):
        learned_envs.load(REPOSITORY)


def test_full_disk_is_not_taken_for_a_broken_network(
    hub: Hub, commit: str, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    download(REPOSITORY)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(OSError, match="No space left"):
        download(REPOSITORY)


# What users call


def test_id_that_is_neither_bundled_nor_published_names_the_command_that_trains_it(hub: Hub) -> None:
    id = next(id for id in sorted(CATALOG) if not CATALOG[id].bundled)
    with pytest.raises(MissingModelError) as raised:
        gym.make(id)
    assert id in str(raised.value) and CATALOG[id].recipe in str(raised.value)


def test_id_that_is_not_bundled_comes_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    id = "LearnedPlanets-v0"
    entry = CATALOG["LearnedPong-v0"]
    folder = write_tiny_snapshot(tmp_path / "game", "compact", id=id)
    hub.store.upload(f"learned-envs/{id}", folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(CATALOG, id, type(entry)(id, "twm", entry.real, 100, "train it"))
        assert learned_envs.load(id).snapshot.id == id


def test_revision_of_a_bundled_id_comes_from_the_hub(hub: Hub, tmp_path: Path) -> None:
    folder = write_tiny_snapshot(tmp_path / "pong", "compact", id="LearnedPong-v0")
    hub.store.upload("learned-envs/LearnedPong-v0", folder, tag="v0.9")
    bundled = gym.make("LearnedPong-v0")
    other = gym.make("LearnedPong-v0", revision="v0.9")
    assert (bundled.action_space, other.action_space) == (gym.spaces.Discrete(6), gym.spaces.Discrete(3))
    envs = gym.make_vec("LearnedPong-v0", num_envs=2, revision="v0.9")
    assert envs.single_action_space == gym.spaces.Discrete(3)
    with pytest.raises(MissingModelError, match=r"no revision 'v7'.*train it"):
        gym.make("LearnedPong-v0", revision="v7")


def test_folder_comes_before_a_repository_of_the_same_name(
    hub: Hub, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny_snapshot(tmp_path / "lab" / "model", "awm-rnn", id="LearnedMine-v0")
    assert learned_envs.load(REPOSITORY).snapshot.id == "LearnedMine-v0"
    assert learned_envs.load("./lab/model").snapshot.id == "LearnedMine-v0"
    with pytest.raises(ValueError, match="local folder"):
        learned_envs.load(REPOSITORY, revision="v1.0")
    assert not hub.requests


def test_every_way_to_load_takes_the_network_switch(hub: Hub, commit: str) -> None:
    for load in (
        lambda: learned_envs.load(REPOSITORY, local_files_only=True),
        lambda: gym.make("learned_envs:Learned-v0", model=REPOSITORY, local_files_only=True),
        lambda: gym.make_vec("learned_envs:Learned-v0", num_envs=2, model=REPOSITORY, local_files_only=True),
    ):
        with pytest.raises(MissingModelError, match="not in the cache"):
            load()
    assert not hub.requests


def test_loading_from_the_cache_is_not_slowed_by_a_hub_that_hangs(hub: Hub, commit: str) -> None:
    download(REPOSITORY)
    hub.inject("slow", value=30)
    begin = time.monotonic()
    with pytest.warns(UserWarning, match=commit):
        download(REPOSITORY)
    assert time.monotonic() - begin < 10
    begin = time.monotonic()
    assert not list(damaged_files(_silently(REPOSITORY, commit)))
    assert time.monotonic() - begin < 1


def test_downloaded_model_plays_as_the_folder_it_was_published_from(hub: Hub, commit: str, snapshot: Path) -> None:
    def play(model: str) -> list[np.ndarray]:
        env = gym.make("learned_envs:Learned-v0", model=model)
        env.action_space.seed(1)
        seen = [env.reset(seed=3)[0]]
        return [*seen, *(env.step(env.action_space.sample())[0] for _ in range(20))]

    assert all(np.array_equal(mine, its) for mine, its in zip(play(REPOSITORY), play(str(snapshot)), strict=True))
