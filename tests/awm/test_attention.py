"""The attention of the action-conditioned models."""

import torch
from torch.autograd.functional import jacobian

from learned_envs.awm.transformer import CausalAttention


def test_jacobian_is_that_of_the_theory() -> None:
    """dy_t/dx_k = alpha_tk W_V [I + (x_k - mean_t) x_t^T A] for k < t, for one head without biases."""
    torch.manual_seed(0)
    width, tokens = 5, 7
    layer = CausalAttention(width, heads=1).double()
    with torch.no_grad():
        layer.output.weight.copy_(torch.eye(width))
        layer.output.bias.zero_()
        layer.query_key_value.weight.normal_()
        layer.query_key_value.bias.zero_()
    query, key, value = layer.query_key_value.weight.detach().chunk(3)
    scores = query.T @ key * width**-0.5
    x = torch.randn(tokens, width, dtype=torch.float64)
    positions = torch.arange(tokens).unsqueeze(0)
    found = jacobian(lambda x: layer(x.unsqueeze(0), positions)[0][0], x)
    assert isinstance(found, torch.Tensor)
    for t in range(tokens):
        alpha = (x[t] @ scores @ x[: t + 1].T).softmax(-1)
        mean = alpha @ x[: t + 1]
        for k in range(t):
            expected = alpha[k] * value @ (torch.eye(width) + torch.outer(x[k] - mean, x[t] @ scores))
            assert (found[t, :, k] - expected).abs().max() < 1e-10
        assert (found[t, :, t + 1 :] == 0).all()


def test_heads_are_independent_softmax_averages_of_values() -> None:
    torch.manual_seed(0)
    layer = CausalAttention(6, heads=2).double()
    x = torch.randn(1, 4, 6, dtype=torch.float64)
    query, key, value = layer.query_key_value(x)[0].chunk(3, -1)
    rows = []
    for t in range(4):
        parts = []
        for part in (slice(0, 3), slice(3, 6)):
            alpha = (key[: t + 1, part] @ query[t, part] / 3**0.5).softmax(0)
            parts.append(alpha @ value[: t + 1, part])
        rows.append(torch.cat(parts))
    expected = layer.output(torch.stack(rows))
    assert (layer(x, torch.arange(4).unsqueeze(0))[0][0] - expected).abs().max() < 1e-12
