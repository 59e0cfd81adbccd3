"""Attention with relative positions and a bounded memory, after Transformer-XL (Dai et al., 2019, section 3.3).

Positions enter only as the distance between query and key. That is what lets a rollout run for ever: keys and values of
the last M tokens are kept as they are and slide along, and step 100,000 costs what step 100 costs.

Letters: B batch, T new tokens, M remembered tokens, S = M + T, H heads, D width, W width of a head.
"""

import math

import torch
from torch import Tensor, nn

from learned_envs.nn.dropout import Dropout

__all__ = ["KeyValues", "RelativeAttention", "causal_distances", "sinusoids"]

KeyValues = tuple[Tensor, Tensor]


def sinusoids(count: int, width: int) -> Tensor:
    """Fixed encodings of the distances 0 to ``count - 1``, sine and cosine interleaved.

    Args:
        count: Number of distances; at least 1.
        width: Even number of features.

    Returns:
        Encodings, float32, shape (count, width).
    """
    distance = torch.arange(count, dtype=torch.float32).unsqueeze(1)
    frequency = torch.exp(torch.arange(0, width, 2, dtype=torch.float32) * (-math.log(10000.0) / width))
    angle = distance * frequency
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def causal_distances(new: int, total: int, device: torch.device | None = None) -> Tensor:
    """How many tokens each key lies before each query; negative where it lies after.

    Args:
        new: Number of queries T, the last T of the S tokens.
        total: Number of keys S.
        device: Where to put the result.

    Returns:
        Distances, int64, shape (T, S).
    """
    query = torch.arange(total - new, total, device=device).unsqueeze(1)
    return query - torch.arange(total, device=device)


class RelativeAttention(nn.Module):
    """Multi-head attention whose scores depend on content and on distance.

    Args:
        width: Features of a token, D.
        heads: Number of heads; must divide ``width``.
        scale: Factor on the scores.
        dropout: Probability of dropping an attention weight in training.
    """

    def __init__(self, width: int, heads: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.position = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        tokens: Tensor,
        encodings: Tensor,
        biases: tuple[Tensor, Tensor],
        mask: Tensor,
        memory: KeyValues | None = None,
    ) -> tuple[Tensor, KeyValues]:
        """Attend from the new tokens to the remembered and the new ones.

        Args:
            tokens: New tokens, shape (B, T, D).
            encodings: Encodings of the distances that the mask lets through, from 0 on, shape (distances, D).
            biases: The learned queries u for content and v for position, shape (H, W) each.
            mask: Which keys each query may see, bool, shape (B or 1, T, S).
            memory: Keys and values of the M tokens before, shape (B, M, D) each.

        Returns:
            The result, shape (B, T, D), and the keys and values of the new tokens, shape (B, T, D) each.
        """
        query, key, value = self.query_key_value(tokens).chunk(3, -1)
        query, position = self._split(query), self.position(encodings).unflatten(-1, (self.heads, -1)).movedim(1, 0)
        content_bias, position_bias = (bias.to(query.dtype).unsqueeze(1) for bias in biases)
        content, place = query + content_bias, _by_head(query + position_bias, position.mT)

        scores = content @ self._split(key).mT
        if memory is not None:
            scores = torch.cat([self._score(content, memory[0].to(content.dtype)), scores], -1)
        scores = ((scores + _by_key(place, scores.shape[-1])) * self.scale).masked_fill(
            ~mask.unsqueeze(1), float("-inf")
        )
        weights = self.dropout(scores.softmax(-1).to(value.dtype))
        attended = weights[..., -key.shape[1] :] @ self._split(value)
        if memory is not None:
            attended = attended + self._gather(weights[..., : -key.shape[1]], memory[1].to(value.dtype))
        return self.output(attended.transpose(1, 2).flatten(2)), (key, value)

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, S, D) to (B, H, S, W)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    # A step reads the whole memory once. Splitting it into heads would copy it first, and take longer than the products.

    def _score(self, query: Tensor, key: Tensor) -> Tensor:
        """Products of queries (B, H, T, W) with unsplit keys (B, M, D): (B, H, T, M)."""
        own_part = torch.eye(self.heads, dtype=query.dtype, device=query.device)[:, None, :, None]
        rows = (query.unsqueeze(3) * own_part).flatten(1, 2).flatten(2)  # zero where other heads' features are
        return torch.bmm(rows, key.mT).unflatten(1, query.shape[1:3])

    def _gather(self, weights: Tensor, value: Tensor) -> Tensor:
        """Sums of unsplit values (B, M, D) by weights (B, H, T, M): (B, H, T, W)."""
        sums = torch.bmm(weights.flatten(1, 2), value).unflatten(1, weights.shape[1:3])
        return sums.unflatten(-1, (self.heads, -1)).diagonal(dim1=1, dim2=3).movedim(-1, 1)


def _by_head(queries: Tensor, keys: Tensor) -> Tensor:
    """Products (B, H, T, S) of queries (B, H, T, W) and keys (H, W, S), which a plain product would copy B times first."""
    products = queries.transpose(0, 1).flatten(1, 2) @ keys
    return products.unflatten(1, (queries.shape[0], queries.shape[2])).transpose(0, 1)


def _by_key(scores: Tensor, total: int) -> Tensor:
    """Scores by distance, shape (B, H, T, distances), to scores by key, shape (B, H, T, S).

    What lies after the query, or further back than there are distances, gets an arbitrary score: the mask hides it.
    """
    new, distances = scores.shape[-2:]
    if new == 1 and distances == total:
        return scores.flip(-1)
    index = causal_distances(new, total, scores.device).clamp(0, distances - 1)
    return scores.gather(-1, index.expand(*scores.shape[:2], new, total))
