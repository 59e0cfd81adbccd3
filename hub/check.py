"""Everything that must hold of a snapshot before it is published."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hub.card import card_settings, read_card, render_card
from learned_envs.envs.single import LearnedEnv
from learned_envs.envs.vector import LearnedVectorEnv
from learned_envs.errors import SnapshotError
from learned_envs.manifest import ALL, CARD, MANIFEST, OPTIONAL, PREVIEW, check_file, read_manifest
from learned_envs.snapshot import Snapshot, read_policy, read_snapshot

__all__ = ["check"]

_STEPS = 40  # of the trial
_NEIGHBOURS = {".gitattributes", ".cache", ".git"}  # what clones and downloads leave beside the snapshot's files


def check(folder: Path) -> Iterator[str]:
    """Check a snapshot as its readers would, and try it.

    Args:
        folder: The snapshot.

    Yields:
        What was found in order, one by one.

    Raises:
        SnapshotError: At the first thing that is not; the message names file and field.
    """
    snapshot = read_snapshot(folder)
    yield f"{snapshot.config.id}: manifest, configuration, weights and starts fit each other"
    checks: tuple[tuple[Callable[[Path, Snapshot], None], str], ...] = (
        (_check_files, "every file is listed with its checksum, and there is no other"),
        (_check_origin, "it says how it was made"),
        (_check_card, "the card is valid and tells what the snapshot holds"),
        (_check_rollout, f"it plays: {_STEPS} steps, twice the same, and in a batch"),
        (_check_policy, "its agent, if it has one, acts"),
    )
    for run, found in checks:
        run(folder, snapshot)
        yield found


def _check_files(folder: Path, snapshot: Snapshot) -> None:
    manifest = read_manifest(folder)
    for name in manifest.files:
        check_file(folder, name, manifest)
    for path in sorted(folder.iterdir()):
        if path.name not in ALL and path.name not in _NEIGHBOURS:
            raise SnapshotError(f"{path} is no part of a snapshot: remove it.")
        if path.name in OPTIONAL and path.name not in manifest.files:
            raise SnapshotError(f"{path} is not in {MANIFEST}. Note it there: python -m hub card {folder}")


def _check_origin(folder: Path, snapshot: Snapshot) -> None:
    if not snapshot.config.provenance:
        raise SnapshotError(f"{folder / 'config.json'}: provenance is empty: nobody could tell how the model was made.")


def _check_card(folder: Path, snapshot: Snapshot) -> None:
    data = read_card(folder)
    settings = card_settings(folder)
    expected = settings and render_card(snapshot, *settings, preview=(folder / PREVIEW).is_file())
    if (folder / CARD).read_text(encoding="utf-8") != expected:
        raise SnapshotError(
            f"{folder / CARD} does not tell what the snapshot holds. Make it anew: python -m hub card {folder}"
        )
    missing = [name for name in ("library_name", "license", "tags") if not getattr(data, name)]
    if missing:
        raise SnapshotError(f"{folder / CARD}: {missing[0]} is missing. Make it anew: python -m hub card {folder}")


def _check_rollout(folder: Path, snapshot: Snapshot) -> None:
    first, second = (_play(folder) for _ in range(2))
    if not all(np.array_equal(mine, its) for mine, its in zip(first, second, strict=True)):
        raise SnapshotError(f"{folder}: two rollouts from the same seed differ.")
    envs = LearnedVectorEnv(folder, 2)
    envs.reset(seed=0)
    envs.action_space.seed(0)
    for _ in range(_STEPS):
        _, rewards, *_ = envs.step(envs.action_space.sample())
        if not np.isfinite(rewards).all():
            raise SnapshotError(f"{folder}: a reward is {rewards}.")


def _check_policy(folder: Path, snapshot: Snapshot) -> None:
    if snapshot.config.policy is not None:
        observation = LearnedEnv(folder).reset(seed=0)[0]
        read_policy(snapshot).predict(observation)


def _play(folder: Path) -> list[np.ndarray]:
    env = LearnedEnv(folder)
    seen = [env.reset(seed=0)[0]]
    env.action_space.seed(0)
    for step in range(_STEPS):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        if not env.observation_space.contains(observation) or not np.isfinite(reward):
            raise SnapshotError(
                f"{folder}: step {step} leaves the observation space, or its reward {reward} is no number."
            )
        seen += [observation, np.array(reward)]
        if terminated or truncated:
            seen.append(env.reset()[0])
    return seen
