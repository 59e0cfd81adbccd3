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


def _state(offset: int = 0) -> Outer:
    return Outer(Inner(torch.arange(6).reshape(3, 2) + offset), torch.arange(3.0) + offset)


def test_names_of_nested_tensors_are_joined_by_dots() -> None:
    assert [name for name, _ in _state().tensors()] == ["inner.position", "age"]
    assert len(_state()) == 3


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
