"""Sizes that make no sense are refused where they are written down."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from learned_envs.twm.config import LatentConfig, ObservationConfig, TwmConfig, compact, faithful
from learned_envs.twm.transformer import TransformerConfig


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: LatentConfig(variables=0), "0 variables"),
        (lambda: LatentConfig(classes=1), "1 classes"),
        (lambda: LatentConfig(uniform_share=1.0), "uniform_share"),
        (lambda: ObservationConfig(stack=0), "stack"),
        (lambda: ObservationConfig(channels=0), "channels"),
        (lambda: ObservationConfig(architecture="round"), "architecture"),  # type: ignore[arg-type]
        (lambda: ObservationConfig(architecture="grid", latent=LatentConfig(32, 32)), "32 variables"),
        (lambda: TransformerConfig(layers=0), "layers"),
        (lambda: TransformerConfig(width=30, heads=4), "width"),
        (lambda: TransformerConfig(width=15, heads=3), "width"),
        (lambda: TransformerConfig(normalize="never"), "normalize"),  # type: ignore[arg-type]
        (lambda: TransformerConfig(score_width="none"), "score_width"),  # type: ignore[arg-type]
        (lambda: TransformerConfig(dropout=1.0), "dropout"),
        (lambda: TwmConfig(0), "num_actions"),
        (lambda: TwmConfig(3, tokens="mixed"), "tokens"),  # type: ignore[arg-type]
        (lambda: TwmConfig(3, context=1), "context"),
        (lambda: TwmConfig(3, reward_values=(1.0,)), "reward_values"),
        (lambda: TwmConfig(3, reward_values=(0.0, 0.0, 1.0)), "reward_values"),
        (lambda: TwmConfig(3, discount=0.0), "discount"),
        (lambda: TwmConfig(3, temperature=-0.1), "temperature"),
        (lambda: replace(compact(3), tokens="separate"), "tokens"),
    ],
)
def test_value_out_of_range_is_named(make: Callable[[], Any], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        make()


def test_faithful_preset_is_the_authors_model() -> None:
    config = faithful(18)
    assert (config.observation.stack, config.observation.architecture, config.observation.channels) == (4, "dense", 48)
    assert config.observation.latent == LatentConfig(32, 32, 0.0)
    assert config.transformer == TransformerConfig(10, 256, 4, 1024, "after", "model", 0.1)
    assert (config.tokens, config.context, config.discount) == ("separate", 17, 0.99)
    assert (config.reward_values, config.temperature) == ((), 1.0)
