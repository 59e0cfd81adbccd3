"""Attention with relative positions against the slow formula of Transformer-XL."""

import math

import pytest
import torch
from torch import Tensor

from learned_envs.nn.attention import RelativeAttention, causal_distances, sinusoids

B, WIDTH, HEADS = 2, 8, 2


def _slow(
    layer: RelativeAttention, past: Tensor, new: Tensor, encodings: Tensor, biases: tuple[Tensor, Tensor], mask: Tensor
) -> Tensor:
    """One query, one key and one head at a time: ((q + u) k + (q + v) W_R R_distance) * scale."""
    query_weight, key_weight, value_weight = layer.query_key_value.weight.chunk(3)
    everything = torch.cat([past, new], 1)
    head = WIDTH // HEADS
    results = torch.zeros(B, new.shape[1], WIDTH, dtype=new.dtype)
    for batch in range(B):
        for row in range(new.shape[1]):
            position = past.shape[1] + row
            for h in range(HEADS):
                part = slice(h * head, (h + 1) * head)
                q = (query_weight @ new[batch, row])[part]
                scores, values = [], []
                for key in range(everything.shape[1]):
                    if not mask[batch % len(mask), row, key]:
                        continue
                    k = (key_weight @ everything[batch, key])[part]
                    r = (layer.position.weight @ encodings[position - key])[part]
                    scores.append(((q + biases[0][h]) @ k + (q + biases[1][h]) @ r) * layer.scale)
                    values.append((value_weight @ everything[batch, key])[part])
                weights = torch.stack(scores).softmax(0)
                results[batch, row, part] = weights @ torch.stack(values)
    return results @ layer.output.weight.T


@pytest.mark.parametrize(("remembered", "new"), [(0, 6), (5, 3), (5, 1)])
def test_equals_the_slow_formula(remembered: int, new: int) -> None:
    torch.manual_seed(0)
    layer = RelativeAttention(WIDTH, HEADS, scale=0.3, dropout=0.0).double()
    total = remembered + new
    past, tokens = torch.randn(B, remembered, WIDTH).double(), torch.randn(B, new, WIDTH).double()
    biases = (torch.randn(HEADS, WIDTH // HEADS).double(), torch.randn(HEADS, WIDTH // HEADS).double())
    encodings = sinusoids(total, WIDTH).double()
    mask = (causal_distances(new, total) >= 0).expand(B, new, total).clone()
    mask[1, remembered == 0 :, 0] = False  # the second environment has forgotten the first token
    memory = layer.query_key_value(past).chunk(3, -1)[1:] if remembered else None
    result, (key, value) = layer(tokens, encodings, biases, mask, memory)
    expected = _slow(layer, past, tokens, encodings, biases, mask)
    assert (result - expected).abs().max() < 1e-12
    assert torch.equal(key, layer.query_key_value(tokens).chunk(3, -1)[1])
    assert torch.equal(value, layer.query_key_value(tokens).chunk(3, -1)[2])


def test_window_shorter_than_the_memory_needs_only_its_own_distances() -> None:
    torch.manual_seed(0)
    layer = RelativeAttention(WIDTH, HEADS, scale=0.3, dropout=0.0).double()
    past, tokens = torch.randn(B, 6, WIDTH).double(), torch.randn(B, 2, WIDTH).double()
    biases = (torch.randn(HEADS, WIDTH // HEADS).double(), torch.randn(HEADS, WIDTH // HEADS).double())
    distances = causal_distances(2, 8)
    mask = ((distances >= 0) & (distances < 4)).unsqueeze(0)
    result, _ = layer(tokens, sinusoids(4, WIDTH).double(), biases, mask, layer.query_key_value(past).chunk(3, -1)[1:])
    expected = _slow(layer, past, tokens, sinusoids(8, WIDTH).double(), biases, mask)
    assert (result - expected).abs().max() < 1e-12


def test_only_distance_counts_not_position() -> None:
    """Shifting all tokens along changes nothing: that is why a rollout can run for ever."""
    torch.manual_seed(0)
    layer = RelativeAttention(WIDTH, HEADS, scale=0.3, dropout=0.0).double()
    tokens = torch.randn(1, 9, WIDTH).double()
    biases = (torch.randn(HEADS, WIDTH // HEADS).double(), torch.randn(HEADS, WIDTH // HEADS).double())
    distances = causal_distances(9, 9)
    window = ((distances >= 0) & (distances < 3)).unsqueeze(0)
    whole, _ = layer(tokens, sinusoids(9, WIDTH).double(), biases, window)
    late, _ = layer(tokens[:, 4:], sinusoids(5, WIDTH).double(), biases, window[:, :5, :5])
    assert (whole[:, 6:] - late[:, 2:]).abs().max() < 1e-12


def test_distances_count_tokens_back_from_each_query() -> None:
    assert causal_distances(2, 4).tolist() == [[2, 1, 0, -1], [3, 2, 1, 0]]


def test_sinusoids_are_those_of_the_paper() -> None:
    encodings = sinusoids(60, 6)
    assert encodings.shape == (60, 6)
    for distance in (0, 1, 59):
        for pair in range(3):
            angle = distance / 10000 ** (2 * pair / 6)
            assert encodings[distance, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert encodings[distance, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    assert torch.equal(sinusoids(9, 6), encodings[:9])
