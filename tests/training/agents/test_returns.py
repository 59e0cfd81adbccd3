"""Advantage estimates, against sums worked out by hand."""

import pytest
import torch

from training.agents.returns import advantages


def test_errors_are_added_up_from_behind_with_the_discount_of_each_step() -> None:
    rewards, values = torch.tensor([[1.0], [0.0], [1.0]]), torch.tensor([[1.0], [0.5], [2.0], [1.0]])
    discounts, over = torch.tensor([[0.9], [0.5], [0.9]]), torch.zeros(3, 1, dtype=torch.bool)
    last, middle, first = 1 + 0.9 * 1 - 2, 0 + 0.5 * 2 - 0.5, 1 + 0.9 * 0.5 - 1
    middle += 0.5 * 0.95 * last
    first += 0.9 * 0.95 * middle
    assert advantages(rewards, values, discounts, over, 0.95).flatten().tolist() == pytest.approx([first, middle, last])


def test_nothing_is_seen_across_the_end_of_an_episode() -> None:
    rewards = torch.tensor([[1.0], [2.0], [4.0], [8.0]])
    values = torch.tensor([[0.5], [1.0], [2.0], [3.0], [10.0]])
    discounts = torch.tensor([[0.5], [0.0], [0.5], [0.5]])  # the second step terminated its episode
    over = torch.tensor([[False], [True], [False], [True]])
    last = 8 + 0.5 * 10 - 3  # truncated: goes on from the value of the last observation
    second = 2 - 1  # terminated: nothing follows
    expected = [1 + 0.5 * 1 - 0.5 + 0.25 * second, second, 4 + 0.5 * 3 - 2 + 0.25 * last, last]
    assert advantages(rewards, values, discounts, over, 0.5).flatten().tolist() == pytest.approx(expected)
