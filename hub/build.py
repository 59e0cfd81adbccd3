"""From a training run to a snapshot that can be published: what the run wrote, with a film and a card."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

from hub.card import card_settings, write_card
from learned_envs.demo import choose_player, film
from learned_envs.environment import AtariConfig
from learned_envs.envs.single import LearnedEnv
from learned_envs.errors import SnapshotError
from learned_envs.files import new_folder
from learned_envs.manifest import ALL, CONFIG, FIDELITY, MANIFEST, MODEL, PREVIEW, STARTS, parse_json, write_manifest
from learned_envs.snapshot import Snapshot, read_policy, read_snapshot, write_snapshot
from learned_envs.video import write_gif

__all__ = ["build", "find_source"]

_FPS, _FRAMES = 15, 60


def build(source: Path, out: Path, repository: str | None = None, license: str | None = None) -> Path:
    """Make a complete snapshot, or complete and rewrite one that is there.

    Weights, starts and figures are taken over as they are. The same input gives the same files, byte for byte.

    Args:
        source: Folder of a finished training run, or of a snapshot; one of a development version before the first release is
            brought to today's format.
        out: Where the result goes, complete or not at all; what is there is replaced.
        repository: Where it will be published; None for where the old card says, or the catalogue's own place.
        license: Licence of the model, as the Hub names it; None for what the old card says, or mit.

    Returns:
        ``out``.

    Raises:
        SnapshotError: If the run has no snapshot yet, or it is damaged.
    """
    run, folder = find_source(source)
    with _current(folder) as current:
        snapshot = read_snapshot(current)
        config = replace(snapshot.config, provenance=_provenance(snapshot, run))
        # What was read is ours, though a development version has no manifest.
        in_place = out.resolve() == folder.resolve()
        with new_folder(out, replace=True, ours=ALL, known_by=None if in_place else MANIFEST) as partial:
            policy = None if config.policy is None else read_policy(snapshot)
            parts = config, snapshot.model, snapshot.starts, snapshot.fidelity
            write_snapshot(partial, *parts, replace=True, policy=policy)
            _write_preview(partial, snapshot)
            old_repository, old_license = card_settings(folder) or (None, None)
            write_card(partial, repository or old_repository, license or old_license)
    return out


def find_source(source: Path) -> tuple[Path | None, Path]:
    """The run, if it is one, and the snapshot in it.

    Raises:
        SnapshotError: If there is no snapshot.
    """
    if (source / CONFIG).is_file():
        return None, source
    if (source / "snapshot" / CONFIG).is_file():
        return source, source / "snapshot"
    if (source / "run.json").is_file():
        raise SnapshotError(f"The run {source} has no snapshot yet: it is not finished. Its own command resumes it.")
    raise SnapshotError(f"{source} is neither the folder of a training run nor that of a snapshot.")


def _provenance(snapshot: Snapshot, run: Path | None) -> dict[str, Any]:
    """What the run wrote of itself, and its description where that is not part of it."""
    known = dict(snapshot.config.provenance)
    if run is not None and (run / "run.json").is_file() and "recipe" not in known:
        known["recipe"] = parse_json(run / "run.json")
    if not known:
        raise SnapshotError(
            f"{snapshot.folder / CONFIG}: provenance is empty: nobody could tell how the model was made."
        )
    return known


def _write_preview(folder: Path, snapshot: Snapshot) -> None:
    """Film the learned game; states of a control problem are no pictures."""
    real = snapshot.config.environment
    if isinstance(real, AtariConfig):
        env = LearnedEnv(folder)
        games = {name: seen[:_FRAMES] for name, seen in film(env, None, choose_player(real)).items()}
        write_gif(folder / PREVIEW, games, fps=_FPS)


@contextmanager
def _current(folder: Path) -> Iterator[Path]:
    """The snapshot in today's format; one without a manifest kept its checksums in its configuration."""
    if (folder / MANIFEST).exists() or parse_json(folder / CONFIG).get("format") != 1:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        upgraded = Path(temporary)
        content = parse_json(folder / CONFIG)
        content["format"] = 2
        checksums = content.pop("sha256", {})
        (upgraded / CONFIG).write_text(json.dumps(content))
        for name in (MODEL, STARTS, FIDELITY):
            copyfile(folder / name, upgraded / name)
        write_manifest(upgraded)
        written = parse_json(upgraded / MANIFEST)["files"]
        for name in (MODEL, STARTS):
            if checksums.get(name) != written[name]["sha256"]:
                raise SnapshotError(f"{folder / name} does not have the checksum that {CONFIG} gives: it is damaged.")
        yield upgraded
