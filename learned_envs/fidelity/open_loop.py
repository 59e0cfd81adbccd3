"""How long an imagined Pong stays with the real one when both are fed the same actions.

The model sees real steps of context, and from then on only the real actions. Positions are read from both pictures by the
same detector, so the figures are in pixels of the 64x64 frame, not in the model's own terms.

Letters: N rollouts, C context observations, H imagined steps.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learned_envs.fidelity.pong import PongScene, detect
from learned_envs.nn.noise import uniform
from learned_envs.world_model import WorldModel

__all__ = ["Recording", "ball_agrees", "imagine", "pong_open_loop"]

_TOLERANCE = 2.0  # pixels
_REWARD_WINDOW = 2  # steps


@dataclass(frozen=True)
class Recording:
    """Real rollouts to compare with.

    Args:
        frames: Single frames, the stack before the first observation included, uint8, shape (N, F - 1 + C + H, 64, 64).
        actions: Index of the action between two observations, int64, shape (N, C + H - 1).
        rewards: Raw rewards, float32, shape (N, C + H - 1).
        context: Observations given to the model, C.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    context: int = 16

    @property
    def horizon(self) -> int:
        """Imagined steps, H."""
        return self.actions.shape[1] - self.context + 1


@torch.no_grad()
def imagine(model: WorldModel, recording: Recording, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Continue recorded contexts with the recorded actions.

    Args:
        model: The model.
        recording: Where to start and what to do.
        seed: Seed of the noise.

    Returns:
        Newest frame of each imagined observation, uint8, shape (N, H, 64, 64), and rewards, float32, shape (N, H).
    """
    stack, context = model.observation_shape[0], recording.context
    device = next(model.parameters(), torch.empty(0)).device
    frames = torch.from_numpy(recording.frames[:, : stack - 1 + context]).to(device)
    observations = frames.unfold(1, stack, 1).permute(0, 1, 4, 2, 3)
    actions, rewards = torch.from_numpy(recording.actions).to(device), torch.from_numpy(recording.rewards).to(device)
    state = model.start(observations, actions[:, : context - 1], rewards[:, : context - 1])
    keys = torch.arange(len(actions), device=device) + seed * len(actions)
    pictures: list[Tensor] = []
    gains: list[Tensor] = []
    for step in range(recording.horizon):
        noise = uniform(keys, torch.full_like(keys, step), model.noise_size)
        state, prediction = model.step(state, actions[:, context - 1 + step], noise)
        pictures.append(model.observe(state)[:, -1])
        gains.append(prediction.reward)
    return torch.stack(pictures, 1).cpu().numpy(), torch.stack(gains, 1).cpu().numpy()


def pong_open_loop(model: WorldModel, recording: Recording, seed: int = 0) -> dict[str, Any]:
    """Measure how long imagined rallies stay with the real ones.

    Args:
        model: The model.
        recording: Real rollouts it has never seen.
        seed: Seed of the noise.

    Returns:
        ``ball``: share of rollouts whose ball lies within 2 pixels of the real one, or is absent in both, by step;
        ``own_paddle``: the same for the agent's paddle; ``reward_precision`` and ``reward_recall``: of reward events
        within 2 steps; ``rollouts`` and ``reward_events``: how many were counted.
    """
    pictures, gains = imagine(model, recording, seed)
    gains = np.rint(gains)  # whole points, also where a model predicts a mean
    real = recording.frames[:, -recording.horizon :]
    shape = pictures.shape[:2]
    seen, dreamt = detect(real.reshape(-1, 64, 64)), detect(pictures.reshape(-1, 64, 64))
    ball = ball_agrees(seen, dreamt).reshape(shape).mean(0)
    paddle = _close(seen.own_paddle - dreamt.own_paddle, seen.own_paddle, dreamt.own_paddle).reshape(shape).mean(0)
    rewards = recording.rewards[:, -recording.horizon :]
    steps = [step for step in (1, 2, 5, 10, 15, 30, 50) if step <= recording.horizon]
    return {
        "rollouts": len(pictures),
        "ball": {str(step): float(ball[step - 1]) for step in steps},
        "own_paddle": {str(step): float(paddle[step - 1]) for step in steps},
        "reward_precision": _found(gains, rewards),
        "reward_recall": _found(rewards, gains),
        "reward_events": int((rewards != 0).sum()),
    }


def ball_agrees(real: PongScene, imagined: PongScene) -> NDArray[np.bool_]:
    """Whether both balls are within 2 pixels of each other or both absent: bool, shape (frames,)."""
    distance = np.linalg.norm(real.ball - imagined.ball, axis=1)
    return _close(distance, real.ball[:, 0], imagined.ball[:, 0])


def _close(distance: NDArray[Any], real: NDArray[Any], imagined: NDArray[Any]) -> NDArray[np.bool_]:
    """Both present and near, or both absent; absence is NaN."""
    present, dreamt = ~np.isnan(real), ~np.isnan(imagined)
    return np.where(present & dreamt, np.abs(np.nan_to_num(distance)) <= _TOLERANCE, present == dreamt)


def _found(events: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """Share of the rewards in one array, shape (N, H), that have their like in the other, two steps early or late at most."""
    rows, steps = np.nonzero(events)
    if not len(rows):
        return float("nan")
    padded = np.pad(others, ((0, 0), (_REWARD_WINDOW, _REWARD_WINDOW)))
    nearby = np.stack([padded[rows, steps + offset] for offset in range(2 * _REWARD_WINDOW + 1)], 1)
    return float((nearby == events[rows, steps][:, None]).any(1).mean())
