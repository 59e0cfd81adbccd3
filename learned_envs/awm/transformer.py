"""The transformer backbone: a small GPT-2 (Radford et al., 2019) with learned absolute positions inside a window.

Windows have at most H + 1 tokens, so the cache has a slot for each position and never grows. A new window overwrites the
slots from the front; what an older one left behind lies at later positions, where causality hides it.

Letters: B batch, T tokens, S slots, C slots of a chunk, D width, N heads, W width of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from learned_envs.awm.backbone import Backbone
from learned_envs.world_model import State

__all__ = ["Cache", "CausalAttention", "Layers", "Transformer"]

_DEVIATION = 0.02  # of all initial weights, as in GPT-2
_CHUNK = 16  # slots; smaller ones are copied faster, but there are more of them to join


@dataclass(frozen=True)
class Cache(State):
    """Keys and values of one layer, in the slots of their positions.

    They lie in chunks, because a step may not change what the state before it holds: it copies the chunk that it writes to,
    and shares the others.

    Args:
        keys: Each of shape (B, N, C, W).
        values: Each of shape (B, N, C, W).
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


@dataclass(frozen=True)
class Places:
    """Where the tokens of a step go, the same in every layer.

    Args:
        slots: Slot of each token, int64, shape (B, T); below 0, none.
        written: The chunks that are written to.
        used: How many chunks hold all that the tokens attend to.
        column: The place in the last of them that every row writes its only token to; None where they differ.
    """

    slots: Tensor
    written: frozenset[int]
    used: int
    column: int | None

    @classmethod
    def find(cls, slots: Tensor, chunks: int) -> "Places":
        """Find places for slots, among so many chunks."""
        if slots.device.type != "cpu":  # looking would wait for the device
            return cls(slots, frozenset(range(chunks)), chunks, None)
        found = slots.unique().tolist()
        homes = {slot // _CHUNK for slot in found if slot >= 0}
        return cls(slots, frozenset(homes), max(homes) + 1, found[0] % _CHUNK if len(found) == 1 else None)

    def fill(self, chunks: tuple[Tensor, ...], new: Tensor) -> tuple[Tensor, ...]:
        """Chunks with new entries, shape (B, N, T, W); those in which nothing is written are shared."""
        return tuple(
            self._write(chunk, place, new) if place in self.written else chunk for place, chunk in enumerate(chunks)
        )

    def gather(self, chunks: tuple[Tensor, ...]) -> Tensor:
        """All that tokens attend to, in the order of positions, shape (B, N, S, W)."""
        return torch.cat(chunks[: self.used], 2)

    def _write(self, chunk: Tensor, place: int, new: Tensor) -> Tensor:
        if self.column is not None:
            return chunk.slice_scatter(new, 2, self.column, self.column + 1)
        for slots, token in zip(self.slots.unbind(1), new.split(1, 2), strict=True):
            index = (slots % _CHUNK).view(-1, 1, 1, 1).expand_as(token)
            chunk = torch.where((slots // _CHUNK == place).view(-1, 1, 1, 1), chunk.scatter(2, index, token), chunk)
        return chunk


@dataclass(frozen=True)
class Layers(State):
    """The caches of all layers.

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

    def forward(
        self, tokens: Tensor, positions: Tensor, cache: Cache | None = None, places: Places | None = None
    ) -> tuple[Tensor, Cache]:
        """Attend from each token to those at its own and at earlier positions.

        Args:
            tokens: Shape (B, T, D).
            positions: Of the tokens in their windows, int64, shape (B or 1, T); without a cache, 0 to T - 1.
            cache: The tokens before, in the slots of their positions. The new ones are written into a copy.
            places: Where they are written.

        Returns:
            The result, shape (B, T, D), and the cache with the new tokens.
        """
        query, key, value = (self._split(part) for part in self.query_key_value(tokens).chunk(3, -1))
        cache, keys, values = self._remember(key, value, cache, places)
        later = torch.arange(keys.shape[2], device=tokens.device) > positions.unsqueeze(-1)
        scores = (query * self.scale @ keys.mT).masked_fill(later.unsqueeze(1), float("-inf"))
        attended = scores.softmax(-1) @ values
        return self.output(attended.transpose(1, 2).flatten(2)), cache

    def _remember(
        self, key: Tensor, value: Tensor, cache: Cache | None, places: Places | None
    ) -> tuple[Cache, Tensor, Tensor]:
        """The cache with new keys and values, and all that can be attended to."""
        if cache is None or places is None:
            return Cache((key,), (value,)), key, value
        cache = Cache(places.fill(cache.keys, key), places.fill(cache.values, value))
        return cache, places.gather(cache.keys), places.gather(cache.values)

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

    def forward(
        self, tokens: Tensor, positions: Tensor, cache: Cache | None = None, places: Places | None = None
    ) -> tuple[Tensor, Cache]:
        attended, after = self.attention(self.attention_norm(tokens), positions, cache, places)
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
            tokens, _ = block(tokens, positions)
        return self.final_norm(tokens)

    def empty(self, batch: int, like: Tensor) -> Layers:
        """See `Backbone.empty`. One zero stands for all: the steps make the memory."""
        chunks = self.horizon // _CHUNK + 1  # positions 0 to H
        shape = (batch, self.heads, _CHUNK, self.positions.embedding_dim // self.heads)
        zeros = (like.new_zeros(()).expand(shape),) * chunks
        return Layers(tuple(Cache(zeros, zeros) for _ in self.blocks))

    def step(self, token: Tensor, anchor: Tensor | None, position: Tensor, memory: Layers) -> tuple[Tensor, Layers]:
        """See `Backbone.step`."""
        tokens, positions = (token + self.positions(position)).unsqueeze(1), position.unsqueeze(1)
        slots = positions
        if anchor is not None:
            tokens = torch.cat([(anchor + self.positions.weight[0]).unsqueeze(1), tokens], 1)
            begins = torch.where(position == 1, 0, -1)
            slots = torch.stack([begins, position], 1)
            positions = slots.clamp_min(0)
        places = Places.find(slots, len(memory.caches[0].keys))
        caches = []
        for block, before in zip(self.blocks, memory.caches, strict=True):
            tokens, after = block(tokens, positions, before, places)
            caches.append(after)
        return self.final_norm(tokens[:, -1]), Layers(tuple(caches))


def _initialize(module: nn.Module) -> None:
    """N(0, 0.02) weights and zero biases, as in GPT-2."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_DEVIATION)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
