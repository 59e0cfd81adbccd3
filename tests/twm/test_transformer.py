"""The transformer's two forms: the paper's, which normalises last, and the compact one, which normalises first."""

from dataclasses import replace

import pytest
import torch

from learned_envs.nn.attention import RelativeAttention, causal_distances
from learned_envs.twm.config import compact, faithful
from learned_envs.twm.transformer import Transformer, TransformerConfig

TINY = TransformerConfig(layers=3, width=16, heads=2, hidden=32, dropout=0.5)


def _run(config: TransformerConfig, tokens: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(0)
    mask = (causal_distances(tokens.shape[1], tokens.shape[1]) >= 0).unsqueeze(0)
    return Transformer(config, span=tokens.shape[1]).eval()(tokens, mask)[0]


@pytest.mark.parametrize(
    ("config", "scale"), [(faithful(18), 1 / 16), (compact(18), 1 / 8)], ids=["faithful", "compact"]
)
def test_scores_are_divided_as_the_preset_says(config, scale: float) -> None:
    with torch.device("meta"):
        transformer = Transformer(config.transformer, span=53)
    attentions = [module for module in transformer.modules() if isinstance(module, RelativeAttention)]
    assert [attention.scale for attention in attentions] == [scale] * config.transformer.layers


@pytest.mark.parametrize("normalize", ["before", "after"])
def test_features_leave_normalised(normalize) -> None:
    features = _run(replace(TINY, normalize=normalize), 100 * torch.randn(2, 5, 16))
    assert torch.allclose(features.mean(-1), torch.zeros(2, 5), atol=1e-5)
    assert torch.allclose(features.var(-1, correction=0), torch.ones(2, 5), atol=1e-3)


def test_only_the_papers_form_forgets_the_size_of_a_token() -> None:
    """Normalising after each block bounds what the next one sees; before it, the tokens pass by unchanged in size."""
    tokens = torch.randn(1, 4, 16)
    tokens = tokens - tokens.mean(-1, keepdim=True)
    large = {form: _run(replace(TINY, normalize=form), 1e4 * tokens) for form in ("before", "after")}
    passed_by = torch.nn.functional.layer_norm(tokens, (16,))
    assert (large["before"] - passed_by).abs().max() < 1e-2
    assert (large["after"] - passed_by).abs().max() > 0.1


def test_dropout_acts_in_training_alone() -> None:
    torch.manual_seed(0)
    transformer, tokens = Transformer(TINY, span=4), torch.randn(1, 4, 16)
    mask = torch.ones(1, 4, 4, dtype=torch.bool).tril()
    assert not torch.equal(transformer(tokens, mask)[0], transformer(tokens, mask)[0])
    transformer.eval()
    assert torch.equal(transformer(tokens, mask)[0], transformer(tokens, mask)[0])
