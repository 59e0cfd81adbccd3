"""The transformer backbone: a small GPT-2 (Radford et al., 2019) with learned absolute positions inside a window.

Windows have at most H + 1 tokens, so the cache has a slot for each position and never grows. A new window overwrites the
slots from the front; what an older one left behind lies at later positions, where causality hides it.

Letters: B batch, T tokens, S slots, D width, N heads, W width of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learned_envs.awm.backbone import Backbone
from learned_envs.world_model import State

__all__ = ["Cache", "CausalAttention", "Layers", "Transformer"]

_DEVIATION = 0.02  # of all initial weights, as in GPT-2


@dataclass(frozen=True)
class Cache(State):
    """Keys and values of one layer, in the slots of their positions.

    Args:
        keys: Shape (B, N, S, W).
        values: Shape (B, N, S, W).
    """

    keys: Tensor
    values: Tensor

    def write(self, keys: Tensor, values: Tensor, slots: Tensor) -> "Cache":
        """Put new keys and values in their slots.

        Args:
            keys: Shape (B, N, T, W).
            values: Shape (B, N, T, W).
            slots: Where each goes, int64, shape (B, T); no slot twice in a row.
        """
        index = slots[:, None, :, None].expand_as(keys)
        return Cache(self.keys.scatter(2, index, keys), self.values.scatter(2, index, values))


@dataclass(frozen=True)
class Layers(State):
    """The caches of all layers. Apart, because a matrix product wants its batch in one piece.

    Args:
        caches: One a layer.
    """

    caches: tuple[Cache, ...]


class CausalAttention(nn.Module):
    """Multi-head softmax attention, scores divided by the square root of a head's width.

    Args:
        width: Features of a token, D.
        heads: Number of heads, N; must divide ``width``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor, positions: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Attend from each token to those at its own and at earlier positions.

        Args:
            tokens: Shape (B, T, D).
            positions: Of the tokens in their windows, int64, shape (B or 1, T); without a cache, 0 to T - 1.
            cache: The tokens before, in the slots of their positions. The new ones are written into a copy.

        Returns:
            The result, shape (B, T, D), and the cache with the new tokens.
        """
        query, key, value = (self._split(part) for part in self.query_key_value(tokens).chunk(3, -1))
        cache = Cache(key, value) if cache is None else cache.write(key, value, positions)
        later = torch.arange(cache.keys.shape[2], device=tokens.device) > positions.unsqueeze(-1)
        scores = (query * self.scale @ cache.keys.mT).masked_fill(later.unsqueeze(1), float("-inf"))
        attended = scores.softmax(-1) @ cache.values
        return self.output(attended.transpose(1, 2).flatten(2)), cache

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, N, T, W)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class _Block(nn.Module):
    """A GPT-2 block: LayerNorm before attention and before a network of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor, positions: Tensor, cache: Cache | None) -> tuple[Tensor, Cache]:
        attended, after = self.attention(self.attention_norm(tokens), positions, cache)
        tokens = tokens + attended
        return tokens + self.feed_forward(tokens), after


class Transformer(Backbone):
    """GPT-2 blocks over a window, without dropout: in the authors' release it was configured, but never active.

    The table of positions has H + 1 rows; the release had one more, which a clock that is right never reads.

    Args:
        width: Features of a token, D.
        layers: Number of blocks.
        heads: Attention heads, N; must divide ``width``.
        horizon: Steps of a window, H.
    """

    def __init__(self, width: int, layers: int, heads: int, horizon: int) -> None:
        super().__init__()
        self.heads = heads
        self.horizon = horizon
        self.positions = nn.Embedding(horizon + 1, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.final_norm = nn.LayerNorm(width)
        self.apply(_initialize)

    def forward(self, tokens: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        positions = torch.arange(tokens.shape[1], device=tokens.device).unsqueeze(0)
        tokens = tokens + self.positions(positions)
        for block in self.blocks:
            tokens, _ = block(tokens, positions, None)
        return self.final_norm(tokens)

    def empty(self, batch: int, like: Tensor) -> Layers:
        """See `Backbone.empty`. One zero stands for all: the first step makes the memory."""
        # Positions 0 to H, and a slot that takes the anchors of windows that do not begin.
        shape = (batch, self.heads, self.horizon + 2, self.positions.embedding_dim // self.heads)
        zeros = like.new_zeros(()).expand(shape)
        return Layers(tuple(Cache(zeros, zeros) for _ in self.blocks))

    def step(self, token: Tensor, anchor: Tensor | None, position: Tensor, memory: Layers) -> tuple[Tensor, Layers]:
        """See `Backbone.step`."""
        tokens, positions = (token + self.positions(position)).unsqueeze(1), position.unsqueeze(1)
        if anchor is not None:
            tokens = torch.cat([(anchor + self.positions.weight[0]).unsqueeze(1), tokens], 1)
            unused = self.horizon + 1
            positions = torch.stack([torch.where(position == 1, 0, unused), position], 1)
        caches = []
        for block, before in zip(self.blocks, memory.caches, strict=True):
            tokens, after = block(tokens, positions, before)
            caches.append(after)
        return self.final_norm(tokens[:, -1]), Layers(tuple(caches))


def _initialize(module: nn.Module) -> None:
    """N(0, 0.02) weights and zero biases, as in GPT-2."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_DEVIATION)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
