"""Sequence models: the recurrent ones against the framework's, and what all of them promise."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from learned_envs.awm.backbone import Backbone
from learned_envs.awm.recurrent import Lstm, Rnn
from learned_envs.awm.transformer import Transformer

WIDTH, HORIZON, BATCH = 12, 5, 3
BACKBONES: dict[str, Callable[[], Backbone]] = {
    "rnn": lambda: Rnn(WIDTH),
    "lstm": lambda: Lstm(WIDTH),
    "transformer": lambda: Transformer(WIDTH, layers=2, heads=3, horizon=HORIZON),
}
every_backbone = pytest.mark.parametrize("make", BACKBONES.values(), ids=BACKBONES.keys())


def _reference(mine: Rnn | Lstm, theirs: nn.RNN | nn.LSTM, reorder: Callable[[Tensor], Tensor]) -> float:
    """Largest difference of the features from those of the framework's layer with the same weights."""
    nn.init.normal_(mine.input.bias)
    parameters = mine.input.weight, mine.recurrent.weight, mine.input.bias, torch.zeros_like(mine.input.bias)
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    theirs.load_state_dict({name: reorder(value) for name, value in zip(names, parameters, strict=True)})
    tokens = torch.randn(BATCH, 7, WIDTH, dtype=torch.float64)
    return (mine(tokens) - theirs(tokens)[0]).abs().max().item()


def test_rnn_is_that_of_the_framework() -> None:
    torch.manual_seed(0)
    theirs = nn.RNN(WIDTH, WIDTH, batch_first=True).double()
    assert _reference(Rnn(WIDTH).double(), theirs, lambda parameter: parameter) < 1e-12


def test_lstm_is_that_of_the_framework() -> None:
    """Which orders the gates as write, keep, proposal, show; ours are keep, write, show, proposal."""

    def reorder(parameter: Tensor) -> Tensor:
        keep, write, show, proposal = parameter.chunk(4)
        return torch.cat([write, keep, proposal, show])

    torch.manual_seed(0)
    theirs = nn.LSTM(WIDTH, WIDTH, batch_first=True).double()
    assert _reference(Lstm(WIDTH).double(), theirs, reorder) < 1e-12


@every_backbone
def test_anchors_are_read_only_where_a_window_begins(make: Callable[[], Backbone]) -> None:
    """A GPU is not asked whether a window begins: it always gets anchors."""
    torch.manual_seed(0)
    backbone = make().double()
    tokens = torch.randn(BATCH, HORIZON + 1, WIDTH, dtype=torch.float64)
    whole, memory = backbone(tokens), backbone.empty(BATCH, tokens)
    for t in range(1, HORIZON + 1):
        anchor = tokens[:, 0] if t == 1 else torch.randn(BATCH, WIDTH, dtype=torch.float64)
        feature, memory = backbone.step(tokens[:, t], anchor, torch.full((BATCH,), t), memory)
        assert (feature - whole[:, t]).abs().max() < 1e-12


@every_backbone
def test_each_window_of_a_batch_is_at_its_own_position(make: Callable[[], Backbone]) -> None:
    """One window goes on while another begins anew: each is as if it were alone."""
    torch.manual_seed(0)
    backbone = make().double()
    tokens = torch.randn(2, HORIZON + 1, WIDTH, dtype=torch.float64)
    whole, memory = backbone(tokens), backbone.empty(2, tokens)
    for first, second in [(1, 1), (2, 2), (3, 1), (4, 2), (5, 3)]:  # the second begins anew on the way
        token = torch.stack([tokens[0, first], tokens[1, second]])
        anchor = tokens[:, 0] if 1 in (first, second) else None
        feature, memory = backbone.step(token, anchor, torch.tensor([first, second]), memory)
        assert (feature[0] - whole[0, first]).abs().max() < 1e-12
        assert (feature[1] - whole[1, second]).abs().max() < 1e-12


def test_windows_longer_than_a_chunk_of_the_cache_are_remembered_whole() -> None:
    """Two windows that are 20 steps apart, so that they write to different chunks; then one begins anew."""
    torch.manual_seed(0)
    horizon, lead = 50, 20
    backbone = Transformer(WIDTH, layers=2, heads=3, horizon=horizon).double()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.normal_(std=0.3)  # so that far tokens matter
    tokens = torch.randn(2, horizon + 1, WIDTH, dtype=torch.float64)
    whole, memory = backbone(tokens), backbone.empty(2, tokens)
    for step in range(horizon + lead):
        first, second = step % horizon + 1, (step - lead) % horizon + 1  # the second has begun from step 20 on
        anchor = tokens[:, 0] if 1 in (first, second) else None
        token = torch.stack([tokens[0, first], tokens[1, second]])
        feature, memory = backbone.step(token, anchor, torch.tensor([first, second]), memory)
        assert (feature[0] - whole[0, first]).abs().max() < 1e-12
        if step >= lead:
            assert (feature[1] - whole[1, second]).abs().max() < 1e-12


def test_a_step_leaves_the_memory_before_it_as_it_was() -> None:
    torch.manual_seed(0)
    backbone = Transformer(WIDTH, layers=1, heads=3, horizon=40)
    tokens = torch.randn(BATCH, 41, WIDTH)
    memory = backbone.empty(BATCH, tokens)
    for t in range(1, 19):
        _, memory = backbone.step(tokens[:, t], tokens[:, 0] if t == 1 else None, torch.full((BATCH,), t), memory)
    before = memory.clone()
    futures = [backbone.step(tokens[:, 19] * sign, None, torch.full((BATCH,), 19), memory)[0] for sign in (1, -1)]
    assert not torch.equal(*futures)
    pairs = zip(memory.tensors(), before.tensors(), strict=True)
    assert all(torch.equal(mine, theirs) for (_, mine), (_, theirs) in pairs)


def test_weights_start_as_released() -> None:
    torch.manual_seed(0)
    recurrent = Lstm(48).recurrent.weight.detach()
    for gate in recurrent.chunk(4):
        assert torch.allclose(gate @ gate.T, torch.eye(48), atol=1e-5)
    weights = [p.detach() for name, p in Transformer(48, 2, 3, 100).named_parameters() if p.ndim == 2]
    for weight in weights:
        assert weight.std().item() == pytest.approx(0.02, rel=0.1)
