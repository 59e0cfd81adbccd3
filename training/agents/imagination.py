"""Rollouts in the imagination of a world model.

`PaperImagination` is that of Robine et al. (ICLR 2023, section 2.2): it opens with a single real step, and the transformer's
keys and values are kept, exactly, in a buffer that has room for the whole rollout. Nothing in it waits for the device or
depends on what is drawn, so that a GPU can replay it as one graph. `StepwiseImagination` rolls out any transformer world model
through its own `step`, after as much context as is wanted.

Letters: H imagined steps, N rollouts, C codes of an observation, V latent variables, K classes, T tokens.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from learned_envs.nn.categorical import sample
from learned_envs.policy import LatentPerceptron
from learned_envs.twm.dynamics import Dynamics
from learned_envs.twm.world_model import TransformerWorldModel, TwmState
from training.agents.actor_critic import ActorCriticTraining, Rollout
from training.precision import has_bfloat16, mixed_precision

__all__ = ["Captured", "PaperImagination", "Starts", "StepwiseImagination", "imagine"]


@dataclass(frozen=True)
class Starts:
    """Where rollouts begin: a recorded step, and the observation after it.

    Args:
        previous: Code of the step before, int64, shape (N, V).
        actions: What was done in it, int64, shape (N,).
        rewards: What that brought, as the model is fed it, float32, shape (N,).
        over: Whether an episode ended with it, bool, shape (N,).
        classes: Code of the observation after it, int64, shape (N, V).
    """

    previous: Tensor
    actions: Tensor
    rewards: Tensor
    over: Tensor
    classes: Tensor

    def take(self, index: Tensor) -> "Starts":
        """Those with the given indices: int64, shape (n,)."""
        return Starts(*(getattr(self, field.name)[index] for field in fields(self)))


def imagine(
    dynamics: Dynamics,
    actor: LatentPerceptron,
    starts: Starts,
    pool: Tensor,
    noise: Tensor,
    restart_below: float,
    features: bool = False,
    window: Tensor | None = None,
) -> Rollout:
    """Roll out a policy in separate tokens, from one recorded step each.

    A pure function of its arguments: all that is drawn is decided by ``noise``.

    Args:
        dynamics: In evaluation mode.
        actor: The policy.
        starts: Where the N rollouts begin.
        pool: Codes from which rollouts go on where an episode ends, int64, shape (N, V).
        noise: Uniform in [0, 1), shape (H, N, V + 1); the last number decides the action.
        restart_below: Product of discounts below which an episode has ended; 0 for never.
        features: Whether the policy sees the transformer's features.
        window: What ``dynamics.window`` says of the rollout's tokens, for those who know it already.
    """
    horizon, count = noise.shape[:2]
    num_classes = dynamics.config.observation.latent.classes
    total = 2 + 3 * horizon
    layers, width = dynamics.config.transformer.layers, dynamics.config.transformer.width
    dtype = dynamics.reward_embedding.weight.dtype
    keys, values = (torch.empty(count, layers, total, width, dtype=dtype, device=noise.device) for _ in range(2))
    window = dynamics.window(total) if window is None else window
    # Episodes are told apart by counting up. The opening step belongs to one before if it ended there.
    episodes = torch.zeros(count, total, dtype=torch.int64, device=noise.device)
    episodes[:, :3] = -starts.over.long().unsqueeze(1)

    def predict(classes: Tensor, actions: Tensor, rewards: Tensor, end: int, new: int):
        """Process the tokens up to number ``end``, of which the last ``new`` are new."""
        one_hot = functional.one_hot(classes, num_classes).flatten(1).to(dtype)
        own, first = episodes[:, end - new : end], end - new
        mask = window[first:end, :end] & (own.unsqueeze(2) == episodes[:, :end].unsqueeze(1))
        past = (keys[:, :, :first], values[:, :, :first]) if first else None
        forecast, (key, value) = dynamics.extend(one_hot, actions, rewards.to(dtype), mask, past)
        keys[:, :, first:end], values[:, :, first:end] = key.to(dtype), value.to(dtype)
        return forecast

    opening = predict(starts.previous, starts.actions, starts.rewards, 2, 2)
    seen = None if not features else _masked(opening.features, starts.over)
    classes, fed, weight = starts.classes, starts.rewards, torch.ones(count, device=noise.device)
    steps: dict[str, list[Tensor]] = {field.name: [] for field in fields(Rollout)}
    for index, draws in enumerate(noise):
        actions = sample(actor(classes.unsqueeze(1), seen).float().softmax(-1).unsqueeze(1), draws[:, -1:]).squeeze(1)
        _append(steps, classes=classes, features=seen, actions=actions, weights=weight)
        end = 5 + 3 * index
        forecast = predict(classes, actions, fed, end, 3)
        reward, discount = forecast.reward[:, 0, 0].float(), forecast.discount[:, 0].float().sigmoid()
        weight = weight * discount
        over = weight < restart_below
        imagined = sample(forecast.latent[:, 0].float().softmax(-1), draws[:, :-1])
        classes = torch.where(over.unsqueeze(1), pool.roll(index, 0), imagined)
        seen = None if not features else _masked(forecast.features, over)
        weight = torch.where(over, 1.0, weight)
        fed = reward
        # The reward token that comes next still belongs to this step; what follows it may to another episode.
        episodes[:, end : end + 1] = episodes[:, end - 1 : end]
        episodes[:, end + 1 : end + 3] = (episodes[:, end - 1] + over).unsqueeze(1)
        _append(steps, rewards=reward, discounts=discount, over=over)
    _append(steps, classes=classes, features=seen)
    stacked = {name: torch.stack(values) if values else None for name, values in steps.items()}
    assert stacked["classes"] is not None
    return Rollout(**{**stacked, "classes": stacked["classes"].unsqueeze(2)})  # type: ignore[arg-type]


def _append(steps: dict[str, list[Tensor]], **values: Tensor | None) -> None:
    for name, value in values.items():
        if value is not None:
            steps[name].append(value)


def _masked(features: Tensor | None, hidden: Tensor) -> Tensor:
    """Features without those of episodes that are over."""
    assert features is not None
    return features[:, 0].float().masked_fill(hidden.unsqueeze(1), 0.0)


class Captured:
    """A function of tensors whose kernels are recorded once, on a CUDA device, and then launched together.

    On other devices it is just called. The arguments must keep their shapes; what the function reads beside them, such as
    weights, must stay where it is in memory. A result is overwritten by the next call.

    Args:
        function: Takes tensors, returns a `Rollout`; must not wait for the device nor draw random numbers.
        enabled: Whether to capture at all.
    """

    def __init__(self, function: Callable[..., Rollout], enabled: bool = True) -> None:
        self.function, self.enabled = function, enabled
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._output: Rollout | None = None

    def __call__(self, *inputs: Tensor) -> Rollout:
        """Call the function, or launch what was recorded of it."""
        if not (self.enabled and inputs[0].is_cuda):
            return self.function(*inputs)
        with torch.cuda.device(inputs[0].device):  # streams and graphs belong to the current one
            if self._graph is None:
                self._capture(inputs)
            for mine, given in zip(self._inputs, inputs, strict=True):
                mine.copy_(given)
            assert self._graph is not None and self._output is not None
            self._graph.replay()
        return self._output

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        self._inputs = tuple(tensor.clone() for tensor in inputs)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries set themselves up in their first calls
            for _ in range(2):
                self.function(*self._inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._output = self.function(*self._inputs)
        self._graph = graph


class PaperImagination:
    """Rolls out the policy as the paper does.

    It works on copies of the networks in the precision of the rollout, which are refreshed for each: casting weights once is
    cheaper than casting them at every step, and a captured graph finds them where it left them.

    Args:
        model: The world model, with separate tokens.
        actor: The policy.
        config: Sizes of a rollout.
        bfloat16: Whether to imagine in bfloat16 where the device has it.
    """

    def __init__(
        self, model: TransformerWorldModel, actor: LatentPerceptron, config: ActorCriticTraining, bfloat16: bool = True
    ) -> None:
        if model.config.tokens != "separate":
            raise ValueError('The paper\'s rollout needs a model with tokens = "separate".')
        device = next(model.parameters()).device
        dtype = torch.bfloat16 if bfloat16 and has_bfloat16(device) else torch.float32
        self.model, self.actor, self.config = model, actor, config
        self.copies = [copy.deepcopy(part).to(dtype).eval().requires_grad_(False) for part in (model.dynamics, actor)]
        self.window = model.dynamics.window(2 + 3 * config.horizon)
        self._captured = Captured(self._roll, config.graph)

    @torch.no_grad()
    def __call__(self, starts: Starts, pool: Tensor) -> Rollout:
        """Imagine from N starts.

        Args:
            starts: Where to begin.
            pool: Codes from which rollouts go on where an episode ends, int64, shape (N, V).
        """
        self.refresh()
        shape = (self.config.horizon, *starts.classes.shape)
        noise = torch.rand(*shape[:2], shape[2] + 1, device=pool.device)
        return self._captured(*(getattr(starts, field.name) for field in fields(Starts)), pool, noise)

    def _roll(self, *inputs: Tensor) -> Rollout:
        *starts, pool, noise = inputs
        dynamics, actor = self.copies
        assert isinstance(dynamics, Dynamics) and isinstance(actor, LatentPerceptron)
        config = self.config
        return imagine(
            dynamics, actor, Starts(*starts), pool, noise, config.restart_below, config.on_features, self.window
        )

    def refresh(self) -> None:
        """Copy the weights as they are now."""
        for mine, original in zip(self.copies, (self.model.dynamics, self.actor), strict=True):
            for weight, given in zip(mine.parameters(), original.parameters(), strict=True):
                weight.copy_(given)


class StepwiseImagination:
    """Rolls out the policy through a world model's own `step`, after several recorded steps.

    Args:
        model: The world model.
        actor: The policy.
        config: Sizes of a rollout.
        bfloat16: Whether to imagine in bfloat16 where the device has it.
    """

    def __init__(
        self, model: TransformerWorldModel, actor: LatentPerceptron, config: ActorCriticTraining, bfloat16: bool = True
    ) -> None:
        self.model, self.actor, self.config, self.bfloat16 = model, actor, config, bfloat16

    @torch.no_grad()
    def __call__(self, begin: TwmState, classes: Tensor) -> Rollout:
        """Imagine from N states.

        Where an episode ends, its rollout goes on from where another one began.

        Args:
            begin: Where to begin.
            classes: The newest codes there, oldest first, int64, shape (N, C, V).
        """
        self.model.eval()
        config, device = self.config, classes.device
        state, seen, weight = begin, classes, torch.ones(len(classes), device=device)
        steps: dict[str, list[Tensor]] = {field.name: [] for field in fields(Rollout)}
        for index in range(config.horizon):
            noise = torch.rand(len(classes), self.model.noise_size + 1, device=device)
            with mixed_precision(device, self.bfloat16):
                logits = self.actor(seen).float()
                actions = sample(logits.softmax(-1).unsqueeze(1), noise[:, -1:]).squeeze(1)
                state, prediction = self.model.step(state, actions, noise[:, :-1], decode=False)
            _append(steps, classes=seen, actions=actions, weights=weight)
            reward = state.reward  # squashed, as recorded ones are
            discount = config.discount * (1 - prediction.end_probability)
            weight = weight * discount
            over = weight < config.restart_below
            seen = torch.cat([seen[:, 1:], state.latent.argmax(-1).unsqueeze(1)], 1)
            other = torch.arange(len(classes), device=device).roll(index + 1)
            seen = torch.where(over.view(-1, 1, 1), classes[other], seen)
            state = begin.take(other).where(over, state) if bool(over.any()) else state
            weight = torch.where(over, 1.0, weight)
            _append(steps, rewards=reward, discounts=discount, over=over)
        _append(steps, classes=seen)
        return Rollout(**{name: torch.stack(values) if values else None for name, values in steps.items()})  # type: ignore[arg-type]
