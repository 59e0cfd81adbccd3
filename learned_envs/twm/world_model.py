"""The transformer world model as environments use it: observation model and dynamics behind the common protocol.

Letters: B batch, T context steps, F frames in an observation, V latent variables, K classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from learned_envs.nn.categorical import mix_uniform, most_likely, sample, straight_through
from learned_envs.twm.config import TwmConfig
from learned_envs.twm.dynamics import Dynamics, Memory
from learned_envs.twm.observation_model import make_observation_model
from learned_envs.world_model import Prediction, State, WorldModel

__all__ = ["TransformerWorldModel", "TwmState"]


@dataclass(frozen=True)
class TwmState(State):
    """Where imagined episodes stand.

    Args:
        memory: What the transformer remembers.
        latent: Newest latent, one-hot, float32, shape (B, V, K).
        reward: Newest reward as the model is fed it, float32, shape (B,).
        frames: The newest F frames, oldest first, uint8, shape (B, F, 64, 64).
    """

    memory: Memory
    latent: Tensor
    reward: Tensor
    frames: Tensor


class TransformerWorldModel(WorldModel):
    """A transformer world model for pixels (Robine et al., ICLR 2023).

    Args:
        config: All sizes.
    """

    reward_values: Tensor

    def __init__(self, config: TwmConfig) -> None:
        super().__init__()
        self.config = config
        self.observation_model = make_observation_model(config.observation)
        self.dynamics = Dynamics(config)
        self.observation_shape = (config.observation.stack, 64, 64)
        self.observation_dtype = torch.uint8
        self.noise_size = config.observation.latent.variables + 1  # one number a variable, one for the reward
        self.register_buffer("reward_values", torch.tensor(config.reward_values, dtype=torch.float32), persistent=False)

    def encode(self, frames: Tensor) -> Tensor:
        """Latents of observations, the most likely class of each variable.

        Args:
            frames: uint8, shape (N, frames_per_code, 64, 64).

        Returns:
            One-hot latents, float32, shape (N, V, K).
        """
        probabilities = mix_uniform(self.observation_model.encode(frames.float() / 255), 0.0)
        return torch.nn.functional.one_hot(most_likely(probabilities), probabilities.shape[-1]).float()

    @torch.no_grad()
    def start(self, observations: Tensor, actions: Tensor | None = None, rewards: Tensor | None = None) -> TwmState:
        """See `WorldModel.start`. Contexts carry no gradients: pixels are integers. They may be of any length.

        Args:
            observations: uint8, shape (B, T, F, 64, 64).
            actions: Indices, int64, shape (B, T - 1); may be left out if T = 1.
            rewards: Shape (B, T - 1).

        Raises:
            ValueError: If a shape or dtype does not fit, or, on the CPU, an action is not from 0 to num_actions - 1.
        """
        self._check_context(observations, actions, rewards)
        reach = self.config.transformer.layers * self.config.context  # what is older cannot matter, but would cost
        observations = observations[:, -reach - 1 :]
        actions, rewards = (None if given is None else given[:, -reach:] for given in (actions, rewards))
        batch, steps = observations.shape[:2]
        device = observations.device
        if actions is None:
            actions = torch.zeros(batch, 0, dtype=torch.int64, device=device)
        rewards = torch.zeros(batch, steps - 1, device=device) if rewards is None else rewards
        rewards = self.feed(rewards.float())
        before = torch.cat([rewards.new_zeros(batch, 1), rewards], 1)  # reward on the way to each observation
        if self.config.observation.frames_per_code == 1:
            codes, actions, before = self._unstack(observations, actions, before)
        else:
            codes = self.encode(observations.flatten(0, 1)).unflatten(0, (batch, steps))
        past = codes[:, :-1].flatten(2)
        valid = torch.ones(past.shape[:2], dtype=torch.bool, device=device)
        memory = self.dynamics.remember(past, actions, before[:, :-1], valid)
        # Clones: views would keep the whole context in memory.
        return TwmState(memory, *(tensor[:, -1].clone() for tensor in (codes, before, observations)))

    def _unstack(self, observations: Tensor, actions: Tensor, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Turn the older frames of the first stack into steps whose actions nobody recorded."""
        batch, older = len(observations), observations.shape[2] - 1
        frames = torch.cat([observations[:, 0, :-1], observations[:, :, -1]], 1)
        codes = self.encode(frames.flatten(0, 1).unsqueeze(1)).unflatten(0, (batch, -1))
        unknown = actions.new_full((batch, older), self.dynamics.unknown_action)
        return codes, torch.cat([unknown, actions], 1), torch.cat([before.new_zeros(batch, older), before], 1)

    def observe(self, state: TwmState) -> Tensor:
        """See `WorldModel.observe`: the newest F frames, uint8, shape (B, F, 64, 64).

        They are the state's own, so that nothing is copied: clone them before writing into them.
        """
        return state.frames

    def step(self, state: TwmState, action: Tensor, noise: Tensor, decode: bool = True) -> tuple[TwmState, Prediction]:
        """See `WorldModel.step`.

        Actions are indices, int64, shape (B,), or probabilities, float32, shape (B, num_actions). Given probabilities,
        the reward and the end probability carry gradients through straight-through latents; observations, being
        integers, do not (`decode` gives differentiable frames).

        Raises:
            ValueError: If indices are not int64 or, on the CPU, not from 0 to num_actions - 1.
        """
        if not action.is_floating_point():
            self._check_indices("action", action)
        forecast, memory = self.dynamics.step(state.latent.flatten(1), action, state.reward, state.memory)
        latent = self._draw_latent(forecast.latent[:, 0].float(), noise[:, :-1])
        reward = self._draw_reward(forecast.reward[:, 0].float(), noise[:, -1])
        discount = forecast.discount[:, 0].float().sigmoid()
        end = (1 - discount / self.config.discount).clamp(0, 1)
        frames = self._push_frames(state.frames, latent) if decode else state.frames
        # The mean of a Normal was fitted to rewards as they are fed: it is squashed already.
        fed = self.feed(reward) if self.config.reward_values else reward
        state = TwmState(memory, latent, fed, frames)
        return state, Prediction(reward, end)

    def decode(self, latent: Tensor) -> Tensor:
        """Frames that a latent describes, differentiable.

        Args:
            latent: One-hot or probabilities, shape (B, V, K).

        Returns:
            float32 in [0, 1], shape (B, frames_per_code, 64, 64).
        """
        return self.observation_model.decode(latent).float().clamp(0, 1)

    def feed(self, reward: Tensor) -> Tensor:
        """Squash rewards to [-1, 1], as the transformer is told them."""
        return reward.tanh()

    def _draw_latent(self, logits: Tensor, noise: Tensor) -> Tensor:
        temperature = self.config.temperature
        probabilities = (logits / (temperature or 1.0)).softmax(-1)
        classes = most_likely(probabilities) if temperature == 0 else sample(probabilities, noise)
        return straight_through(probabilities, classes)

    def _draw_reward(self, output: Tensor, noise: Tensor) -> Tensor:
        if not self.config.reward_values:
            return output.squeeze(-1)
        probabilities = output.softmax(-1).unsqueeze(1)  # one variable
        classes = (
            most_likely(probabilities) if self.config.temperature == 0 else sample(probabilities, noise.unsqueeze(1))
        )
        expected = (probabilities @ self.reward_values).squeeze(1)
        # In brackets: what is added must be exactly zero, or rewards would not be exactly -1, 0 and 1.
        return self.reward_values[classes.squeeze(1)] + (expected - expected.detach())

    @torch.no_grad()
    def _push_frames(self, frames: Tensor, latent: Tensor) -> Tensor:
        new = (self.decode(latent) * 255).round().to(torch.uint8)
        return torch.cat([frames[:, new.shape[1] :], new], 1)

    def _check_context(self, observations: Tensor, actions: Tensor | None, rewards: Tensor | None) -> None:
        if observations.ndim != 5 or observations.shape[2:] != self.observation_shape or observations.shape[1] < 1:
            sizes = ", ".join(map(str, self.observation_shape))
            raise ValueError(
                f"observations has shape {tuple(observations.shape)}, expected (B, T, {sizes}) with T >= 1 context steps."
            )
        if observations.dtype != torch.uint8:
            raise ValueError(
                f"observations has dtype {observations.dtype}, expected torch.uint8: grey levels from 0 to 255."
            )
        between = (observations.shape[0], observations.shape[1] - 1)
        for name, given in (("actions", actions), ("rewards", rewards)):
            if given is not None and tuple(given.shape) != between:
                raise ValueError(
                    f"{name} has shape {tuple(given.shape)}, expected {between}: one between two observations each."
                )
        if actions is None and between[1]:
            raise ValueError(
                f"actions is missing: {between[1] + 1} context steps need the {between[1]} actions between them."
            )
        if actions is not None:
            self._check_indices("actions", actions)

    def _check_indices(self, name: str, actions: Tensor) -> None:
        """Refuse actions that there are none of; one beyond them stands for "unknown" inside the dynamics."""
        if actions.dtype != torch.int64:
            raise ValueError(f"{name} has dtype {actions.dtype}, expected torch.int64: indices of actions.")
        if actions.device.type != "cpu" or torch.compiler.is_compiling():  # looking would wait for the device
            return
        # In NumPy, whose calls cost a fraction of torch's where there is so little to do.
        values = actions.numpy()
        inside = (values >= 0) & (values < self.config.num_actions)
        if not inside.all():
            raise ValueError(
                f"{name} contains {values[~inside][0]}, expected integers from 0 to {self.config.num_actions - 1}."
            )
