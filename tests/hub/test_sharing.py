"""Models by themselves: saved, loaded and published as people know it from other libraries."""

from pathlib import Path

import gymnasium as gym
import pytest
import torch

import learned_envs
from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.errors import SnapshotError
from learned_envs.twm.world_model import TransformerWorldModel
from learned_envs.world_model import WorldModel
from tests.hub.server import Hub
from tests.tiny import CONTROLS, KINDS, TinyKind, tiny_control_model, tiny_model


def _weights(model: WorldModel) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in model.state_dict().values()])


@pytest.mark.parametrize("kind", KINDS)
def test_model_of_a_game_comes_back(tmp_path: Path, kind: TinyKind) -> None:
    model = tiny_model(kind).half().float()
    model.save_pretrained(tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        *("config.json", "manifest.json", "model.safetensors")
    ]
    found = TransformerWorldModel.from_pretrained(tmp_path / "model")
    assert found.config == model.config and not found.training
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("kind", CONTROLS)
def test_model_of_a_control_problem_comes_back_exactly(tmp_path: Path, kind: str) -> None:
    model = tiny_control_model(kind)
    model.save_pretrained(str(tmp_path / "model"))
    found = ContinuousWorldModel.from_pretrained(str(tmp_path / "model"))
    assert all(torch.equal(found.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_model_of_an_environment_is_saved_with_it(tiny_snapshots: dict[str, Path], tmp_path: Path) -> None:
    model = learned_envs.load(tiny_snapshots["awm-rnn"])
    with torch.no_grad():
        next(model.parameters()).add_(0.5)  # fine-tuned
    model.save_pretrained(tmp_path / "mine")
    again = WorldModel.from_pretrained(tmp_path / "mine")
    assert torch.equal(_weights(again), _weights(model))
    env = gym.make("learned_envs:Learned-v0", model=str(tmp_path / "mine"))
    assert env.reset(seed=0)[0].shape == again.observation_space.shape


def test_saving_replaces_what_is_there(tmp_path: Path) -> None:
    first, second = tiny_model("compact", seed=1), tiny_model("compact", seed=2).half().float()
    first.save_pretrained(tmp_path / "model")
    second.save_pretrained(tmp_path / "model")
    found = TransformerWorldModel.from_pretrained(tmp_path / "model")
    assert torch.equal(_weights(found), _weights(second))


def test_model_by_itself_is_no_environment(tmp_path: Path) -> None:
    tiny_model("compact").save_pretrained(tmp_path / "model")
    with pytest.raises(SnapshotError, match=r"does not name starts\.safetensors: this is no environment"):
        gym.make("learned_envs:Learned-v0", model=str(tmp_path / "model"))


def test_model_of_another_class_is_refused(tmp_path: Path) -> None:
    tiny_model("compact").save_pretrained(tmp_path / "model")
    with pytest.raises(TypeError, match="holds a TransformerWorldModel, which is no ContinuousWorldModel"):
        ContinuousWorldModel.from_pretrained(tmp_path / "model")


def test_damaged_model_by_itself_is_refused(tmp_path: Path) -> None:
    tiny_model("compact").save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SnapshotError, match=r"model\.safetensors"):
        TransformerWorldModel.from_pretrained(tmp_path / "model")


def test_pushed_model_is_loaded_from_the_repository(hub: Hub, publisher: str, tmp_path: Path) -> None:
    model = tiny_model("compact").half().float()
    address = model.push_to_hub("lab/mine", private=True, commit_message="First")
    repository = hub.store.get("lab/mine")
    assert repository and repository.private and repository.branches["main"] in address
    commit = repository.branches["main"]
    assert repository.commits[commit].title == "First" and "README.md" in repository.commits[commit].files
    found = TransformerWorldModel.from_pretrained("lab/mine", revision=commit)
    assert torch.equal(_weights(found), _weights(model))
    tiny_model("compact", seed=5).push_to_hub("lab/mine", branch="trial")
    assert torch.equal(_weights(TransformerWorldModel.from_pretrained("lab/mine")), _weights(model))
    other = TransformerWorldModel.from_pretrained("lab/mine", revision="trial")
    assert not torch.equal(_weights(other), _weights(model))


def test_pushed_environment_is_made_by_gymnasium(hub: Hub, publisher: str, tiny_snapshots: dict[str, Path]) -> None:
    learned_envs.load(tiny_snapshots["awm-lstm"]).push_to_hub("lab/plants")
    env = gym.make("learned_envs:Learned-v0", model="lab/plants")
    assert env.reset(seed=0)[0].dtype == "float32"


def test_saving_touches_nothing_else_that_lies_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds 'notes.txt'"):
        tiny_model("compact").save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_saving_leaves_the_model_of_another_library_alone(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_text("theirs")
    with pytest.raises(FileExistsError, match=r"holds 'config.json' and no 'manifest.json'"):
        tiny_model("compact").save_pretrained(tmp_path)
    assert {path.read_text() for path in tmp_path.iterdir()} == {"theirs"}


def test_saving_keeps_what_was_written_about_the_model(tmp_path: Path) -> None:
    tiny_model("compact").save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    tiny_model("compact", seed=2).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert "README.md" in (tmp_path / "manifest.json").read_text()


@pytest.mark.parametrize("value", [float("nan"), 7e4], ids=["nan", "too large for float16"])
def test_model_that_nobody_could_read_does_not_replace_another(tmp_path: Path, value: float) -> None:
    model = tiny_model("compact").half().float()
    model.save_pretrained(tmp_path)
    good = _weights(model).clone()
    name, parameter = next(iter(model.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[0] = value
    with pytest.raises(ValueError, match=f"{name} holds NaN, infinite values, or such as torch.float16 cannot hold"):
        model.save_pretrained(tmp_path)
    assert torch.equal(_weights(WorldModel.from_pretrained(tmp_path)), good)


def test_unavailable_device_is_named(tmp_path: Path) -> None:
    tiny_model("compact").save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="device 'toaster'"):
        TransformerWorldModel.from_pretrained(tmp_path / "model", device="toaster")
