"""The loop that every long training shares: progress with an ETA, checkpoints, logs, and resuming to the same result.

All randomness of an update comes from the global generator, which is seeded anew for each update from the seed of the run,
the name of the stage and the number of the update. A run that was killed and resumed therefore takes exactly the updates
that an uninterrupted one takes.
"""

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import trange

from learned_envs.files import replacing

__all__ = ["RunError", "Stage", "open_run", "read_json", "run_stage", "update_seed", "write_whole"]

_MOST_SHOWN = 5  # figures beside a progress bar; the log has all


class RunError(RuntimeError):
    """A run cannot be started or resumed as asked."""


class Stage(Protocol):
    """One phase of a training.

    Attributes:
        name: Short name, unique in a run.
        updates: How many updates the stage takes.
        log_every: Updates between two entries in the log.
    """

    name: str
    updates: int
    log_every: int

    def update(self, step: int) -> dict[str, Tensor]:
        """Take update number ``step`` and return what to log: scalars by name."""
        ...

    def visualize(self, step: int) -> dict[str, Tensor]:
        """Pictures for the log by name: float in [0, 1], shape (channels, height, width); called at every checkpoint."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that changes from update to update."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        ...


def update_seed(seed: int, stage: str, step: int) -> int:
    """Seed of one update, the same on every machine: an integer in [0, 2**63)."""
    digest = hashlib.blake2b(f"{seed}/{stage}/{step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def open_run(folder: Path, description: dict[str, Any]) -> None:
    """Create the folder of a run, or check that it belongs to the same one.

    Args:
        folder: Folder of the run.
        description: What the run does, JSON-able; a run can only be resumed with the same.

    Raises:
        RunError: If the folder belongs to a run with another description.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    wanted = json.loads(json.dumps(description))
    if not path.exists():
        _write(path, json.dumps(wanted, indent=2) + "\n")
        return
    found = read_json(path)
    if found != wanted:
        differences = sorted(key for key in {*found, *wanted} if found.get(key) != wanted.get(key))
        values = ", ".join(
            f"{key} is {found[key]!r} there and {wanted[key]!r} here"
            for key in differences
            if not isinstance(found.get(key, {}), dict | list) and not isinstance(wanted.get(key, {}), dict | list)
        )
        raise RunError(
            f"{folder} belongs to a run with another recipe (it differs in: {', '.join(differences)}"
            f"{'; ' if values else ''}{values}). Resume with the same recipe, or choose another folder."
        )


def read_json(path: Path) -> Any:
    """Read a file of a run.

    Raises:
        RunError: If it cannot be read, or is no JSON.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} cannot be read as JSON ({error}). If it is damaged, delete it and run again."
        ) from error


def run_stage(stage: Stage, folder: Path, seed: int, checkpoint_seconds: float = 120.0) -> None:
    """Take all updates of a stage that have not been taken yet.

    Args:
        stage: What to train.
        folder: Folder of the run; ``<stage>.pt`` in it is the checkpoint.
        seed: Seed of the run.
        checkpoint_seconds: Time between two checkpoints; interrupting loses at most this.

    Raises:
        RunError: If the checkpoint is damaged or does not fit the stage, a new one cannot be written, or another process
            trains in the folder.
    """
    with _alone(folder):
        _run(stage, folder, seed, checkpoint_seconds)


def _run(stage: Stage, folder: Path, seed: int, checkpoint_seconds: float) -> None:
    path = folder / f"{stage.name}.pt"
    start = _restore(stage, path) if path.exists() else 0
    if start >= stage.updates:
        return
    with SummaryWriter(str(folder / "logs" / stage.name), purge_step=start) as writer:
        saved = time.monotonic()
        progress = trange(
            start, stage.updates, initial=start, total=stage.updates, desc=stage.name, unit="update", mininterval=1
        )
        for step in progress:
            torch.manual_seed(update_seed(seed, stage.name, step))
            metrics = stage.update(step)
            if step % stage.log_every == 0:
                _log(writer, progress, metrics, step)
            last = step == stage.updates - 1
            if last or time.monotonic() - saved > checkpoint_seconds:
                _save(path, {"step": step + 1, "state": stage.state_dict()})
                for name, picture in stage.visualize(step).items():
                    writer.add_image(f"{stage.name}/{name}", picture, step)
                saved = time.monotonic()


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, whose checkpoints they would replace by their own."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed, by whatever end of the process
    except BlockingIOError as error:
        os.close(descriptor)
        raise RunError(f"Another process trains in {folder}. Wait for it, or choose another folder.") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _restore(stage: Stage, path: Path) -> int:
    """Put a stage back to its checkpoint, and return how many updates it had taken."""
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu")
        step = int(checkpoint["step"])
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise RunError(
            f"{path} is no checkpoint, or a damaged one. Delete it to begin its stage anew. ({error})"
        ) from error
    try:
        stage.load_state_dict(checkpoint["state"])
    except RunError:
        raise
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise RunError(
            f"{path} is a checkpoint of another run or version, it does not fit this one ({reason})."
        ) from error
    return step


def _log(writer: SummaryWriter, progress: Any, metrics: dict[str, Tensor], step: int) -> None:
    for name, value in metrics.items():
        writer.add_scalar(name, value, step)
    shown = list(metrics.items())[:_MOST_SHOWN]
    progress.set_postfix({name.split("/")[-1]: f"{float(value):.3g}" for name, value in shown}, refresh=False)


def write_whole(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write a file whole or not at all.

    Args:
        path: Where it goes.
        write: Writes the content to the open file that it is given.

    Raises:
        RunError: If it cannot be written, as on a full disk; what was there before is still there.
    """
    try:
        with replacing(path) as partial, partial.open("wb") as file:
            write(file)
    except (OSError, RuntimeError) as error:  # torch tells a failed write by the latter
        free = shutil.disk_usage(path.parent).free / 2**20
        raise RunError(
            f"{path} could not be written ({error}); {free:,.0f} MiB are free there. Make room, then run the same command "
            "again: it goes on from the last checkpoint."
        ) from error


def _save(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, lambda file: torch.save(content, file))


def _write(path: Path, text: str) -> None:
    write_whole(path, lambda file: file.write(text.encode()))
