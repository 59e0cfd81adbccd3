"""Recorded experience on disk and in memory.

One compressed NumPy archive an episode: single frames, not stacks (a stack repeats every frame four times), with the
actions, rewards and flags between them. An archive appears under its final name only when it is complete, so an
interrupted recording never leaves half an episode behind.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from learned_envs.files import replacing, write_json

__all__ = ["Episode", "Experience", "ExperienceError", "read_manifest", "write_manifest"]

_MANIFEST = "manifest.json"
_FORMAT = 1


class ExperienceError(ValueError):
    """A recording is missing, incomplete, or does not fit what was asked for."""


@dataclass(frozen=True)
class Episode:
    """One recorded episode of L steps.

    Args:
        frames: Newest frame at reset and after every step, uint8 in [0, 255], shape (L + 1, height, width).
        actions: Index into the action set, uint8, shape (L,).
        rewards: Raw game score gained in the step, float32, shape (L,).
        terminated: Whether the game ended after the last step; False if the recording was merely cut there.
        policy: Name of the policy that played.
        seed: What the game was reset with.
    """

    frames: NDArray[np.uint8]
    actions: NDArray[np.uint8]
    rewards: NDArray[np.float32]
    terminated: bool
    policy: str
    seed: int

    def save(self, path: Path) -> None:
        """Write to ``path``, complete or not at all."""
        fields: dict[str, Any] = {name: np.asarray(value) for name, value in asdict(self).items()}
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **fields)

    @classmethod
    def load(cls, path: Path) -> "Episode":
        """Read an archive written by `save`.

        Raises:
            ExperienceError: If the file is damaged or lacks a field.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                return cls(
                    frames=archive["frames"],
                    actions=archive["actions"],
                    rewards=archive["rewards"],
                    terminated=bool(archive["terminated"]),
                    policy=str(archive["policy"]),
                    seed=int(archive["seed"]),
                )
        except Exception as error:  # a damaged archive makes NumPy raise almost anything
            raise ExperienceError(
                f"{path} is not a complete episode ({error}). Delete it and collect again."
            ) from error


@dataclass(frozen=True)
class Experience:
    """Episodes laid end to end, as the replay of a world model.

    With N steps in E episodes, step t of the recording shows ``frames[frame_index[t]]``, then ``actions[t]`` is taken and
    gives ``rewards[t]`` and the next frame ``frames[frame_index[t] + 1]``.

    Args:
        frames: uint8, shape (N + E, height, width).
        frame_index: Row in ``frames`` of the observation before each step, int64, shape (N,).
        actions: int64, shape (N,).
        rewards: Raw rewards, float32, shape (N,).
        terminated: Whether the game ended with the step, bool, shape (N,).
        first: Index of the first step of the episode each step belongs to, int64, shape (N,).
        policies: Name of the policy that played each episode.
        episode_starts: Index of the first step of each episode, int64, shape (E,).
    """

    frames: NDArray[np.uint8]
    frame_index: NDArray[np.int64]
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    first: NDArray[np.int64]
    policies: tuple[str, ...]
    episode_starts: NDArray[np.int64]

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.actions)

    @classmethod
    def from_episodes(cls, episodes: list[Episode]) -> "Experience":
        """Lay episodes end to end.

        Raises:
            ExperienceError: If there are none.
        """
        if not episodes:
            raise ExperienceError("There is no recorded episode. Collect some first: python -m training collect ID")
        lengths = np.array([len(episode.actions) for episode in episodes])
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        episode_of_step = np.repeat(np.arange(len(episodes)), lengths)
        terminated = np.zeros(lengths.sum(), bool)
        terminated[starts + lengths - 1] = [episode.terminated for episode in episodes]
        return cls(
            frames=np.concatenate([episode.frames for episode in episodes]),
            frame_index=np.arange(lengths.sum())
            + episode_of_step,  # every earlier episode has one frame more than steps
            actions=np.concatenate([episode.actions for episode in episodes]).astype(np.int64),
            rewards=np.concatenate([episode.rewards for episode in episodes]),
            terminated=terminated,
            first=starts[episode_of_step],
            policies=tuple(episode.policy for episode in episodes),
            episode_starts=starts,
        )

    @classmethod
    def load(cls, *folders: Path, behind: Sequence[Episode] = ()) -> "Experience":
        """Read every episode of finished recordings.

        Args:
            *folders: Of the recordings.
            behind: Episodes to lay behind them.

        Raises:
            ExperienceError: If a folder holds no finished recording.
        """
        for folder in folders:
            if not read_manifest(folder).get("complete"):
                raise ExperienceError(f"The recording in {folder} is not finished. Run the same collect command again.")
        files = [path for folder in folders for path in sorted(folder.glob("episode-*.npz"))]
        return cls.from_episodes([*map(Episode.load, files), *behind])


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read what a recording says of itself.

    Raises:
        ExperienceError: If there is no recording in ``folder``, or one of another format.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        raise ExperienceError(f"No recording in {folder}. Make one: python -m training collect ID --folder {folder}")
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise ExperienceError(f"{path} is not JSON ({error}). Delete the folder and collect again.") from error
    if manifest.get("format") != _FORMAT:
        raise ExperienceError(f"{path} has format {manifest.get('format')!r}, this version reads format {_FORMAT}.")
    return manifest


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write what a recording says of itself, complete or not at all."""
    write_json(folder / _MANIFEST, {"format": _FORMAT, **content})
