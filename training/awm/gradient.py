"""The policy gradient through a world model, learned or true (sections 1.1 and 2.3).

The policy reads states without a gradient: d a_t / d s_t is dropped. What remains is the gradient of the open-loop plan that
the policy would choose. So it is computed in that order, for every model alike: let the policy play, without gradients; ask
it again for its actions on the states that it met; follow these actions through the model. An action-conditioned model
does the last in one parallel pass. The models differ only in d s_t / d a_k.

Letters: B batch, L steps, n observation, m action, z noise of the model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from learned_envs.awm.world_model import ContinuousWorldModel
from learned_envs.world_model import WorldModel
from training.awm.policy import Policy

__all__ = ["Imagined", "follow", "imagine", "play"]


@dataclass(frozen=True)
class Imagined:
    """What a policy does in a model, and what comes of it.

    Args:
        observations: s_1..s_{L+1}, shape (B, L + 1, n).
        actions: a_1..a_L, shape (B, L, m).
        rewards: r_1..r_L, shape (B, L).
        entropies: Entropy of the policy at each step, shape (B, L).
    """

    observations: Tensor
    actions: Tensor
    rewards: Tensor
    entropies: Tensor


@torch.no_grad()
def play(model: WorldModel, starts: Tensor, policy: Policy, actor_noise: Tensor | None, noise: Tensor) -> Tensor:
    """Let a policy play in a model, without gradients.

    Args:
        model: Where to play.
        starts: First observations, shape (B, n).
        policy: Who plays.
        actor_noise: Standard normal, shape (B, L, m); None, the policy acts deterministically.
        noise: Uniform in [0, 1), shape (B, L, z).

    Returns:
        Observations s_1..s_{L+1}, shape (B, L + 1, n).
    """
    state = model.start(starts.unsqueeze(1))
    seen = [starts]
    for t in range(noise.shape[1]):
        action = policy.act(seen[-1], None if actor_noise is None else actor_noise[:, t])
        state, _ = model.step(state, action, noise[:, t])
        seen.append(model.observe(state))
    return torch.stack(seen, 1)


def follow(model: WorldModel, starts: Tensor, actions: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Follow a plan through a model, with gradients.

    Args:
        model: What to follow it through.
        starts: First observations, shape (B, n).
        actions: Shape (B, L, m).
        noise: Uniform in [0, 1), shape (B, L, z).

    Returns:
        Observations after each action, shape (B, L, n), and rewards, shape (B, L).
    """
    if isinstance(model, ContinuousWorldModel):
        return model.imagine(starts, actions)
    state = model.start(starts.unsqueeze(1))
    seen, rewards = [], []
    for action, draw in zip(actions.unbind(1), noise.unbind(1), strict=True):
        state, prediction = model.step(state, action, draw)
        seen.append(model.observe(state))
        rewards.append(prediction.reward)
    return torch.stack(seen, 1), torch.stack(rewards, 1)


def imagine(model: WorldModel, starts: Tensor, policy: Policy, steps: int) -> Imagined:
    """Play, and keep the gradient of what follows from the actions; randomness comes from the global generator.

    Args:
        model: A world model; its weights get no gradient if they ask for none.
        starts: First observations, shape (B, n).
        policy: Who plays.
        steps: How long, L; at least 1.
    """
    actor_noise = torch.randn(len(starts), steps, policy.action_dim, dtype=starts.dtype)
    noise = torch.rand(len(starts), steps, model.noise_size, dtype=starts.dtype)
    met = play(model, starts, policy, actor_noise, noise)[:, :-1]
    actions = policy.act(met, actor_noise)
    seen, rewards = follow(model, starts, actions, noise)
    return Imagined(torch.cat([starts.unsqueeze(1), seen], 1), actions, rewards, policy.entropy(met, actor_noise))
