"""The experience of an agent while it grows: single frames on the training device, drawn as sequences of stacks.

A stack repeats three frames of the one before, so stacks would take four times the memory. Episodes lie end to end. As in
the paper (Robine et al., ICLR 2023), what an episode shows last is not part of any sequence: the step after an end shows the
beginning of the next episode. It is kept all the same, for models that learn from it.

Letters: N steps, B sequences, L steps of a sequence.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training.experience import Experience, ExperienceError
from training.loop import RunError, write_whole
from training.twm.joint import Sequences

__all__ = ["AgentReplay"]

_STEP_ARRAYS = ("rows", "first_rows", "actions", "rewards", "terminated", "done", "episodes")


class AgentReplay:
    """Recorded steps of one agent.

    The arrays that are filled live in main memory; `sync` copies what is new to the device.

    Args:
        capacity: Most steps.
        stack: Frames in an observation.
        device: Where sequences are wanted.
    """

    def __init__(self, capacity: int, stack: int = 4, device: torch.device | str = "cpu") -> None:
        self.capacity, self.stack, self.device = capacity, stack, torch.device(device)
        self.size = 0  # steps
        self.num_frames = 0
        # Step i shows rows[i] as its newest frame; the entry after the last step is the present observation.
        self.arrays: dict[str, np.ndarray] = {
            "rows": np.zeros(capacity + 1, np.int64),
            "first_rows": np.zeros(capacity + 1, np.int64),
            "actions": np.zeros(capacity + 1, np.int64),
            "rewards": np.zeros(capacity + 1, np.float32),
            "terminated": np.zeros(capacity + 1, bool),
            "done": np.zeros(capacity + 1, bool),
            "episodes": np.zeros(capacity + 1, np.int64),
        }
        self.frames = np.zeros((capacity + capacity // 8 + 64, 64, 64), np.uint8)
        self._on_device: dict[str, Tensor] = {}
        self._synced = (0, 0)  # steps and frames
        self._saved = (0, 0)

    def __len__(self) -> int:
        """Steps recorded so far."""
        return self.size

    def begin_episode(self, frame: np.ndarray) -> None:
        """Record what an episode shows first: uint8, shape (64, 64)."""
        row = self._add_frame(frame)
        index = self.size
        self.arrays["rows"][index] = self.arrays["first_rows"][index] = row
        if index:
            self.arrays["episodes"][index] = self.arrays["episodes"][index - 1] + 1

    def add(self, action: int, reward: float, terminated: bool, truncated: bool, frame: np.ndarray) -> None:
        """Record a step.

        Args:
            action: Index of the action.
            reward: Raw reward.
            terminated: Whether the game or a life ended.
            truncated: Whether the episode was cut; after either, `begin_episode` follows.
            frame: Newest frame after the step, uint8, shape (64, 64).

        Raises:
            ExperienceError: If there is no room left.
        """
        index, arrays = self.size, self.arrays
        if index >= self.capacity:
            raise ExperienceError(f"The replay has room for {self.capacity} steps, and holds them already.")
        arrays["actions"][index], arrays["rewards"][index] = action, reward
        arrays["terminated"][index], arrays["done"][index] = terminated, terminated or truncated
        arrays["rows"][index + 1] = self._add_frame(frame)
        arrays["first_rows"][index + 1] = arrays["first_rows"][index]
        arrays["episodes"][index + 1] = arrays["episodes"][index]
        self.size += 1

    def _add_frame(self, frame: np.ndarray) -> int:
        if self.num_frames == len(self.frames):  # more episodes than expected
            self.frames = np.concatenate([self.frames, np.zeros_like(self.frames)])
            self._on_device.pop("frames", None)
            self._synced = (self._synced[0], 0)
        self.frames[self.num_frames] = frame
        self.num_frames += 1
        return self.num_frames - 1

    def observation(self) -> np.ndarray:
        """The present observation, uint8, shape (stack, 64, 64)."""
        row, first = self.arrays["rows"][self.size], self.arrays["first_rows"][self.size]
        return self.frames[np.maximum(np.arange(row + 1 - self.stack, row + 1), first)]

    def sync(self) -> None:
        """Make what was recorded since the last call visible on the device."""
        if self.device.type == "cpu":  # the very same memory
            self._on_device = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
            self._on_device["frames"] = torch.from_numpy(self.frames)
            return
        steps, frames = self._synced
        for name in _STEP_ARRAYS:
            self._copy(name, self.arrays[name], steps, self.size + 1)
        self._copy("frames", self.frames, frames, self.num_frames)
        self._synced = (self.size, self.num_frames)

    def _copy(self, name: str, array: np.ndarray, start: int, end: int) -> None:
        if name not in self._on_device:
            self._on_device[name] = torch.from_numpy(np.zeros_like(array)).to(self.device)
        self._on_device[name][start:end] = torch.from_numpy(array[start:end]).to(self.device)

    # What is drawn. `sync` must have been called since the last step.

    def observations(self, steps: Tensor) -> Tensor:
        """Observations of steps.

        Args:
            steps: Up to N, which is the present observation; negative for the first; int64, any shape.

        Returns:
            Stacks, padded with an episode's first frame, uint8, shape (*steps.shape, stack, 64, 64).
        """
        steps = steps.clamp_min(0)
        rows = self._on_device["rows"][steps].unsqueeze(-1) + torch.arange(1 - self.stack, 1, device=self.device)
        return self._on_device["frames"][rows.maximum(self._on_device["first_rows"][steps].unsqueeze(-1))]

    def sequences(self, starts: Tensor, length: int = 16, pictures: bool = True) -> Sequences:
        """Sequences of one step of context and ``length`` trained ones, L in all.

        What lies before the first step repeats its observation, with action 0 and reward 0.

        Args:
            starts: First trained step of each, int64, shape (B,), in [0, N - length].
            length: Trained steps.
            pictures: Whether to look up observations; without, they are left empty.
        """
        steps = starts.unsqueeze(1) + torch.arange(-1, length, device=self.device)
        before = (steps < 1) | (self._step("episodes", steps) != self._step("episodes", steps - 1))
        observed = torch.cat([steps, steps[:, -1:] + 1], 1) if pictures else steps[:, :0]
        missing = steps < 0
        return Sequences(
            observations=self.observations(observed),
            actions=self._step("actions", steps).masked_fill(missing, 0),
            rewards_before=self._step("rewards", steps - 1).masked_fill(before, 0.0),
            rewards=self._step("rewards", steps).masked_fill(missing, 0.0),
            terminated=self._step("terminated", steps) & ~missing,
            done=self._step("done", steps) & ~missing,
            episodes=self._step("episodes", steps),
        )

    def _step(self, name: str, steps: Tensor) -> Tensor:
        return self._on_device[name][steps.clamp_min(0)]

    def experience(self, steps: int | None = None) -> Experience:
        """It in the form of a finished recording; the frames are not copied.

        Args:
            steps: Only so many, from the first on; None for all.

        Raises:
            ExperienceError: If nothing was recorded yet.
        """
        size = self.size if steps is None else steps
        if not size:
            raise ExperienceError("Nothing was recorded yet.")
        episodes = self.arrays["episodes"][:size]
        starts = np.flatnonzero(np.diff(episodes, prepend=-1))
        return Experience(
            frames=self.frames[: self.num_frames],
            frame_index=self.arrays["rows"][:size],
            actions=self.arrays["actions"][:size],
            rewards=self.arrays["rewards"][:size],
            terminated=self.arrays["terminated"][:size],
            first=starts[np.searchsorted(starts, np.arange(size), side="right") - 1],
            policies=("agent",) * len(starts),
            episode_starts=starts,
        )

    # On disk: one archive for what came between two checkpoints, so that none is written twice.

    def save(self, folder: Path) -> int:
        """Write what was recorded since the last call, and return the number of steps.

        Raises:
            RunError: If it cannot be written.
        """
        steps, frames = self._saved
        if self.size == steps:
            return self.size
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("steps-*.npz"):  # that a killed run recorded after its last checkpoint
            if _end(path) > steps:
                path.unlink()
        fields: dict[str, Any] = {name: self.arrays[name][steps : self.size + 1] for name in _STEP_ARRAYS}
        path = folder / f"steps-{steps:07d}-{self.size:07d}.npz"
        write_whole(
            path, lambda file: np.savez_compressed(file, frames=self.frames[frames : self.num_frames], **fields)
        )
        self._saved = (self.size, self.num_frames)
        return self.size

    def load(self, folder: Path, steps: int) -> None:
        """Read the first ``steps`` steps back.

        Raises:
            RunError: If some of it is missing or damaged.
        """
        self.size = self.num_frames = 0
        while self.size < steps:
            found = [path for path in folder.glob(f"steps-{self.size:07d}-*.npz") if self.size < _end(path) <= steps]
            if not found:
                raise RunError(
                    f"{folder} lacks the steps from {self.size} on, of {steps} that the checkpoint counts on."
                )
            self._append(max(found, key=_end))
        self._saved = (self.size, self.num_frames)
        self._synced, self._on_device = (0, 0), {}

    def _append(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as archive:
                chunk = {name: archive[name] for name in (*_STEP_ARRAYS, "frames")}
        except Exception as error:  # a damaged archive makes NumPy raise almost anything
            raise RunError(
                f"{path} is damaged ({error}): the run cannot be resumed. Start it in another folder."
            ) from error
        for frame in chunk["frames"]:
            self._add_frame(frame)
        for name in _STEP_ARRAYS:
            self.arrays[name][self.size : self.size + len(chunk[name])] = chunk[name]
        self.size = _end(path)


def _end(path: Path) -> int:
    return int(path.stem.rsplit("-", 1)[1])
