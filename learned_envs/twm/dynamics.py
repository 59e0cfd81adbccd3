"""The transformer world model's dynamics: what happens next, given what happened so far.

Follows Robine et al. (ICLR 2023, section 2.2). A step t is told by its latent z_t, its action a_t and the reward r_{t-1}
gained on the way to it, either as three tokens or fused into one. The feature h_t read where a_t enters predicts the next
latent, the reward and whether the episode goes on.

Letters: B batch, L steps, T tokens, M remembered tokens, D width, V latent variables, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from learned_envs.nn.attention import KeyValues, causal_distances
from learned_envs.nn.dropout import Dropout
from learned_envs.nn.initialization import kaiming_uniform
from learned_envs.twm.config import TwmConfig
from learned_envs.twm.transformer import Transformer
from learned_envs.world_model import State

__all__ = ["Dynamics", "Forecast", "LocalHead", "Memory"]

_CELLS = 64  # of a grid observation model
_HINTS = 16  # that the transformer gives to each cell, where the next code is predicted locally


@dataclass(frozen=True)
class Forecast:
    """What the dynamics expect of the next step, as unnormalised outputs.

    Args:
        latent: Logits of the next latent, shape (B, L, V, K).
        reward: Logits over the reward values, shape (B, L, R), or the predicted mean, shape (B, L, 1).
        discount: Logit of the discount, shape (B, L).
        features: h_t, from which all of it was read, shape (B, L, D); None if it was put together by hand.
    """

    latent: Tensor
    reward: Tensor
    discount: Tensor
    features: Tensor | None = None


@dataclass(frozen=True)
class Memory(State):
    """The last M tokens of every layer and the last W latents, oldest first.

    Args:
        keys: Shape (B, layers, M, D).
        values: Shape (B, layers, M, D).
        valid: Which tokens count; the front is empty after a start, bool, shape (B, M).
        latents: One-hot, 0 where there is none; W is ``local_steps - 1``, or 0. Shape (B, W, V * K).
    """

    keys: Tensor
    values: Tensor
    valid: Tensor
    latents: Tensor

    def push(self, new: KeyValues, valid: Tensor, latents: Tensor) -> "Memory":
        """Forget the oldest in favour of T new tokens and L new latents.

        Args:
            new: Keys and values, shape (B, layers, T, D) each.
            valid: Which of them count, bool, shape (B, T).
            latents: 0 where they do not count, shape (B, L, V * K); they may begin with ones that are remembered already, if
                there are enough of them to replace all.
        """
        return Memory(
            _newest(self.keys, new[0], 2),
            _newest(self.values, new[1], 2),
            _newest(self.valid, valid, 1),
            _newest(self.latents, latents, 1),
        )


def _newest(old: Tensor, new: Tensor, dim: int) -> Tensor:
    """The last of the old and new ones along a dimension, as many as there are old ones."""
    size, added = old.shape[dim], new.shape[dim]
    if added >= size:
        return new.to(old.dtype).narrow(dim, added - size, size)
    # What goes is cut off first: the result then lies in one piece, and the next step reads it faster.
    return torch.cat([old.narrow(dim, added, size - added), new.to(old.dtype)], dim)


class Dynamics(nn.Module):
    """Embeddings, transformer and heads.

    Args:
        config: All sizes.
    """

    step_window: Tensor

    def __init__(self, config: TwmConfig) -> None:
        super().__init__()
        self.config = config
        width, features = config.transformer.width, config.observation.latent.features
        fused = config.tokens == "fused"
        if config.observation.architecture == "grid":
            self.latent_embedding: nn.Module = _CellEmbedding(features // _CELLS, width)
        else:
            self.latent_embedding = nn.Linear(features, width)
        # Fused tokens know one action more: "unknown", for the frames before the first recorded action.
        self.action_embedding = nn.Embedding(config.num_actions + fused, width)
        self.reward_embedding = nn.Linear(1, width)
        self.activation = nn.Identity() if fused else nn.SiLU()
        self.memory_size = config.context - 1 if fused else (config.context - 1) * 3 + 2
        span = self.memory_size + config.tokens_per_step
        self.transformer = Transformer(config.transformer, span)
        dropout = config.transformer.dropout
        local = config.local_steps > 0
        self.latent_head = _head(width, config.latent_hidden, _CELLS * _HINTS if local else features, dropout)
        self.local_head = LocalHead(features // _CELLS, config.local_steps, _HINTS) if local else None
        self.reward_head = _head(width, config.reward_hidden, len(config.reward_values) or 1, dropout)
        self.discount_head = _head(width, config.discount_hidden, 1, dropout)
        if not fused:
            output = self.discount_head[-1]
            assert isinstance(output, nn.Linear)
            nn.init.constant_(output.bias, 0.99)  # a logit, as in the authors' release
        self.register_buffer("step_window", self._window(span)[-config.tokens_per_step :], persistent=False)

    @property
    def unknown_action(self) -> int:
        """Index that stands for an action nobody recorded; fused tokens only."""
        return self.config.num_actions

    def forward(
        self, latents: Tensor, actions: Tensor, rewards: Tensor, episodes: Tensor, told: Tensor | None = None
    ) -> Forecast:
        """Predict every step of recorded sequences, in parallel.

        Args:
            latents: One-hot latents z_t, shape (B, L, V * K).
            actions: Actions a_t as indices, int64, shape (B, L), or as probabilities, shape (B, L, num_actions).
            rewards: r_{t-1} as the model is fed it, shape (B, L); the first is not used with separate tokens.
            episodes: Number of the episode each step belongs to, int64, shape (B, L); nothing attends across.
            told: What else a training tells of the latents, added to their embeddings, shape (B, L, D).

        Returns:
            The forecast at every step.
        """
        features, _ = self._process(latents, actions, rewards, episodes, told)
        return self._forecast(features, self._recent(latents, episodes) if self.local_head else None)

    def remember(self, latents: Tensor, actions: Tensor, rewards: Tensor, valid: Tensor) -> Memory:
        """Fill a memory with recorded steps.

        Args:
            latents: One-hot latents, shape (B, L, V * K); L may be 0.
            actions: Indices, int64, shape (B, L).
            rewards: As `forward` takes them, shape (B, L).
            valid: Which steps are real; contexts shorter than L are filled up in front, bool, shape (B, L).
        """
        memory = self._empty_memory(latents)
        if latents.shape[1] == 0:
            return memory
        _, new = self._process(latents, actions, rewards, valid.long())
        return memory.push(new, self._by_token(valid), latents * valid.unsqueeze(-1))

    def step(self, latents: Tensor, actions: Tensor, rewards: Tensor, memory: Memory) -> tuple[Forecast, Memory]:
        """Predict one more step from a memory.

        Args:
            latents: One-hot latent z_t, shape (B, V * K).
            actions: Indices, int64, shape (B,), or probabilities, shape (B, num_actions).
            rewards: r_{t-1} as the model is fed it, shape (B,).
            memory: The steps before.

        Returns:
            The forecast, with L = 1, and the new memory.
        """
        tokens = self._tokens(latents.unsqueeze(1), actions.unsqueeze(1), rewards.unsqueeze(1))
        valid = memory.valid.new_ones(tokens.shape[:2])
        if self.config.tokens == "separate":
            valid[:, 0] = memory.valid[:, -1]  # before the first step there is no reward to tell
        own = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
        seen = torch.cat([memory.valid, valid], 1).unsqueeze(1)
        mask = self.step_window & seen
        # A token always sees itself, or the softmax of an empty row would be NaN.
        mask = torch.cat([mask[:, :, : -len(own)], mask[:, :, -len(own) :] | own], 2)
        features, new = self.transformer(tokens, mask, (memory.keys, memory.values))
        recent = torch.cat([memory.latents, latents.unsqueeze(1).to(memory.latents.dtype)], 1)
        forecast = self._forecast(features[:, -1:], recent.unsqueeze(1) if self.local_head else None)
        return forecast, memory.push(new, valid, recent)

    def extend(
        self, latents: Tensor, actions: Tensor, rewards: Tensor, mask: Tensor, past: KeyValues | None
    ) -> tuple[Forecast, KeyValues]:
        """Predict one more step from keys and values that the caller keeps; for rollouts of known length.

        Only of models that look at no codes beside the transformer, ``local_steps = 0``.

        Args:
            latents: One-hot latent z_t, shape (B, V * K).
            actions: Indices, int64, shape (B,).
            rewards: r_{t-1} as the model is fed it, shape (B,).
            mask: Which of the tokens so far each new one may see, bool, shape (B or 1, T, S).
            past: Keys and values of the tokens before, shape (B, layers, S - T, D) each; None at the first step, which has
                no reward token if tokens are separate.

        Returns:
            The forecast, with L = 1, and the new tokens' keys and values, shape (B, layers, T, D) each.
        """
        tokens = self._tokens(latents.unsqueeze(1), actions.unsqueeze(1), rewards.unsqueeze(1))
        features, new = self.transformer(tokens[:, -mask.shape[1] :], mask, past)
        return self._forecast(features[:, -1:], None), new

    def window(self, total: int) -> Tensor:
        """Which of ``total`` tokens, the last being that of an action, each may see by its distance: bool, shape (T, T)."""
        return self._window(total).to(self.reward_embedding.weight.device)

    def _process(
        self, latents: Tensor, actions: Tensor, rewards: Tensor, episodes: Tensor, told: Tensor | None = None
    ) -> tuple[Tensor, KeyValues]:
        """Features at every step, shape (B, L, D), and the keys and values of every token."""
        tokens = self._tokens(latents, actions, rewards, told)
        per_step = self.config.tokens_per_step
        if per_step == 3:
            tokens = tokens[:, 1:]  # sequences open with a latent
        episodes = self._by_token(episodes)
        mask = self._window(tokens.shape[1]).to(tokens.device) & (episodes.unsqueeze(2) == episodes.unsqueeze(1))
        features, new = self.transformer(tokens, mask)
        return features[:, (tokens.shape[1] - 1) % per_step :: per_step], new

    def _recent(self, latents: Tensor, episodes: Tensor) -> Tensor:
        """The latents of the last W + 1 steps of the same episode at every step, oldest first: (B, L, W + 1, V * K)."""
        older = []
        for age in range(self.config.local_steps - 1, 0, -1):
            same = episodes[:, age:] == episodes[:, :-age]
            before = latents[:, :-age] * same.unsqueeze(-1)
            older.append(functional.pad(before, (0, 0, latents.shape[1] - before.shape[1], 0)))
        return torch.stack([*older, latents], 2)

    def _by_token(self, values: Tensor) -> Tensor:
        """What holds of each step, shape (B, L), for each of its tokens; a reward belongs to the step that earned it."""
        if self.config.tokens == "fused":
            return values
        return torch.stack([values.roll(1, 1), values, values], 2).flatten(1, 2)[:, 1:]

    def _tokens(self, latents: Tensor, actions: Tensor, rewards: Tensor, told: Tensor | None = None) -> Tensor:
        """Tokens in the order r_{t-1}, z_t, a_t, or their sums, shape (B, L or 3 L, D)."""
        if not self.config.reward_tokens:
            rewards = torch.zeros_like(rewards)
        embedded = self.latent_embedding(latents)
        latent = self.activation(embedded if told is None else embedded + told)
        reward = self.activation(self.reward_embedding(rewards.unsqueeze(-1)))
        if actions.dtype.is_floating_point:
            action = actions @ self.action_embedding.weight[: actions.shape[-1]]
        else:
            action = self.action_embedding(actions)
        if self.config.tokens == "fused":
            return latent + action + reward
        return torch.stack([reward, latent, action.to(latent.dtype)], 2).flatten(1, 2)

    def _window(self, total: int) -> Tensor:
        """How far back each of ``total`` tokens may look, the last being that of an action: bool, shape (T, T)."""
        distances = causal_distances(total, total)
        if self.config.tokens == "fused":
            return (distances >= 0) & (distances < self.config.context)
        # z_t and a_t look back to their like of step t - context, r_t only to the latent of the step after.
        is_reward = torch.arange(total - 1, -1, -1) % 3 == 2
        return (distances >= 0) & (distances <= 3 * self.config.context - is_reward.long().unsqueeze(1))

    def _empty_memory(self, like: Tensor) -> Memory:
        config = self.config.transformer
        shape = (len(like), config.layers, self.memory_size, config.width)
        empty = like.new_zeros(shape, dtype=self.reward_embedding.weight.dtype)
        latents = empty.new_zeros(len(like), max(self.config.local_steps - 1, 0), like.shape[-1])
        return Memory(empty, empty, torch.zeros(shape[0], shape[2], dtype=torch.bool, device=like.device), latents)

    def _forecast(self, features: Tensor, recent: Tensor | None) -> Forecast:
        latent = self.config.observation.latent
        logits = self.latent_head(features)
        if self.local_head is not None:  # what was read are its hints
            assert recent is not None
            logits = self.local_head(recent, logits)
        return Forecast(
            logits.unflatten(-1, (latent.variables, latent.classes)),
            self.reward_head(features),
            self.discount_head(features).squeeze(-1),
            features,
        )


class _CellEmbedding(nn.Module):
    """Embedding of a grid of local codes: what a code means is learned once for all cells, where it stands for each.

    Args:
        per_cell: Features of a cell's one-hot code.
        width: Features of the embedding.
    """

    def __init__(self, per_cell: int, width: int, hidden: int = 64, meaning: int = 16) -> None:
        super().__init__()
        code = nn.Linear(per_cell, hidden)
        self.cell = nn.Sequential(code, nn.SiLU(), nn.Linear(hidden, meaning))
        self.place = nn.Linear(_CELLS * meaning, width)
        nn.init.normal_(code.weight)  # its inputs are one-hot: each code gets a feature of unit size

    def forward(self, latents: Tensor) -> Tensor:
        """One-hot latents, shape (..., V * K), to embeddings, shape (..., D)."""
        return self.place(self.cell(latents.unflatten(-1, (_CELLS, -1))).flatten(-2))


class LocalHead(nn.Module):
    """Predicts the next code of every cell from its neighbourhood, by the same law in every cell.

    A transformer that sees a frame as one token must learn for each cell by itself how things move through it. A
    convolution over the newest grids learns it once, from 64 times the examples. The transformer gives it hints: of the
    action, of what lies further back, and of what happens elsewhere.

    Args:
        per_cell: Features of a cell's one-hot code.
        steps: Newest grids that it looks at.
        hints: Features of the transformer's hint to a cell.
        channels: Channels of the convolutions.
    """

    def __init__(self, per_cell: int, steps: int, hints: int, channels: int = 64) -> None:
        super().__init__()
        self.codes = nn.Conv2d(steps * per_cell + hints, channels, 1)
        nn.init.normal_(self.codes.weight[:, : steps * per_cell], std=0.5)  # one-hot inputs, a few of them 1
        side = int(_CELLS**0.5)
        self.place = nn.Parameter(torch.zeros(1, channels, side, side))
        self.layers = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels, 2 * channels, 1),
            nn.SiLU(),
            nn.Conv2d(2 * channels, per_cell, 1),
        )

    def forward(self, recent: Tensor, hints: Tensor) -> Tensor:
        """Logits of the next latent.

        Args:
            recent: Newest latents, oldest first, shape (B, L, steps, V * K).
            hints: Of the transformer, shape (B, L, cells * hints).

        Returns:
            Shape (B, L, V * K).
        """
        batch, length, side = *hints.shape[:2], self.place.shape[-1]
        cells = recent.unflatten(-1, (_CELLS, -1)).movedim(-2, 2).flatten(3)  # (B, L, cells, steps * per_cell)
        told = hints.unflatten(-1, (_CELLS, -1))
        grid = torch.cat([cells.to(told.dtype), told], -1).flatten(0, 1).unflatten(1, (side, side))
        place = self.place.contiguous(memory_format=torch.channels_last)  # as the cells lie in memory: added faster
        logits = self.layers(self.codes(grid.permute(0, 3, 1, 2)) + place)
        return logits.permute(0, 2, 3, 1).reshape(batch, length, -1)


def _head(width: int, hidden: tuple[int, ...], outputs: int, dropout: float) -> nn.Sequential:
    """Perceptron on the activated features, initialised as in the authors' release."""
    layers: list[nn.Module] = [nn.SiLU()]
    for size in hidden:
        layers += [nn.Linear(width, size), nn.SiLU(), Dropout(dropout)]
        kaiming_uniform(layers[-3])  # type: ignore[arg-type]
        width = size
    layers.append(nn.Linear(width, outputs))
    kaiming_uniform(layers[-1], gain=1.0)  # type: ignore[arg-type]
    return nn.Sequential(*layers)
