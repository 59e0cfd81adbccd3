"""The structure in which models and environments keep what they know."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from learned_envs.world_model import State


@dataclass(frozen=True)
class Inner(State):
    position: Tensor


@dataclass(frozen=True)
class Outer(State):
    inner: Inner
    age: Tensor


@dataclass(frozen=True)
class Layered(State):
    layers: tuple[Inner, ...]
    sizes: tuple[Tensor, Tensor]


def _state(offset: int = 0) -> Outer:
    return Outer(Inner(torch.arange(6).reshape(3, 2) + offset), torch.arange(3.0) + offset)


def _layered(offset: int = 0) -> Layered:
    layers = tuple(Inner(torch.arange(3) + 10 * layer + offset) for layer in range(2))
    return Layered(layers, (torch.arange(3) + offset, torch.ones(3, 2)))


def test_names_of_nested_tensors_are_joined_by_dots() -> None:
    assert [name for name, _ in _state().tensors()] == ["inner.position", "age"]
    assert len(_state()) == 3


def test_items_of_a_tuple_are_numbered() -> None:
    names = [name for name, _ in _layered().tensors()]
    assert names == ["layers.0.position", "layers.1.position", "sizes.0", "sizes.1"]
    assert len(_layered()) == 3


def test_tuples_are_mapped_item_by_item() -> None:
    chosen = _layered(100).where(torch.tensor([True, False, True]), _layered())
    assert [layer.position.tolist() for layer in chosen.layers] == [[100, 1, 102], [110, 11, 112]]
    assert chosen.sizes[0].tolist() == [100, 1, 102]
    taken = chosen.take(torch.tensor([2, 0]))
    assert taken.layers[1].position.tolist() == [112, 110] and taken.sizes[1].shape == (2, 2)


def test_states_of_different_depth_cannot_be_mixed() -> None:
    one = Layered(_layered().layers[:1], _layered().sizes)
    with pytest.raises(ValueError):
        _layered().where(torch.ones(3).bool(), one)


def test_choice_between_two_states_is_made_for_each_environment() -> None:
    chosen = _state(100).where(torch.tensor([True, False, True]), _state())
    assert chosen.inner.position.tolist() == [[100, 101], [2, 3], [104, 105]]
    assert chosen.age.tolist() == [100, 1, 102]


def test_environments_can_be_chosen_and_repeated() -> None:
    taken = _state().take(torch.tensor([2, 2, 0, 1]))
    assert taken.inner.position.tolist() == [[4, 5], [4, 5], [0, 1], [2, 3]]
    assert taken.age.tolist() == [2, 2, 0, 1]


def test_clone_shares_no_memory() -> None:
    state = _state()
    copied = state.clone()
    copied.inner.position.zero_()
    copied.age.zero_()
    assert state.inner.position.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert state.age.tolist() == [0, 1, 2]


def test_detach_cuts_every_tensor() -> None:
    age = torch.zeros(3, requires_grad=True)
    state = Outer(Inner(age.unsqueeze(1) * 2), age * 3)
    assert not any(tensor.requires_grad for _, tensor in state.detach().tensors())
    assert all(tensor.requires_grad for _, tensor in state.tensors())


def test_states_cannot_be_changed_by_accident() -> None:
    with pytest.raises(AttributeError):
        _state().age = torch.zeros(3)  # type: ignore[misc]
