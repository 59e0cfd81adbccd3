"""What a person would write who has a network and wants gradients: a loop in plain torch, with nothing around it.

The caches of the transformer grow by concatenation; all rows go in step; nothing is checked, and nothing can be reset, forked or
continued.
"""

from typing import Any

import torch
from torch import Tensor

from learned_envs.awm.dynamics import MarkovDynamics, SequenceDynamics
from learned_envs.awm.recurrent import Lstm
from learned_envs.awm.transformer import Transformer
from learned_envs.awm.world_model import ContinuousWorldModel

__all__ = ["unroll_by_hand"]


def unroll_by_hand(model: ContinuousWorldModel, start: Tensor, plan: Tensor) -> Tensor:
    """Follow a plan, and sum all rewards.

    Args:
        model: Markov, or action-conditioned on an LSTM or a transformer; with known rewards.
        start: First observations, clock last, shape (B, n).
        plan: Actions, shape (B, L, m), within the model's horizon.

    Returns:
        The sum over steps and rollouts, shape ().
    """
    network = model.dynamics
    if isinstance(network, MarkovDynamics):
        return _markov(model, network, start, plan)
    assert isinstance(network, SequenceDynamics)
    lstm = isinstance(network.backbone, Lstm)
    features = _Lstm(network.backbone) if lstm else _Transformer(network.backbone)  # type: ignore[arg-type]
    features(network.anchor_embedder(model.observation_normalizer(start)))
    observation, total = start, torch.zeros(())
    for action in plan.unbind(1):
        total = total + model.reward(observation, action).sum()
        state = model.target_normalizer.inverse(network.decoder(features(network.step_embedder(action))))
        observation = torch.cat([state, observation[:, -1:] + 1], -1)
    return total


def _markov(model: ContinuousWorldModel, network: MarkovDynamics, start: Tensor, plan: Tensor) -> Tensor:
    observation, total = start, torch.zeros(())
    for action in plan.unbind(1):
        total = total + model.reward(observation, action).sum()
        inputs = torch.cat([model.observation_normalizer(observation), action], -1)
        state = observation[:, :-1] + model.target_normalizer.inverse(network.network(inputs))
        observation = torch.cat([state, observation[:, -1:] + 1], -1)
    return total


class _Lstm:
    def __init__(self, layer: Lstm) -> None:
        self.layer = layer
        self.hidden: Tensor | None = None
        self.cell = torch.zeros(())

    def __call__(self, token: Tensor) -> Tensor:
        layer = self.layer
        drive = layer.input(token)
        if self.hidden is not None:
            drive = drive + layer.recurrent(self.hidden)
        gates, proposal = drive.split([3 * layer.width, layer.width], -1)
        keep, write, show = gates.sigmoid().chunk(3, -1)
        self.cell = keep * self.cell + write * proposal.tanh()
        hidden = self.hidden = show * self.cell.tanh()
        return hidden


class _Transformer:
    def __init__(self, network: Transformer) -> None:
        self.network = network
        self.caches: list[tuple[Tensor, Tensor] | None] = [None] * len(network.blocks)
        self.position = 0

    def __call__(self, token: Tensor) -> Tensor:
        network = self.network
        tokens = (token + network.positions.weight[self.position]).unsqueeze(1)
        self.position += 1
        blocks: Any = network.blocks
        for layer, block in enumerate(blocks):
            attention = block.attention
            parts = attention.query_key_value(block.attention_norm(tokens)).chunk(3, -1)
            query, keys, values = (part.unflatten(-1, (attention.heads, -1)).transpose(1, 2) for part in parts)
            before = self.caches[layer]
            if before is not None:
                keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
            self.caches[layer] = keys, values
            attended = (query * attention.scale @ keys.mT).softmax(-1) @ values
            tokens = tokens + attention.output(attended.transpose(1, 2).flatten(2))
            tokens = tokens + block.feed_forward(tokens)
        return network.final_norm(tokens[:, 0])
