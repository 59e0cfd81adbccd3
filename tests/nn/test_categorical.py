"""Vectors of categorical variables: frequencies, extremes, and gradients with known answers."""

import pytest
import torch

from learned_envs.nn.categorical import entropy, mix_uniform, most_likely, sample, straight_through


def test_frequencies_are_the_probabilities() -> None:
    probabilities = torch.tensor([[0.5, 0.25, 0.125, 0.125], [0.1, 0.0, 0.9, 0.0]])
    noise = torch.rand(40_000, 2, generator=torch.Generator().manual_seed(0))
    drawn = sample(probabilities.expand(40_000, 2, 4), noise)
    assert drawn.dtype == torch.int64
    for variable in range(2):
        found = torch.bincount(drawn[:, variable], minlength=4) / 40_000
        assert torch.allclose(found, probabilities[variable], atol=4 * (0.25 / 40_000) ** 0.5)


def test_class_boundaries_are_where_the_cumulative_sums_are() -> None:
    probabilities = torch.tensor([0.25, 0.0, 0.5, 0.25]).expand(6, 1, 4)
    noise = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 0.99999994]).unsqueeze(1)
    assert sample(probabilities, noise).flatten().tolist() == [0, 0, 2, 2, 3, 3]


def test_rounding_never_leaves_the_range() -> None:
    probabilities = torch.full((1, 1, 7), 0.142)  # sums to 0.994
    assert sample(probabilities, torch.tensor([[0.999]])).item() == 6


def test_class_of_probability_zero_is_never_drawn_first() -> None:
    assert sample(torch.tensor([[[0.0, 0.0, 1.0]]]), torch.zeros(1, 1)).item() == 2


def test_most_likely_class() -> None:
    assert most_likely(torch.tensor([[[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]]])).tolist() == [[1, 0]]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_uniform_share_keeps_every_class_possible(share: float) -> None:
    logits = torch.tensor([[0.0, 50.0, -50.0, 1.0]])
    mixed = mix_uniform(logits, share)
    assert torch.allclose(mixed, (1 - share) * logits.softmax(-1) + share / 4)
    assert torch.allclose(mixed.sum(-1), torch.ones(1))
    assert mixed.min() >= share / 4
    assert mix_uniform(logits.bfloat16(), share).dtype == torch.float32


def test_entropy_is_that_of_the_textbook() -> None:
    probabilities = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.125, 0.125]])
    assert torch.allclose(entropy(probabilities), torch.tensor([2.0, 1.75]) * torch.tensor(2.0).log())


def test_one_hot_forward_and_gradient_of_the_probabilities_backward() -> None:
    probabilities = torch.tensor([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]], requires_grad=True)
    weights = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    latent = straight_through(probabilities, torch.tensor([1, 0]))
    assert latent.tolist() == [[0, 1, 0], [1, 0, 0]]
    (latent * weights).sum().backward()
    assert probabilities.grad is not None
    assert torch.equal(probabilities.grad, weights), "the gradient of a one-hot is that of the probabilities"


def test_straight_through_works_on_batches_of_any_shape() -> None:
    probabilities = torch.rand(2, 5, 3, 4).softmax(-1)
    classes = torch.randint(4, (2, 5, 3))
    assert torch.equal(straight_through(probabilities, classes).argmax(-1), classes)
    assert torch.allclose(straight_through(probabilities, classes).sum(-1), torch.ones(2, 5, 3))
