"""World models of continuous states as environments use them: dynamics, units, clock and reward behind the protocol.

Everything is deterministic and exactly differentiable, in the actions and in the start. The three families differ only in
how a state depends on earlier actions (Ma et al., ICML 2024; see `AwmConfig`).

Letters: B batch, T context steps, L steps, n observation, m action, k state (n without the clock), H horizon.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from learned_envs.awm.config import AwmConfig
from learned_envs.awm.dynamics import make_dynamics
from learned_envs.awm.normalization import Normalizer
from learned_envs.awm.perceptron import perceptron
from learned_envs.world_model import Prediction, State, WorldModel

__all__ = ["AwmState", "ContinuousWorldModel", "RewardFunction"]

RewardFunction = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class AwmState(State):
    """Where imagined episodes stand.

    Args:
        observation: Newest observation, in its own units, clock last, shape (B, n).
        anchor: The observation at which the window began, shape (B, n); kept where predictions are relative to it.
        memory: What the dynamics remember of the window.
        position: Steps in the window, int64 from 0 to H, shape (B,). With 0 or H the next step begins a window.
    """

    observation: Tensor
    anchor: Tensor
    memory: State
    position: Tensor


class ContinuousWorldModel(WorldModel):
    """A Markov, history- or action-conditioned world model (Ma et al., ICML 2024).

    Observations and rewards are in their own units everywhere; `fit_normalization` sets how they are scaled for the
    networks, `use_bounds` between which bounds they are shown. Actions are taken as they are: give them in [-1, 1], as the
    environments do. If the configuration has a clock, the last number of an observation is the step of the episode.

    Args:
        config: All sizes.
        reward: With ``config.reward == "known"``, the function r(s_t, a_t) from observations, shape (..., n), and actions,
            shape (..., m), to rewards, shape (...). It sees the clock of the step, so a terminal reward fires at the clock
            H - 1. It never becomes part of the weights, and may be given later, with `use_reward`.

    Raises:
        ValueError: If a function is given though the reward is learned.
    """

    lowest: Tensor
    highest: Tensor

    def __init__(self, config: AwmConfig, reward: RewardFunction | None = None) -> None:
        super().__init__()
        self.config = config
        self.dynamics = make_dynamics(config)
        self.observation_normalizer = Normalizer(config.observation_dim)
        # What never changes is predicted in so small a unit that its errors do not add up.
        self.target_normalizer = Normalizer(config.state_dim, constant=1e-4)
        self.reward_network: nn.Module | None = None
        if config.reward == "learned":
            inputs = config.observation_dim + config.action_dim
            self.reward_network = perceptron(inputs, config.reward_hidden, 1, nn.SiLU)
            self.reward_normalizer = Normalizer(1)
        self._reads_anchor = config.family == "awm" and config.prediction == "delta"
        self._known_reward: RewardFunction | None = None
        if reward is not None:
            self.use_reward(reward)
        # No part of the weights: they belong to the environment, as the known reward does.
        self.register_buffer(
            "lowest", torch.full((config.observation_dim,), -torch.inf, dtype=torch.float32), persistent=False
        )
        self.register_buffer(
            "highest", torch.full((config.observation_dim,), torch.inf, dtype=torch.float32), persistent=False
        )
        self.observation_shape = (config.observation_dim,)
        self.observation_dtype = torch.float32
        self.noise_size = 0
        self.ends = False

    def use_reward(self, reward: RewardFunction) -> None:
        """Set the known reward function.

        Args:
            reward: See the class.

        Raises:
            ValueError: If the configuration says that the reward is learned.
        """
        if self.config.reward != "known":
            raise ValueError(
                'A reward function was given, but config.reward is "learned": use "known", or leave it out.'
            )
        self._known_reward = partial(reward)  # a module would otherwise be taken for a part of the model

    def use_bounds(self, bounds: Sequence[tuple[float, float]]) -> None:
        """Set the bounds of what `observe` and `imagine` show; without them there are none.

        A prediction beyond a bound is shown at the bound, and has no gradient there. The model itself, and its rewards, go
        on from what was predicted.

        Args:
            bounds: Lowest and highest value of each number of an observation.

        Raises:
            ValueError: If there are not as many as numbers in an observation.
        """
        if len(bounds) != self.config.observation_dim:
            raise ValueError(f"bounds has {len(bounds)} pairs, expected {self.config.observation_dim}.")
        for buffer, values in zip((self.lowest, self.highest), zip(*bounds, strict=True), strict=True):
            buffer.copy_(torch.tensor(values))

    def fit_normalization(self, observations: Tensor, rewards: Tensor | None = None) -> None:
        """Take the scales of states and rewards from recorded windows, before training.

        Args:
            observations: s_1..s_{L+1}, shape (B, L + 1, n), L >= 1.
            rewards: r_1..r_L, any shape; used if the reward is learned.

        Raises:
            ValueError: If a shape does not fit, a value is not finite, or rewards are missing.
        """
        size = self.config.observation_dim
        if observations.ndim != 3 or observations.shape[1] < 2 or observations.shape[2] != size:
            raise ValueError(
                f"observations has shape {tuple(observations.shape)}, expected (B, L + 1, {size}) with L >= 1 steps."
            )
        if self.config.reward == "learned":
            if rewards is None:
                raise ValueError('rewards is missing, but config.reward is "learned".')
            self.reward_normalizer.fit(rewards.reshape(-1, 1))
        self.observation_normalizer.fit(observations)
        before, after = observations[:, :-1], observations[:, 1:]
        self.target_normalizer.fit(after[..., : self.config.state_dim] - self._base(before, before[:, :1]))

    def forward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """Predict every step of recorded windows, in parallel, given true states.

        This is what training minimises the error of, divided by ``target_normalizer.scale``. It has gradients to
        everything it reads.

        Args:
            observations: s_1..s_L, shape (B, L, n). An action-conditioned model reads only s_1 and also takes (B, 1, n).
            actions: a_1..a_L, shape (B, L, m); L <= H unless Markov.

        Returns:
            Predicted s_2..s_{L+1}, shape (B, L, n), with the clocks that follow those read.

        Raises:
            ValueError: If a shape or dtype does not fit, or the windows are longer than H.
        """
        observations, actions = self._floating("observations", observations), self._floating("actions", actions)
        self._check_windows(observations, actions)
        outputs = self.dynamics(self.observation_normalizer(observations), actions)
        states = self.target_normalizer.inverse(outputs) + self._base(observations, observations[:, :1])
        return self._with_clock(states, self._read_clock(observations, actions.shape[1]) + 1)

    def imagine(self, observation: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Follow a plan from a start, open-loop: the same result as `start` and L times `step`.

        An action-conditioned model does it in one parallel pass a window, with far less memory for gradients than step by
        step. That serves closed-loop policies too: roll out step by step without gradients, then evaluate the policy on the
        states of that rollout, and imagine its actions.

        Args:
            observation: Shape (B, n).
            actions: Shape (B, L, m), L >= 1.

        Returns:
            The observations after each action, shape (B, L, n), within the bounds, and the rewards, shape (B, L).

        Raises:
            ValueError: If a shape or dtype does not fit, the observation is not finite, or the known reward is missing.
        """
        self._check_plan(observation, actions)
        state = self.start(observation.unsqueeze(1))
        actions = self._floating("actions", actions)
        if self.config.family == "awm":
            seen = self._imagine_windows(state.observation, actions)
        else:
            seen = self._imagine_steps(state, actions)
        before = torch.cat([state.observation.unsqueeze(1), seen[:, :-1]], 1)
        return seen.clamp(self.lowest, self.highest), self.reward(before, actions)

    def reward(self, observations: Tensor, actions: Tensor) -> Tensor:
        """The reward r(s_t, a_t) of taking actions, learned or known.

        Args:
            observations: Shape (..., n).
            actions: Shape (..., m).

        Returns:
            Rewards, shape (...).

        Raises:
            ValueError: If the reward is known, but no function was given, or it returns another shape.
        """
        if self.reward_network is not None:
            inputs = torch.cat([self.observation_normalizer(observations), actions], -1)
            return self.reward_normalizer.inverse(self.reward_network(inputs)).squeeze(-1)
        if self._known_reward is None:
            raise ValueError(
                'The reward is "known", but nobody told it: give `reward` to the model, or call use_reward().'
            )
        rewards = self._known_reward(observations, actions)
        if rewards.shape != actions.shape[:-1]:
            raise ValueError(
                f"The reward function returned shape {tuple(rewards.shape)}, expected {tuple(actions.shape[:-1])}."
            )
        return rewards

    def start(self, observations: Tensor, actions: Tensor | None = None, rewards: Tensor | None = None) -> AwmState:
        """See `WorldModel.start`.

        Imagination begins at the last observation. A history-conditioned model remembers the newest H - 1 steps before it;
        the others need no history of a state that they are given. Rewards are not used.

        Args:
            observations: Shape (B, T, n).
            actions: Shape (B, T - 1, m); may be left out if T = 1.
            rewards: Shape (B, T - 1).

        Returns:
            The state, in memory of its own, with gradients to the context.

        Raises:
            ValueError: If a shape or dtype does not fit, or a number is not finite.
        """
        self._check_context(observations, actions, rewards)
        observations = self._floating("observations", observations)
        remembered = 0
        if actions is not None and self.config.family == "hwm":
            actions = self._floating("actions", actions)
            remembered = min(actions.shape[1], self.config.horizon - 1)
        # Copies: what the caller does to the context later must not reach the state.
        first = observations[:, -1 - remembered].clone()
        position = torch.zeros(len(first), dtype=torch.int64, device=first.device)
        state = AwmState(first, first, self.dynamics.empty(len(first), first), position)
        for back in range(remembered, 0, -1):
            assert actions is not None
            state = replace(
                self._advance(state, state.observation, actions[:, -back]), observation=observations[:, -back].clone()
            )
        return state

    def observe(self, state: AwmState) -> Tensor:
        """See `WorldModel.observe`: the newest observation, within the bounds, shape (B, n)."""
        return state.observation.clamp(self.lowest, self.highest)

    def step(self, state: AwmState, action: Tensor, noise: Tensor, decode: bool = True) -> tuple[AwmState, Prediction]:
        """See `WorldModel.step`.

        The derivatives with respect to the action, earlier actions and the start are exact, unless
        ``config.feedback_gradient`` asks for less. Episodes never end by themselves. The graph of a step holds half a
        kilobyte an environment with a Markov model of the released size, two kilobytes with an LSTM; with a transformer also a
        copy of what it attends to, up to 2 * layers * (H + 1) * D numbers.

        Args:
            state: Where the episodes stand; not changed.
            action: Shape (B, m); neither clipped nor scaled.
            noise: Not used; shape (B, 0).
            decode: Not used: the observation is what the model predicts.

        Returns:
            The state after the step, and its reward, shape (B,), with the end probability 0.

        Raises:
            ValueError: If the action's shape or dtype does not fit, or the known reward is missing.
        """
        action = self._floating("action", action)
        expected = (len(state), self.config.action_dim)
        if tuple(action.shape) != expected:
            raise ValueError(f"action has shape {tuple(action.shape)}, expected {expected}.")
        reward = self.reward(state.observation, action)
        return self._advance(state, self._read(state), action), Prediction(reward, torch.zeros_like(reward))

    def _advance(self, state: AwmState, read: Tensor, action: Tensor) -> AwmState:
        """One step of the dynamics, which read the newest observation as ``read``, shape (B, n)."""
        # Past the horizon a window begins again, at the newest observation.
        position = state.position % self.config.horizon + 1
        anchor = state.anchor
        if self._reads_anchor:
            anchor = torch.where((position == 1).unsqueeze(1), read, anchor)
        outputs, memory = self.dynamics.step(self.observation_normalizer(read), action, position, state.memory)
        states = self.target_normalizer.inverse(outputs) + self._base(read, anchor)
        return AwmState(self._with_clock(states, state.observation[:, -1:] + 1), anchor, memory, position)

    def _imagine_windows(self, observation: Tensor, actions: Tensor) -> Tensor:
        windows: list[Tensor] = []
        for plan in actions.split(self.config.horizon, 1):
            windows.append(self(observation.unsqueeze(1), plan))
            observation = self._feed_back(windows[-1][:, -1])
        return torch.cat(windows, 1)

    def _imagine_steps(self, state: AwmState, actions: Tensor) -> Tensor:
        seen: list[Tensor] = []
        for action in actions.unbind(1):
            state = self._advance(state, self._read(state), action)
            seen.append(state.observation)
        return torch.stack(seen, 1)

    def _read(self, state: AwmState) -> Tensor:
        """The newest observation as the dynamics read it; a start, unlike a prediction, has its whole gradient."""
        if self.config.feedback_gradient == 1:
            return state.observation
        return torch.where((state.position > 0).unsqueeze(1), self._feed_back(state.observation), state.observation)

    def _feed_back(self, predicted: Tensor) -> Tensor:
        """A prediction with only a share of its gradient."""
        share = self.config.feedback_gradient
        if share == 1:
            return predicted
        cut = predicted.detach()
        return cut + share * (predicted - cut) if share else cut

    def _base(self, observations: Tensor, anchors: Tensor) -> Tensor | float:
        """What predictions are relative to: nothing, the newest state, or the state at the anchor; shape (..., k)."""
        if self.config.prediction == "absolute":
            return 0.0
        base = anchors if self.config.family == "awm" else observations
        return base[..., : self.config.state_dim]

    def _read_clock(self, observations: Tensor, steps: int) -> Tensor:
        """The clocks at which the actions of windows are taken, shape (B, L or 1, 1)."""
        if self.config.family != "awm":
            return observations[..., -1:]
        count = torch.arange(steps, device=observations.device, dtype=observations.dtype)
        return observations[:, :1, -1:] + count.unsqueeze(-1)

    def _with_clock(self, states: Tensor, clock: Tensor) -> Tensor:
        """States, shape (..., k), to observations, shape (..., n)."""
        return torch.cat([states, clock.expand(*states.shape[:-1], 1)], -1) if self.config.clock else states

    def _floating(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor in the dtype of the model."""
        if not tensor.is_floating_point():
            raise ValueError(f"{name} has dtype {tensor.dtype}, but continuous models take floating-point numbers.")
        return tensor.to(self.observation_normalizer.mean.dtype)

    def _check_windows(self, observations: Tensor, actions: Tensor) -> None:
        config = self.config
        if actions.ndim != 3 or actions.shape[2] != config.action_dim or not actions.shape[1]:
            raise ValueError(
                f"actions has shape {tuple(actions.shape)}, expected (B, L, {config.action_dim}) with L >= 1 steps."
            )
        batch, steps = actions.shape[:2]
        if config.family != "markov" and steps > config.horizon:
            raise ValueError(
                f"actions has {steps} steps, but the horizon is {config.horizon}: split the episode into windows."
            )
        expected = (batch, steps, config.observation_dim)
        only_first = config.family == "awm" and tuple(observations.shape) == (batch, 1, config.observation_dim)
        if tuple(observations.shape) != expected and not only_first:
            raise ValueError(f"observations has shape {tuple(observations.shape)}, expected {expected}.")

    def _check_plan(self, observation: Tensor, actions: Tensor) -> None:
        n, m = self.config.observation_dim, self.config.action_dim
        if observation.ndim != 2 or observation.shape[1] != n:
            raise ValueError(f"observation has shape {tuple(observation.shape)}, expected (B, {n}).")
        batch = len(observation)
        if actions.ndim != 3 or (len(actions), actions.shape[2]) != (batch, m) or not actions.shape[1]:
            raise ValueError(f"actions has shape {tuple(actions.shape)}, expected ({batch}, L, {m}) with L >= 1 steps.")

    def _check_context(self, observations: Tensor, actions: Tensor | None, rewards: Tensor | None) -> None:
        size = self.config.observation_dim
        if observations.ndim != 3 or observations.shape[2] != size or not observations.shape[1]:
            raise ValueError(
                f"observations has shape {tuple(observations.shape)}, expected (B, T, {size}) with T >= 1 context steps."
            )
        batch, steps = observations.shape[0], observations.shape[1] - 1
        if actions is None and steps:
            raise ValueError(f"actions is missing: {steps + 1} context steps need the {steps} actions between them.")
        shapes = {"actions": (batch, steps, self.config.action_dim), "rewards": (batch, steps)}
        for name, given in (("observations", observations), ("actions", actions), ("rewards", rewards)):
            if given is None:
                continue
            if name in shapes and tuple(given.shape) != shapes[name]:
                raise ValueError(
                    f"{name} has shape {tuple(given.shape)}, expected {shapes[name]}: one between two observations each."
                )
            if not bool(self._floating(name, given).isfinite().all()):
                raise ValueError(f"{name} has NaN or infinite values: a rollout cannot go on from there.")
