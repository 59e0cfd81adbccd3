"""The ids, and what a person learns who asks for one that is not to be had."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec

import learned_envs
from learned_envs.catalog import BUNDLED, CATALOG, entry, register_all
from learned_envs.envs.real.systems import SYSTEMS
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.errors import MissingModelError, SnapshotError
from learned_envs.pretrained import find_snapshot
from tests.tiny import CONTROL_HORIZON, write_tiny_snapshot

_BUNDLED = sorted(id for id, item in CATALOG.items() if item.bundled)
_UNBUNDLED = sorted(id for id, item in CATALOG.items() if not item.bundled)


def test_import_is_light_and_registers_the_ids() -> None:
    code = (
        "import sys, gymnasium, learned_envs\n"
        "assert 'LearnedPong-v0' in gymnasium.registry\n"
        "print([name for name in ('torch', 'safetensors', 'pydantic', 'ale_py', 'cv2') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]", f"import learned_envs loaded {done.stdout}"


def test_prefixed_id_needs_no_import(tiny_snapshots: dict[str, Path]) -> None:
    folder = str(tiny_snapshots["compact"])
    code = f"import gymnasium; print(gymnasium.make('learned_envs:Learned-v0', model={folder!r}).spec.id)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "Learned-v0"


def test_all_games_of_atari_100k_have_an_id() -> None:
    games = {id: item for id, item in CATALOG.items() if item.real[0] == "atari"}
    assert len(games) == 26 and {item.family for item in games.values()} == {"twm"}
    assert set(games) == {f"Learned{item.real[1]}-v0" for item in games.values()}
    assert CATALOG["LearnedKungFuMaster-v0"].real == ("atari", "KungFuMaster")


def test_every_id_is_listed_and_known_to_gymnasium() -> None:
    assert learned_envs.list_envs() == sorted(CATALOG)
    assert set(CATALOG) <= set(gym.registry)


def test_every_control_problem_has_an_id_with_its_own_horizon() -> None:
    systems = {id: item for id, item in CATALOG.items() if item.real[0] == "system"}
    assert sorted(item.real[1] for item in systems.values()) == sorted(SYSTEMS)
    assert set(systems) | {id for id in CATALOG if CATALOG[id].real[0] == "atari"} == set(CATALOG)
    for id, item in systems.items():
        name = item.real[1]
        assert (id, item.family) == (f"Learned{name}-v0", "awm")
        assert item.recipe == f"python -m training awm --recipe {name.lower()}"
        assert item.max_episode_steps == SYSTEMS[name]().horizon


@pytest.mark.parametrize("id", [*sorted(CATALOG), "Learned-v0"])
def test_spec_survives_json(id: str) -> None:
    spec = gym.spec(id)
    again = EnvSpec.from_json(spec.to_json())
    assert (again.id, again.kwargs, again.max_episode_steps) == (spec.id, spec.kwargs, spec.max_episode_steps)


def test_registering_twice_is_silent(recwarn: pytest.WarningsRecorder) -> None:
    register_all()
    assert not list(recwarn)


@pytest.mark.parametrize("make", ["make", "make_vec", "load"])
def test_id_without_a_model_names_itself_and_the_training_command(make: str) -> None:
    id = "LearnedBoxing-v0" if "LearnedBoxing-v0" in _UNBUNDLED else _UNBUNDLED[0]
    makers = {"make": gym.make, "make_vec": lambda id: gym.make_vec(id, num_envs=2), "load": learned_envs.load}
    with pytest.raises(MissingModelError) as raised:
        makers[make](id)
    assert id in str(raised.value)
    assert CATALOG[id].recipe in str(raised.value)
    assert CATALOG[id].recipe.startswith("python -m training twm --recipe ")
    assert isinstance(raised.value, FileNotFoundError) and isinstance(raised.value, gym.error.Error)


def test_mistyped_id_suggests_the_nearest() -> None:
    with pytest.raises(gym.error.NameNotFound, match="LearnedPong"):
        gym.make("LearnedPnog-v0")
    with pytest.raises(gym.error.NameNotFound, match="LearnedPong-v0"):
        entry("LearnedPogn-v0")
    with pytest.raises(MissingModelError, match="did you mean LearnedPong-v0"):
        learned_envs.load("LearnedPogn-v0")
    with pytest.raises(gym.error.VersionNotFound):
        gym.make("LearnedPong-v7")


def test_word_like_no_id_shows_how_to_list_them() -> None:
    with pytest.raises(gym.error.NameNotFound, match="learned-envs list"):
        entry("xyz")
    with pytest.raises(MissingModelError, match=r"There is no folder runs/nothing\.$"):
        learned_envs.load(Path("runs/nothing"))
    with pytest.raises(MissingModelError, match=r"Nor is there a folder 'runs/nothing' here\.$"):
        learned_envs.load("runs/nothing", local_files_only=True)
    with pytest.raises(MissingModelError, match=r"'/nowhere/at/all'.*folder of a snapshot"):
        learned_envs.load("/nowhere/at/all")


@pytest.mark.parametrize(
    "folder", [Path("LearnedPogn-v0"), Path("LearnedPong-v0"), "./LearnedPong-v0", "/nowhere/at/all"]
)
def test_real_twin_of_a_folder_that_is_not_there_is_not_that_of_an_id(folder: str | Path) -> None:
    words = "There is no folder" if isinstance(folder, Path) else "nor the folder of a snapshot"
    makers: list[Any] = [learned_envs.make_real, lambda folder: learned_envs.make_real_vec(folder, 2)]
    for make in makers:
        with pytest.raises(MissingModelError, match=words):
            make(folder)


def test_model_argument_is_needed_for_the_general_id() -> None:
    with pytest.raises(TypeError, match="model"):
        gym.make("learned_envs:Learned-v0")


def test_every_bundled_folder_has_an_id() -> None:
    folders = sorted(path.name for path in BUNDLED.glob("*") if path.is_dir() and not path.name.startswith("."))
    assert folders == _BUNDLED


@pytest.mark.parametrize("id", _BUNDLED)
def test_bundled_snapshot_is_that_of_its_id(id: str) -> None:
    config = learned_envs.load(id).snapshot
    assert config.id == id
    assert config.environment.name == CATALOG[id].real[1]
    assert config.environment.max_episode_steps == CATALOG[id].max_episode_steps


@pytest.mark.parametrize("id", _BUNDLED)
def test_real_twin_has_the_same_spaces(id: str) -> None:
    try:
        real = learned_envs.make_real(id)
    except gym.error.DependencyNotInstalled as error:
        pytest.skip(str(error))
    learned = gym.make(id)
    assert real.observation_space == learned.observation_space
    assert real.action_space == learned.action_space


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test registers is forgotten."""
    monkeypatch.setattr("learned_envs.pretrained._registered", {})
    before = dict(gym.registry)
    yield
    gym.registry.clear()
    gym.registry.update(before)


@pytest.mark.usefixtures("registry")
def test_registered_snapshot_is_made_by_its_own_id(tmp_path: Path) -> None:
    folder = write_tiny_snapshot(tmp_path / "mine", "compact", id="LearnedMine-v3")
    assert learned_envs.register_snapshot(folder) == "LearnedMine-v3"
    assert learned_envs.register_snapshot(str(folder)) == "LearnedMine-v3", "twice is harmless"
    env = gym.make("LearnedMine-v3")
    assert env.action_space == gym.spaces.Discrete(3)
    envs = gym.make_vec("LearnedMine-v3", num_envs=2)
    assert isinstance(envs, LearnedVectorEnv) and envs.max_episode_steps == 1000
    assert learned_envs.load("LearnedMine-v3").snapshot.id == "LearnedMine-v3"


@pytest.mark.usefixtures("registry")
def test_registered_snapshot_supplies_an_id_that_is_not_bundled(tmp_path: Path) -> None:
    id = _UNBUNDLED[0]
    learned_envs.register_snapshot(write_tiny_snapshot(tmp_path / "mine", "faithful", id=id))
    envs = gym.make_vec(id, num_envs=2)
    assert isinstance(envs, LearnedVectorEnv) and envs.max_episode_steps == 1000, "the snapshot's, not the catalogue's"


@pytest.mark.usefixtures("registry")
def test_registered_control_problem_ends_at_its_own_horizon(tmp_path: Path) -> None:
    id = "LearnedBearPopulations-v0"
    if id in _BUNDLED:
        id = "LearnedBears-v1"
    learned_envs.register_snapshot(write_tiny_snapshot(tmp_path / "mine", "markov-mlp", id=id))
    choices: list[dict[str, Any]] = [{}, {"max_episode_steps": 1000}]
    for keywords in choices:
        env, envs = gym.make(id, **keywords), gym.make_vec(id, num_envs=2, **keywords)
        env.reset(seed=0)
        over = [env.step(env.action_space.sample())[3] for _ in range(CONTROL_HORIZON)]
        assert over == [False] * (CONTROL_HORIZON - 1) + [True]
        assert isinstance(envs, LearnedVectorEnv) and envs.max_episode_steps == CONTROL_HORIZON


@pytest.mark.usefixtures("registry")
def test_registered_snapshot_takes_no_id_away(tmp_path: Path) -> None:
    for index, id in enumerate((*_BUNDLED, "CartPole-v1", "Learned-v0")):
        folder = write_tiny_snapshot(tmp_path / str(index), "compact", id=id)
        with pytest.raises(ValueError, match=f"{id} is already taken.*Learned-v0"):
            learned_envs.register_snapshot(folder)
    first = write_tiny_snapshot(tmp_path / "first", "compact", id="LearnedMine-v0")
    second = write_tiny_snapshot(tmp_path / "second", "compact", id="LearnedMine-v0")
    learned_envs.register_snapshot(first)
    with pytest.raises(ValueError, match="LearnedMine-v0 is already taken"):
        learned_envs.register_snapshot(second)


@pytest.mark.usefixtures("registry")
def test_id_that_waits_for_a_model_takes_one_alone(tmp_path: Path) -> None:
    id = _UNBUNDLED[0]
    first, second = (write_tiny_snapshot(tmp_path / name, "compact", id=id) for name in ("first", "second"))
    for _ in range(2):
        assert learned_envs.register_snapshot(first) == id
    with pytest.raises(ValueError, match=f"{id} is already taken"):
        learned_envs.register_snapshot(second)


@pytest.mark.usefixtures("registry")
def test_folder_named_like_an_id_is_meant_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    registered = write_tiny_snapshot(tmp_path / "mine", "compact", id="LearnedMine-v0")
    learned_envs.register_snapshot(registered)
    for id, folder in (("LearnedHarvest-v0", BUNDLED / "LearnedHarvest-v0"), ("LearnedMine-v0", registered)):
        (tmp_path / id).mkdir()
        assert find_snapshot(id) == folder
        assert find_snapshot(f"./{id}") == find_snapshot(Path(id)) == Path(id)


def test_folder_that_is_no_snapshot_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match=r"manifest\.json"):
        learned_envs.register_snapshot(tmp_path)
    with pytest.raises(SnapshotError, match=r"manifest\.json"):
        gym.make("learned_envs:Learned-v0", model=str(tmp_path))
