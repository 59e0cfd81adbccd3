"""What is written comes back; what does not fit is refused by the name of the file and the field."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from learned_envs import snapshot as module
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.environment import SystemConfig
from learned_envs.errors import SnapshotError
from learned_envs.manifest import write_manifest
from learned_envs.snapshot import SnapshotConfig, read_config, read_snapshot, write_snapshot
from learned_envs.starts import StartBank
from tests.tiny import (
    CONTROLS,
    KINDS,
    TinyKind,
    tiny_config,
    tiny_control_config,
    tiny_control_model,
    tiny_control_starts,
    tiny_model,
    tiny_snapshot_config,
    tiny_starts,
    write_tiny_snapshot,
)

FILES = ("config.json", "model.safetensors", "starts.safetensors", "fidelity.json", "manifest.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A snapshot of one's own, to be damaged."""
    return write_tiny_snapshot(tmp_path / "snapshot", "compact")


def _edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the configuration, and give it a fitting checksum."""
    _edit(folder / "config.json", change)
    write_manifest(folder)


def _edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _replace_tensors(folder: Path, name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Change a file of tensors, and give the changed one a fitting checksum."""
    tensors = {key: tensor.clone() for key, tensor in load_file(folder / name).items()}
    change(tensors)
    save_file(tensors, folder / name)
    write_manifest(folder)


def _refusal(folder: Path) -> str:
    with pytest.raises(SnapshotError) as raised:
        read_snapshot(folder)
    return str(raised.value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_written_comes_back(tmp_path: Path, kind: TinyKind) -> None:
    model, starts, config = tiny_model(kind), tiny_starts(tiny_config(kind)), tiny_snapshot_config(tiny_config(kind))
    write_snapshot(tmp_path / "snapshot", config, model, starts, {"ball": {"5": 0.5}})
    assert sorted(path.name for path in (tmp_path / "snapshot").iterdir()) == sorted(FILES)
    assert json.loads((tmp_path / "snapshot" / "fidelity.json").read_text()) == {"ball": {"5": 0.5}}
    found = read_snapshot(tmp_path / "snapshot")
    assert found.config == config
    assert found.folder == tmp_path / "snapshot"
    written, read = model.state_dict(), found.model.state_dict()
    assert written.keys() == read.keys()
    for name, tensor in written.items():
        assert torch.equal(read[name], tensor.half().float()), f"{name} differs"
    for part in ("initial", "anywhere"):
        names = ("observations", "actions", "rewards")
        for name, mine, theirs in zip(names, found.starts.contexts(part), starts.contexts(part), strict=True):
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs), f"{part} {name} differ"


def test_config_of_a_game_is_laid_out_as_ever(folder: Path) -> None:
    """Snapshots that were published must stay readable, and be written alike."""
    content = json.loads((folder / "config.json").read_text())
    assert list(content) == [
        "id", "family", "model", "environment", "provenance", "format", "library_name",
    ]  # fmt: skip
    assert (content["family"], content["format"], content["library_name"]) == ("twm", 2, "learned_envs")
    assert list(content["model"]) == [
        "num_actions", "observation", "transformer", "tokens", "context", "local_steps", "latent_hidden", "reward_hidden",
        "discount_hidden", "reward_values", "discount", "reward_tokens", "temperature",
    ]  # fmt: skip
    assert content["environment"] == {
        "kind": "atari",
        "name": "Pong",
        "options": {},
        "num_actions": 3,
        "action_meanings": ["NOOP", "UP", "DOWN"],
        "max_episode_steps": 1000,
        "reward": "none, the weights are random",
        "packages": {},
    }


@pytest.mark.parametrize("kind", CONTROLS)
def test_model_of_a_control_problem_comes_back_exactly(tmp_path: Path, kind: str) -> None:
    model, starts = tiny_control_model(kind), tiny_control_starts(kind)
    config = SnapshotConfig("LearnedTiny-v0", "awm", model.config, CONTROLS[kind].environment, {"made": "for tests"})
    with torch.no_grad():
        model.observation_normalizer.scale[0] = 1e-9  # what half precision would lose
        model.observation_normalizer.mean[0] = 1e9
    write_snapshot(tmp_path / "snapshot", config, model, starts, {})
    found = read_snapshot(tmp_path / "snapshot")
    assert found.config == config
    assert found.config.model == tiny_control_config(kind)
    assert isinstance(found.model, ContinuousWorldModel)
    written, read = model.state_dict(), found.model.state_dict()
    assert written.keys() == read.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in written.items())
    for part in ("initial", "anywhere"):
        for mine, theirs in zip(found.starts.contexts(part), starts.contexts(part), strict=True):
            assert mine.dtype == theirs.dtype and torch.equal(mine, theirs)


@pytest.mark.parametrize("kind", CONTROLS)
def test_rewards_and_bounds_of_a_control_problem_come_with_its_name(tmp_path: Path, kind: str) -> None:
    found = read_snapshot(write_tiny_snapshot(tmp_path / "snapshot", kind)).model
    assert isinstance(found, ContinuousWorldModel)
    system = CONTROLS[kind].environment.system
    observations, actions, _ = tiny_control_starts(kind).contexts("anywhere")
    if found.config.reward == "known":
        assert torch.equal(found.reward(observations[:, :-1], actions), system.reward(observations[:, :-1], actions))
    low, high = torch.tensor(system.observation_bounds).unbind(1)
    assert torch.equal(found.lowest, low) and torch.equal(found.highest, high)
    assert not any(name in found.state_dict() for name in ("lowest", "highest"))


def test_every_file_can_be_read_by_whoever_may_read_the_folder(folder: Path) -> None:
    assert len({(folder / name).stat().st_mode for name in FILES}) == 1


def test_existing_folder_is_replaced_only_when_asked(tmp_path: Path) -> None:
    folder = write_tiny_snapshot(tmp_path / "snapshot", "compact", id="LearnedFirst-v0")
    (folder / "preview.gif").write_text("of the old one")
    with pytest.raises(FileExistsError, match="snapshot exists"):
        write_tiny_snapshot(folder, "compact", id="LearnedSecond-v0")
    assert read_snapshot(folder).config.id == "LearnedFirst-v0"
    model = tiny_model("compact")
    config = tiny_snapshot_config(model.config, "LearnedSecond-v0")
    write_snapshot(folder, config, model, tiny_starts(model.config), {}, replace=True)
    assert read_snapshot(folder).config.id == "LearnedSecond-v0"
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("exists", [False, True])
def test_interrupted_writing_leaves_nothing_or_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    folder = tmp_path / "snapshot"
    if exists:
        write_tiny_snapshot(folder, "compact", id="LearnedOld-v0")
    model = tiny_model("compact")
    config = tiny_snapshot_config(model.config, "LearnedNew-v0")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("save", "write_manifest"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(module, name, interrupt)
            write_snapshot(folder, config, model, tiny_starts(model.config), {}, replace=True)
        assert folder.exists() == exists
    with pytest.raises(TypeError):
        write_snapshot(folder, config, model, tiny_starts(model.config), {"not JSON": object()}, replace=True)
    assert folder.exists() == exists
    if exists:
        assert read_snapshot(folder).config.id == "LearnedOld-v0"
    write_snapshot(folder, config, model, tiny_starts(model.config), {}, replace=True)
    assert read_snapshot(folder).config.id == "LearnedNew-v0"
    assert [path.name for path in tmp_path.iterdir()] == ["snapshot"], "leftovers of the interrupted attempts"


@pytest.mark.parametrize("name", FILES)
def test_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert name in _refusal(folder)


@pytest.mark.parametrize("name", FILES[:-1])
def test_truncated_or_changed_file_is_noticed(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    for damaged in (
        content[:-1],
        content[: len(content) // 2],
        b"",
        content[:-1] + bytes([content[-1] ^ 1]),
        content + b"\0",
    ):
        (folder / name).write_bytes(damaged)
        message = _refusal(folder)
        assert name in message and "damaged" in message


@pytest.mark.parametrize("name", ["model.safetensors", "starts.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not a safetensors file", b"\xff" * 64, b"\x80\x04N."])
def test_other_content_with_a_fitting_checksum_is_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    write_manifest(folder)
    assert f"{name} is not a safetensors file" in _refusal(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"7", b"\xff\xfe", b"[" * 100_000, b'{"format": 1'])
@pytest.mark.parametrize("name", ["config.json", "manifest.json", "fidelity.json"])
def test_damaged_json_is_refused(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    if name != "manifest.json":
        write_manifest(folder)
    assert name in _refusal(folder)


@pytest.mark.parametrize("format", [0, 1, 3, "2", None, 1.5, 2.0, True])
@pytest.mark.parametrize("name", ["config.json", "manifest.json"])
def test_other_format_is_named(folder: Path, name: str, format: Any) -> None:
    _edit(folder / name, lambda content: content.update(format=format))
    if name != "manifest.json":
        write_manifest(folder)
    message = _refusal(folder)
    assert name in message and f"format is {format!r}" in message


def test_newer_format_names_the_release_that_reads_it(folder: Path) -> None:
    _edit(folder / "manifest.json", lambda content: content.update(format=3, written_by="2.1.0", new="thing"))
    assert "pip install --upgrade 'learned-envs>=2.1.0'" in _refusal(folder)
    _edit(folder / "manifest.json", lambda content: content.update(written_by="1; rm -rf /"))
    message = _refusal(folder)
    assert "pip install --upgrade 'learned-envs'" in message and "-rf" not in message


def test_format_of_before_the_first_release_names_the_command_that_rewrites_it(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    _edit(folder / "config.json", lambda content: content.update(format=1))
    assert f"python -m hub build {folder}" in _refusal(folder)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "model.bin", "pytorch_model.pkl", "a/b", ""])
def test_file_that_is_no_part_of_a_snapshot_is_refused_in_a_manifest(folder: Path, name: str) -> None:
    def add(content: dict[str, Any]) -> None:
        content["files"][name] = content["files"]["config.json"]

    _edit(folder / "manifest.json", add)
    assert f"{name!r}" in _refusal(folder)


@pytest.mark.parametrize(
    "entry", [{"size": -1}, {"size": 1e3}, {"size": "9"}, {"sha256": "abc"}, {"sha256": None}, {"x": 1}]
)
def test_entry_of_a_manifest_that_does_not_fit_is_named(folder: Path, entry: dict[str, Any]) -> None:
    _edit(folder / "manifest.json", lambda content: content["files"]["config.json"].update(entry))
    message = _refusal(folder)
    assert "manifest.json: files.config.json" in message


@pytest.mark.parametrize("name", FILES)
def test_link_out_of_the_folder_is_refused(folder: Path, tmp_path: Path, name: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    (folder / name).rename(elsewhere)
    (folder / name).symlink_to(elsewhere)
    message = _refusal(folder)
    assert name in message and "leads out" in message


def test_link_within_the_folder_and_a_linked_folder_are_fine(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").rename(folder / "other.json")
    (folder / "config.json").symlink_to("other.json")
    (tmp_path / "link").symlink_to(folder)
    assert read_snapshot(tmp_path / "link").config.id == "LearnedTiny-v0"


@pytest.mark.parametrize("name", FILES)
def test_what_is_no_plain_file_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"{name} is not a plain file" in _refusal(folder)
    (folder / name).unlink()
    (folder / name).mkdir()
    assert f"{name} is not a plain file" in _refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "manifest.json", "fidelity.json"])
def test_json_that_is_far_too_large_is_refused_unread(folder: Path, name: str) -> None:
    (folder / name).write_text('{"a": "' + "x" * 2**20 + '"}')
    if name != "manifest.json":
        write_manifest(folder)
    message = _refusal(folder)
    assert name in message and "bytes" in message


_HUGE = {
    "more layers than memory": ("transformer", "layers", 10**9),
    "wider than memory": ("transformer", "width", 2**40),
    "hidden features": ("transformer", "hidden", 10**12),
    "a terabyte of classes": ("observation", "latent", {"variables": 128, "classes": 2**33, "uniform_share": 0.01}),
    "channels": ("observation", "channels", 8 * 10**9),
    "look back": ("", "context", 10**9),
    "actions": ("", "num_actions", 10**12),
    "heads of a head": ("", "reward_hidden", [2**20, 2**20]),
    "many heads": ("", "reward_hidden", [1] * 100_000),
    "beyond any integer": ("transformer", "layers", 10**40),
}


@pytest.mark.parametrize("part, name, value", _HUGE.values(), ids=_HUGE)
def test_config_that_asks_for_a_terabyte_is_refused_at_once(folder: Path, part: str, name: str, value: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        model = content["model"]
        (model[part] if part else model)[name] = value

    _edit_config(folder, change)
    begin = time.monotonic()
    assert "config.json" in _refusal(folder) or name in _refusal(folder)
    assert time.monotonic() - begin < 5


@pytest.mark.parametrize("option", [{"distractors": 10**12}, {"horizon": 10**12}, {"horizon": 10**400}])
def test_control_problem_that_asks_for_a_terabyte_is_refused(tmp_path: Path, option: dict[str, int]) -> None:
    folder = write_tiny_snapshot(tmp_path / "control", "awm-lstm")
    _edit_config(folder, lambda content: content["environment"]["options"].update(option))
    assert "config.json" in _refusal(folder)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("colour",), "red"),
        (("model", "colour"), "red"),
        (("model", "observation", "colour"), "red"),
        (("model", "observation", "latent", "colour"), "red"),
        (("model", "transformer", "colour"), "red"),
        (("environment", "colour"), "red"),
        (("id",), 7),
        (("family",), "diffusion"),
        (("library_name",), "another"),
        (("model",), None),
        (("model", "num_actions"), "3"),
        (("model", "num_actions"), 3.5),
        (("model", "num_actions"), True),
        (("model", "num_actions"), 0),
        (("model", "context"), 1),
        (("model", "tokens"), "mixed"),
        (("model", "latent_hidden"), [16, "16"]),
        (("model", "reward_values"), [1.0, 0.0]),
        (("model", "temperature"), -1.0),
        (("model", "discount"), float("nan")),
        (("model", "discount"), float("inf")),
        (("model", "observation", "channels"), -8),
        (("model", "observation", "architecture"), "os.system"),
        (("model", "observation", "latent", "classes"), 1),
        (("model", "transformer", "heads"), 3),
        (("model", "transformer", "dropout"), 1.5),
        (("environment", "kind"), "shell"),
        (("environment", "max_episode_steps"), 0),
        (("environment", "action_meanings"), ["NOOP"]),
        (("environment", "num_actions"), 4),
        (("provenance",), "by hand"),
        (("sha256",), {}),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else repr(value),
)
def test_field_that_does_not_fit_is_named(folder: Path, place: tuple[str, ...], value: Any) -> None:
    def change(content: dict[str, Any]) -> None:
        for key in place[:-1]:
            content = content[key]
        content[place[-1]] = value

    _edit_config(folder, change)
    message = _refusal(folder)
    assert "config.json" in message
    # A rule between several fields is told of the part that holds them.
    assert ".".join(place) in message or ".".join(place[:-1]) in message or place[-1] in message


@pytest.mark.parametrize(
    "place",
    [("id",), ("family",), ("model",), ("model", "num_actions"), ("environment", "name"), ("provenance",)],
    ids=".".join,
)
def test_missing_field_is_named(folder: Path, place: tuple[str, ...]) -> None:
    def remove(content: dict[str, Any]) -> None:
        for key in place[:-1]:
            content = content[key]
        del content[place[-1]]

    _edit_config(folder, remove)
    message = _refusal(folder)
    assert "config.json" in message and ".".join(place) in message


@pytest.mark.parametrize("options", [{"nope": 1}, {"render_mode": "human"}, {"game": "Breakout"}, {"noop_max": "3"}])
def test_rule_of_a_game_that_does_not_fit_is_named(folder: Path, options: dict[str, Any]) -> None:
    _edit_config(folder, lambda content: content["environment"].update(options=options))
    message = _refusal(folder)
    assert "config.json" in message and f"options.{next(iter(options))}" in message


@pytest.fixture
def control(tmp_path: Path) -> Path:
    """A snapshot of a control problem, to be damaged."""
    return write_tiny_snapshot(tmp_path / "control", "awm-transformer")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("family",), "twm"),
        (("family",), ["awm"]),
        (("model", "colour"), "red"),
        (("model", "family"), "dreamer"),
        (("model", "backbone"), "mlp"),
        (("model", "state_dim"), 2),
        (("model", "state_dim"), 1.0),
        (("model", "action_dim"), 2),
        (("model", "clock"), False),
        (("model", "clock"), "yes"),
        (("model", "horizon"), 0),
        (("model", "heads"), 5),
        (("model", "reward"), "os.system"),
        (("model", "feedback_gradient"), 2.0),
        (("environment", "colour"), "red"),
        (("environment", "kind"), "atari"),
        (("environment", "name"), "CancerTreatmnt"),
        (("environment", "name"), "BearPopulations"),
        (("environment", "options"), {"horizon": 0}),
        (("environment", "options"), {"horizon": "30"}),
        (("environment", "options"), {"colour": 1}),
        (("environment", "options"), {"distractors": 1}),
        (("environment", "options"), {"noise": None}),
        (("environment", "max_episode_steps"), 30),
    ],
    ids=lambda value: ".".join(value) if isinstance(value, tuple) else repr(value),
)
def test_field_of_a_control_problem_that_does_not_fit_is_named(
    control: Path, place: tuple[str, ...], value: Any
) -> None:
    def change(content: dict[str, Any]) -> None:
        for key in place[:-1]:
            content = content[key]
        content[place[-1]] = value

    _edit_config(control, change)
    message = _refusal(control)
    assert "config.json" in message and (place[0] in message or "model" in message)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda tensors: tensors.pop("initial.observations"), "initial.observations"),
        (lambda tensors: tensors.update({"initial.frames": torch.zeros(3)}), "initial.frames"),
        (lambda tensors: tensors["anywhere.observations"].fill_(torch.nan), "anywhere.observations"),
        (lambda tensors: tensors["anywhere.observations"].fill_(7.0), "anywhere.observations has 7.0 as number 0"),
        (lambda tensors: tensors["anywhere.observations"][..., 1].fill_(30), "anywhere.observations has the step 30"),
        (
            lambda tensors: tensors.update({"anywhere.observations": tensors["anywhere.observations"].double()}),
            "anywhere.observations",
        ),
        (
            lambda tensors: tensors.update({"anywhere.observations": tensors["anywhere.observations"][:, 1:].clone()}),
            "anywhere.observations",
        ),
        (
            lambda tensors: tensors.update({"initial.observations": torch.zeros(5, 1, 3)}),
            "initial.observations",
        ),
        (lambda tensors: tensors["anywhere.actions"].fill_(1.5), "anywhere.actions"),
        (lambda tensors: tensors.update({"anywhere.actions": tensors["anywhere.actions"].long()}), "anywhere.actions"),
        (lambda tensors: tensors["anywhere.rewards"].fill_(torch.inf), "anywhere.rewards"),
    ],
)
def test_start_of_a_control_problem_that_does_not_fit_is_named(
    control: Path, change: Callable[..., Any], word: str
) -> None:
    _replace_tensors(control, "starts.safetensors", change)
    message = _refusal(control)
    assert "starts.safetensors" in message and word in message


def test_weight_that_is_not_finite_is_named(control: Path) -> None:
    name = "observation_normalizer.scale"
    _replace_tensors(control, "model.safetensors", lambda tensors: tensors[name].fill_(torch.nan))
    assert f"{name} holds NaN" in _refusal(control)


def test_weights_of_a_control_problem_in_half_precision_are_refused(control: Path) -> None:
    name = "observation_normalizer.scale"
    _replace_tensors(control, "model.safetensors", lambda tensors: tensors.update({name: tensors[name].half()}))
    message = _refusal(control)
    assert name in message and "float16" in message


def test_parts_of_different_families_make_no_snapshot() -> None:
    game, control = tiny_snapshot_config(tiny_config("compact")), CONTROLS["markov-mlp"]
    with pytest.raises(ValueError, match="family 'twm' has TwmConfig and AtariConfig"):
        replace(game, environment=control.environment)
    with pytest.raises(ValueError, match="family 'awm' has AwmConfig and SystemConfig"):
        replace(game, family="awm")
    with pytest.raises(ValueError, match="family is 'rssm', expected one of 'twm', 'awm'"):
        replace(game, family="rssm")
    with pytest.raises(ValueError, match=r"the model has 4 numbers in an observation, the environment 2"):
        SnapshotConfig(
            "LearnedTiny-v0",
            "awm",
            tiny_control_config("markov-mlp"),
            SystemConfig("system", "Harvest", {}, "its own", {}),
            {},
        )


def test_sizes_that_no_model_can_have_are_refused(folder: Path) -> None:
    _edit_config(folder, lambda content: content["model"]["transformer"].update(width=2**40, heads=1))
    assert "config.json: model" in _refusal(folder)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda tensors, name: tensors.pop(name), "missing"),
        (lambda tensors, name: tensors.update({name: tensors[name].float()}), "float32"),
        (lambda tensors, name: tensors.update({name: tensors[name].repeat(2)}), "(2,)"),
        (lambda tensors, name: tensors.update({name: tensors[name][None]}), "(1, 1)"),
    ],
    ids=["missing", "dtype", "shape", "dimensions"],
)
def test_weight_that_does_not_fit_is_named(folder: Path, change: Callable[..., Any], word: str) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(key for key, weight in weights.items() if "discount_head" in key and weight.shape == (1,))
    _replace_tensors(folder, "model.safetensors", lambda tensors: change(tensors, name))
    message = _refusal(folder)
    assert "model.safetensors" in message and name in message and word in message


def test_superfluous_weight_is_named(folder: Path) -> None:
    _replace_tensors(folder, "model.safetensors", lambda tensors: tensors.update(backdoor=torch.zeros(1).half()))
    message = _refusal(folder)
    assert "model.safetensors" in message and "backdoor" in message


def _bomb(tensors: dict[str, torch.Tensor]) -> None:
    """A few bytes that announce themselves as frames of many gigabytes."""
    tensors["initial.rewards"] = torch.zeros(10**9, 0)
    tensors["initial.actions"] = torch.zeros(10**9, 0).long()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda tensors: tensors.pop("initial.frames"), "initial.frames"),
        (lambda tensors: tensors.pop("anywhere.rewards"), "anywhere.rewards"),
        (lambda tensors: tensors.update(extra=torch.zeros(1)), "extra"),
        (lambda tensors: tensors["initial.frames"].zero_(), "initial"),
        (lambda tensors: tensors.update({"anywhere.frames": tensors["anywhere.frames"][:-9].clone()}), "anywhere"),
        (lambda tensors: tensors.update({"initial.frames": tensors["anywhere.frames"].clone()}), "initial"),
        (lambda tensors: tensors["anywhere.actions"].fill_(3), "anywhere.actions"),
        (lambda tensors: tensors["anywhere.actions"].fill_(-1), "anywhere.actions"),
        (lambda tensors: tensors.update({"anywhere.actions": tensors["anywhere.actions"].int()}), "anywhere.actions"),
        (lambda tensors: tensors.update({"anywhere.actions": tensors["anywhere.actions"][1:].clone()}), "anywhere"),
        (lambda tensors: tensors.update({"anywhere.rewards": tensors["anywhere.rewards"].double()}), "anywhere"),
        (lambda tensors: tensors.update({"anywhere.rewards": torch.zeros(3)}), "anywhere"),
        (lambda tensors: tensors.update({"initial.rewards": torch.zeros(0, 0)}), "initial"),
        (_bomb, "initial"),
    ],
)
def test_start_that_does_not_fit_is_named(folder: Path, change: Callable[..., Any], word: str) -> None:
    _replace_tensors(folder, "starts.safetensors", change)
    message = _refusal(folder)
    assert "starts.safetensors" in message and word in message


def test_frames_are_stored_once_and_come_back_as_stacks() -> None:
    frames = torch.randint(256, (2, 5, 64, 64), dtype=torch.uint8)
    contexts = (frames, torch.zeros(2, 1).long(), torch.zeros(2, 1))
    bank = StartBank.from_frames({"initial": contexts, "anywhere": contexts}, stack=4)
    observations, _, _ = bank.contexts("initial")
    assert observations.shape == (2, 2, 4, 64, 64)
    assert torch.equal(observations[:, 0], frames[:, :4]) and torch.equal(observations[:, 1], frames[:, 1:])
    with pytest.raises(ValueError, match=r'starts is \'late\', expected "initial" or "anywhere"'):
        bank.contexts("late")  # type: ignore[arg-type]


def test_loading_leaves_the_callers_random_generator_alone(folder: Path) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    read_snapshot(folder)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("id", ["../evil-v0", "org/name-v0", "Pong", "", ".hidden-v0"])
def test_id_that_could_be_a_path_is_refused(folder: Path, id: str) -> None:
    with pytest.raises(ValueError, match="id is"):
        replace(read_config(folder), id=id)
