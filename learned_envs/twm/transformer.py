"""The transformer that carries the past of an imagined episode.

Two forms share the code. The paper's (Robine et al., ICLR 2023, section 2.1) normalises after each block and scales the
scores by the model width; the compact form normalises before each block and scales by the head's width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from learned_envs.nn.attention import KeyValues, RelativeAttention, sinusoids
from learned_envs.nn.dropout import Dropout

__all__ = ["Transformer", "TransformerConfig"]


@dataclass(frozen=True)
class TransformerConfig:
    """Size and form of the transformer.

    Args:
        layers: Number of blocks.
        width: Features of a token.
        heads: Attention heads; must divide ``width``.
        hidden: Features inside the feed-forward part.
        normalize: ``"after"`` each block as in the paper, or ``"before"``.
        score_width: Scores are divided by the square root of this: the ``"model"`` width as in the paper, or the ``"head"``
            width.
        dropout: Probability of dropping a feature in training, in [0, 1).

    Raises:
        ValueError: If a size is not positive or ``heads`` does not divide ``width``.
    """

    layers: int = 10
    width: int = 256
    heads: int = 4
    hidden: int = 1024
    normalize: Literal["before", "after"] = "after"
    score_width: Literal["model", "head"] = "model"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width is {self.width}, but must be even and a multiple of heads, {self.heads}.")
        if self.normalize not in ("before", "after"):
            raise ValueError(f'normalize is {self.normalize!r}, but must be "before" or "after".')
        if self.score_width not in ("model", "head"):
            raise ValueError(f'score_width is {self.score_width!r}, but must be "model" or "head".')
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, but must lie in [0, 1).")


class _Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        width = config.width
        score_width = width if config.score_width == "model" else width // config.heads
        self.before = config.normalize == "before"
        self.attention = RelativeAttention(width, config.heads, score_width**-0.5, config.dropout)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, config.hidden),
            nn.SiLU(),
            Dropout(config.dropout),
            nn.Linear(config.hidden, width),
            Dropout(config.dropout),
        )
        self.dropout = Dropout(config.dropout)
        self.attention_norm = nn.LayerNorm(width, eps=1e-5)
        self.feed_forward_norm = nn.LayerNorm(width, eps=1e-5)

    def forward(self, tokens: Tensor, *args, **kwargs) -> tuple[Tensor, KeyValues]:
        if self.before:
            attended, new = self.attention(self.attention_norm(tokens), *args, **kwargs)
            tokens = tokens + self.dropout(attended)
            return tokens + self.feed_forward(self.feed_forward_norm(tokens)), new
        attended, new = self.attention(tokens, *args, **kwargs)
        tokens = self.attention_norm(tokens + self.dropout(attended))
        return self.feed_forward_norm(tokens + self.feed_forward(tokens)), new


class Transformer(nn.Module):
    """Causal transformer over tokens with relative positions and an explicit memory.

    Args:
        config: Size and form.
        span: Longest distance between a query and a key, plus one.
    """

    encodings: Tensor

    def __init__(self, config: TransformerConfig, span: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.layers))
        head_width = config.width // config.heads
        self.content_bias = nn.Parameter(torch.empty(config.heads, head_width))
        self.position_bias = nn.Parameter(torch.empty(config.heads, head_width))
        nn.init.xavier_uniform_(self.content_bias)
        nn.init.xavier_uniform_(self.position_bias)
        self.dropout = Dropout(config.dropout)
        self.final_norm = nn.LayerNorm(config.width) if config.normalize == "before" else nn.Identity()
        self.register_buffer("encodings", sinusoids(span, config.width), persistent=False)

    def forward(self, tokens: Tensor, mask: Tensor, memory: KeyValues | None = None) -> tuple[Tensor, KeyValues]:
        """Process new tokens after remembered ones.

        Args:
            tokens: Shape (B, T, D).
            mask: Which of the S = M + T tokens each new one may see, bool, shape (B or 1, T, S).
            memory: Keys and values of every layer, shape (B, layers, M, D) each.

        Returns:
            Hidden features, shape (B, T, D), and the new tokens' keys and values, shape (B, layers, T, D) each.
        """
        encodings = self.dropout(self.encodings[: mask.shape[-1]])
        biases = (self.content_bias, self.position_bias)
        keys, values = [], []
        for layer, block in enumerate(self.blocks):
            past = None if memory is None else (memory[0][:, layer], memory[1][:, layer])
            tokens, (key, value) = block(tokens, encodings, biases, mask, past)
            keys.append(key)
            values.append(value)
        return self.final_norm(tokens), (torch.stack(keys, 1), torch.stack(values, 1))
