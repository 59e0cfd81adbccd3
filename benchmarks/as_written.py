"""The paper's algorithm the way its authors wrote it down, to be compared with: the same numbers, with more work.

The transformer remembers hidden states, so every imagined step projects all remembered tokens to queries, keys and values
again, in each layer; distances are projected anew; masks are built anew; the program looks at each step whether an episode
ended; starts are drawn on the CPU from a softmax over all visits. Everything is in float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from learned_envs.nn.attention import RelativeAttention
from learned_envs.nn.categorical import sample
from learned_envs.nn.dropout import Dropout
from learned_envs.policy import LatentPerceptron
from learned_envs.twm.dynamics import Dynamics
from training.agents.actor_critic import ActorCritic, ActorCriticTraining, Rollout
from training.agents.imagination import Starts
from training.agents.replay import AgentReplay
from training.twm.joint import JointTraining, JointUpdate

__all__ = ["AsWritten", "draw_starts", "framework_dropout", "imagine_as_written"]


def imagine_as_written(
    dynamics: Dynamics,
    actor: LatentPerceptron,
    starts: Starts,
    recorded: Callable[[], Tensor],
    noise: Tensor,
    restart_below: float,
) -> Rollout:
    """Roll out a policy; see `training.agents.imagination.imagine`, which gives the same numbers.

    Args:
        dynamics: In evaluation mode.
        actor: The policy.
        starts: Where the N rollouts begin.
        recorded: Gives codes of recorded observations from which rollouts go on where an episode ended, shape (N, V).
        noise: Uniform in [0, 1), shape (H, N, V + 1).
        restart_below: Product of discounts below which an episode has ended.
    """
    num_classes = dynamics.config.observation.latent.classes
    dtype = dynamics.reward_embedding.weight.dtype
    memory: list[Tensor] = []
    episodes = -starts.over.long().unsqueeze(1).expand(-1, 2)

    def predict(classes: Tensor, actions: Tensor, rewards: Tensor, first: bool):
        nonlocal memory
        one_hot = functional.one_hot(classes, num_classes).flatten(1).to(dtype)
        latent = dynamics.activation(dynamics.latent_embedding(one_hot))
        action = dynamics.action_embedding(actions)
        reward = dynamics.activation(dynamics.reward_embedding(rewards.unsqueeze(1).to(dtype)))
        tokens = torch.stack([latent, action] if first else [reward, latent, action], 1)
        features, memory = _transform(dynamics, tokens, memory, episodes)
        return features[:, -1]

    feature = predict(starts.previous, starts.actions, starts.rewards, True)
    classes, fed, weight = starts.classes, starts.rewards, torch.ones_like(starts.rewards)
    over, pushed = starts.over, starts.over.long()
    steps: list[tuple[Tensor, ...]] = []
    for draws in noise:
        logits = actor(classes.unsqueeze(1)).float()
        actions = sample(logits.softmax(-1).unsqueeze(1), draws[:, -1:]).squeeze(1)
        before = episodes[:, -1:]
        episodes = torch.cat([episodes, before, (before + pushed.unsqueeze(1)).expand(-1, 2)], 1)
        feature = predict(classes, actions, fed, False)
        seen, was = classes, weight
        reward = dynamics.reward_head(feature).squeeze(1).float()
        discount = dynamics.discount_head(feature).squeeze(1).float().sigmoid()
        latent = dynamics.latent_head(feature).float().unflatten(-1, (-1, num_classes))
        classes = sample(latent.softmax(-1), draws[:, :-1])
        weight = was * discount
        over = weight < restart_below
        if bool(over.any()):
            classes = torch.where(over.unsqueeze(1), recorded(), classes)
            weight = weight.masked_fill(over, 1.0)
        pushed, fed = over.long(), reward
        steps.append((seen, actions, reward, discount, over, was))
    seen, actions, rewards, discounts, over, weights = (torch.stack(part) for part in zip(*steps, strict=True))
    return Rollout(torch.cat([seen, classes.unsqueeze(0)]).unsqueeze(2), actions, rewards, discounts, over, weights)


def _transform(
    dynamics: Dynamics, tokens: Tensor, memory: list[Tensor], episodes: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """Process new tokens, with the hidden states of those before: features and all hidden states."""
    new = tokens.shape[1]
    total = new + (memory[0].shape[1] if memory else 0)
    episodes = episodes[:, -total:]
    mask = dynamics.window(total)[-new:] & (episodes[:, -new:].unsqueeze(2) == episodes.unsqueeze(1))
    transformer = dynamics.transformer
    encodings = transformer.encodings[:total].flip(0)
    biases = transformer.content_bias, transformer.position_bias
    hidden = []
    for index, block in enumerate(transformer.blocks):
        everything = torch.cat([memory[index], tokens], 1) if memory else tokens
        hidden.append(everything[:, -dynamics.memory_size :])
        attended = _attend(block.attention, everything, new, encodings, biases, mask)  # type: ignore[arg-type]
        tokens = block.attention_norm(tokens + attended)  # type: ignore[operator]
        tokens = block.feed_forward_norm(tokens + block.feed_forward(tokens))  # type: ignore[operator]
    return tokens, hidden


def _attend(
    attention: RelativeAttention,
    everything: Tensor,
    new: int,
    encodings: Tensor,
    biases: tuple[Tensor, Tensor],
    mask: Tensor,
) -> Tensor:
    heads = attention.heads
    query, key, value = (part.unflatten(-1, (heads, -1)) for part in attention.query_key_value(everything).chunk(3, -1))
    query, place = query[:, -new:], attention.position(encodings).unflatten(-1, (heads, -1))
    content = torch.einsum("bihd,bjhd->bhij", query + biases[0], key)
    position = _shift(torch.einsum("bihd,jhd->bhij", query + biases[1], place))
    scores = ((content + position) * attention.scale).masked_fill(~mask.unsqueeze(1), float("-inf"))
    return attention.output(torch.einsum("bhij,bjhd->bihd", scores.softmax(-1), value).flatten(2))


def _shift(scores: Tensor) -> Tensor:
    """The relative shift of Transformer-XL (Dai et al., 2019, appendix B)."""
    batch, heads, new, total = scores.shape
    padded = torch.cat([scores.new_zeros(batch, heads, new, 1), scores], -1)
    return padded.view(batch, heads, total + 1, new)[:, :, 1:].reshape(batch, heads, new, total)


def draw_starts(visits: Tensor, count: int, temperature: float = 20.0) -> Tensor:
    """Balanced starts, drawn on the CPU: visits, shape (size,), to int64, shape (count,)."""
    return torch.multinomial((-visits / temperature).softmax(0), count, replacement=False)


def framework_dropout(module: nn.Module) -> None:
    """Let torch drop features instead of `learned_envs.nn.dropout`."""
    for part in module.modules():
        for name, child in part.named_children():
            if isinstance(child, Dropout):
                setattr(part, name, nn.Dropout(child.threshold / 128))


class AsWritten:
    """One train step as written: world model, imagination, critic and actor.

    Args:
        learner: The world model in training, in float32 and without anything that makes it fast.
        agent: Actor and critic, alike.
        replay: Recorded steps.
    """

    def __init__(self, learner: JointUpdate, agent: ActorCritic, replay: AgentReplay) -> None:
        self.learner, self.agent, self.replay = learner, agent, replay
        framework_dropout(learner.model)
        for optimizer in (
            learner.observation_optimizer,
            learner.dynamics_optimizer,
            agent.actor_optimizer,
            agent.critic_optimizer,
        ):
            for group in optimizer.param_groups:
                group["foreach"] = False
        self.visits = torch.zeros(len(replay) - 15)

    @staticmethod
    def training() -> tuple[JointTraining, ActorCriticTraining]:
        """Settings of learner and agent."""
        return JointTraining(bfloat16=False, channels_last=False, fused=False), ActorCriticTraining(
            gather=False, graph=False
        )

    def __call__(self, step: int) -> None:
        """Take one train step."""
        config, device = self.agent.config, self.replay.device
        chosen = draw_starts(self.visits, self.learner.config.batch)
        self.visits[chosen] += 1
        sequences = self.replay.sequences(chosen.to(device))
        _, latents = self.learner(sequences)
        classes, first = latents.argmax(-1), (slice(None), slice(-1))
        starts = Starts(
            classes[first].flatten(0, 1),
            sequences.actions[first].flatten(),
            sequences.rewards[first].tanh().flatten(),
            sequences.done[first].flatten(),
            classes[:, 1:].flatten(0, 1),
        ).take(torch.randperm(classes[:, 1:, 0].numel(), device=device)[: config.starts])
        noise = torch.rand(config.horizon, *starts.classes.shape, device=device)
        noise = torch.cat([noise, torch.rand(*noise.shape[:2], 1, device=device)], -1)
        dynamics = self.learner.model.dynamics.eval()
        with torch.no_grad():
            rollout = imagine_as_written(
                dynamics,
                self.agent.actor,
                starts,
                lambda: self._recorded(len(starts.actions)),
                noise,
                config.restart_below,
            )
        self.agent.update(rollout)

    def _recorded(self, count: int) -> Tensor:
        device = self.replay.device
        observations = self.replay.observations(torch.randint(len(self.replay), (count,), device=device))
        probabilities = self.learner.encode(observations.float() / 255).softmax(-1)
        return sample(probabilities, torch.rand(probabilities.shape[:-1], device=device))
