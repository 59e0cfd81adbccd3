"""From a repository on the Hugging Face Hub to a verified folder in its cache.

huggingface_hub does the work: its cache, tokens, offline switch, mirrors and progress bars are those the user has set up.
What it leaves open is done here. Only files of the lay-out are fetched, and only if their sizes are those announced; every
one is checked against its SHA-256, and one that arrived damaged is forgotten and fetched anew; a branch or tag is pointed to
a new commit when all of that commit is there. So the cache never holds half a model under a name.
"""

import errno
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from learned_envs.errors import MissingModelError, SnapshotError
from learned_envs.manifest import MANIFEST, damaged_files, read_manifest

__all__ = ["download", "is_of_network", "is_repository", "tell_failure"]

_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WAITS = (0.5, 1.5)  # seconds before the second and the third attempt
_OURS = {
    errno.ENOSPC,
    errno.EACCES,
    errno.EROFS,
    errno.EDQUOT,
    errno.EPERM,
}  # this machine is to blame, not the network
Result = TypeVar("Result")


class _Unreachable(Exception):
    """The Hub could not be asked; what it would have said is unknown."""


def is_repository(name: str) -> bool:
    """Whether a name has the form of a repository, ``organization/name``."""
    return _REPOSITORY.fullmatch(name) is not None


def download(repository: str, revision: str | None = None, local_files_only: bool = False) -> Path:
    """Fetch a snapshot, or find it in the cache.

    A full commit hash that is in the cache is taken from there without asking. Whatever else is asked of the Hub first; if
    that is not to be reached, the cached files are used, with a warning that names their commit.

    Args:
        repository: ``organization/name``.
        revision: Branch, tag or commit; None for the main branch.
        local_files_only: Whether to do without the network.

    Returns:
        Its folder in the cache of huggingface_hub. Every file in it that a model needs has the checksum that its manifest
        gives.

    Raises:
        MissingModelError: If it is not to be had; the message says what was tried.
        SnapshotError: If it is no snapshot of ours, or is damaged.
    """
    from huggingface_hub import constants

    cached = _find_cached(repository, revision)
    intact = cached is not None and not list(damaged_files(cached))
    if intact and revision is not None and _COMMIT.fullmatch(revision):
        return cached  # type: ignore[return-value]
    if local_files_only or constants.HF_HUB_OFFLINE:
        return _take_cached(repository, revision, cached)
    try:
        return _fetch(repository, revision)
    except _Unreachable as error:
        if not intact:
            raise MissingModelError(
                f"{_name(repository, revision)} could not be fetched from {constants.ENDPOINT} and is not in the cache "
                f"{constants.HF_HUB_CACHE}: {error}"
            ) from error
        assert cached is not None
        warnings.warn(
            f"{_name(repository, revision)} could not be looked up at {constants.ENDPOINT} ({error}): using revision "
            f"{cached.name} from the cache.",
            stacklevel=2,
        )
        return cached


def tell_failure(error: Exception, repository: str, revision: str | None = None) -> MissingModelError | None:
    """What an answer of the Hub means to whoever asked.

    Args:
        error: What huggingface_hub raised.
        repository: What was asked for.
        revision: Which revision of it.

    Returns:
        An error that says what to do; None if the answer may be another one in a moment, or is none of the Hub's.
    """
    from huggingface_hub import constants, errors

    place = f"{constants.ENDPOINT}/{repository}"
    login = "log in with `hf auth login`, or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        return MissingModelError(f"{repository} is gated: ask for access at {place}, and {login}.")
    if isinstance(error, errors.RepositoryNotFoundError):
        return MissingModelError(
            f"There is no model {place}, or it is private: check the name; if it is right, {login}."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return MissingModelError(f"{place} has no revision {revision!r}.{_list_revisions(repository)}")
    if isinstance(error, errors.HFValidationError):
        return MissingModelError(f"{repository!r} is no name of a repository: {error}")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return MissingModelError(f"{place} refuses access (status {status}): {login} with a token that is allowed to.")
    if isinstance(status, int) and status < 500 and status not in (408, 429):
        return MissingModelError(f"{place} answers with status {status}: {_first_line(error)}")
    return None


def _find_cached(repository: str, revision: str | None) -> Path | None:
    """Folder in the cache of the commit that a revision stood for last; nobody has looked whether it is complete."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, revision=revision, local_files_only=True, allow_patterns=[MANIFEST]))
    except (LocalEntryNotFoundError, ValueError):
        return None


def _take_cached(repository: str, revision: str | None, cached: Path | None) -> Path:
    from huggingface_hub import constants

    if cached is None:
        raise MissingModelError(
            f"{_name(repository, revision)} is not in the cache {constants.HF_HUB_CACHE}, and the network is not to be "
            "used (local_files_only or HF_HUB_OFFLINE). Load it once with the network."
        )
    for _, error in damaged_files(cached):
        raise SnapshotError(f"{error} Load {_name(repository, revision)} once with the network to mend it.") from error
    return cached


def _fetch(repository: str, revision: str | None) -> Path:
    """Bring all of a commit into the cache, then let the revision stand for it."""
    from huggingface_hub import HfApi, constants, hf_hub_download

    def ask() -> Any:
        timeout = constants.HF_HUB_ETAG_TIMEOUT
        return HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=timeout)

    info = _persist(ask, repository, revision)
    sizes = {sibling.rfilename: sibling.size for sibling in info.siblings or []}
    name = _name(repository, revision)
    if MANIFEST not in sizes:
        raise SnapshotError(f"{name} is no snapshot of learned_envs: it has no {MANIFEST}.")

    def get(file: str, revision: str = info.sha) -> Path:
        done = _persist(lambda: hf_hub_download(repository, file, revision=revision), repository, revision)
        return Path(done)

    folder = _get_intact(name, sizes, get)
    if revision != info.sha:
        get(MANIFEST, revision or constants.DEFAULT_REVISION)  # there already: only the name's commit is noted down
    return folder


def _get_intact(name: str, sizes: dict[str, int | None], get: Callable[[str], Path]) -> Path:
    """Fetch the files of a commit, once more those that arrive damaged."""
    damaged: dict[str, SnapshotError] = {}
    for _ in range(2):
        folder = get(MANIFEST).parent
        damaged = dict(damaged_files(folder))
        if MANIFEST not in damaged:
            _check_sizes(name, folder, sizes)
            for file in read_manifest(folder).loaded:
                get(file)
            damaged = dict(damaged_files(folder))
        if not damaged:
            return folder
        for file in damaged:
            _forget(folder / file)
    error = next(iter(damaged.values()))
    raise SnapshotError(f"{name}: {error} It was fetched twice.") from error


def _check_sizes(name: str, folder: Path, sizes: dict[str, int | None]) -> None:
    """Refuse, before they are fetched, files that cannot be those of the manifest."""
    manifest = read_manifest(folder)
    for file in manifest.loaded:
        size = manifest.files[file].size
        if sizes.get(file) != size:
            found = "is missing" if file not in sizes else f"has {sizes[file]} bytes"
            raise SnapshotError(f"{name}: {file} {found}, but {MANIFEST} says {size} bytes: it is damaged.")


def _forget(pointer: Path) -> None:
    """Remove a file from the cache, and what it points to."""
    blob = pointer.resolve()
    pointer.unlink(missing_ok=True)
    if blob.parent.name == "blobs":
        blob.unlink(missing_ok=True)


def _persist(attempt: Callable[[], Result], repository: str, revision: str | None) -> Result:
    """Ask the Hub, and again where it may answer better in a moment.

    Raises:
        MissingModelError: If it says no.
        _Unreachable: If it says nothing of use.
    """
    problem: Exception = AssertionError("no attempt was made")
    for wait in (0.0, *_WAITS):
        time.sleep(wait)
        try:
            return attempt()
        except Exception as error:
            problem = _reason(error)
            told = tell_failure(problem, repository, revision)
            if told is not None:
                raise told from error
            if not is_of_network(problem):
                raise
    raise _Unreachable(_first_line(problem)) from problem


def _reason(error: Exception) -> Exception:
    """What the Hub answered, where the client says no more than that a file is not in the cache either."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    cause = error.__cause__
    return cause if isinstance(error, LocalEntryNotFoundError) and isinstance(cause, Exception) else error


def is_of_network(error: Exception) -> bool:
    """Whether the network, or the machine behind it, is to blame. The client's own errors have no common ancestor."""
    if isinstance(error, OSError):
        return error.errno not in _OURS
    return type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "httpcore2")


def _list_revisions(repository: str) -> str:
    from huggingface_hub import HfApi

    try:
        refs = HfApi().list_repo_refs(repository)
    except Exception:  # this only decorates an error that is being told
        return ""
    names = [ref.name for ref in (*refs.branches, *refs.tags)]
    return f" It has {', '.join(names)}." if names else ""


def _name(repository: str, revision: str | None) -> str:
    return repository if revision is None else f"{repository} at revision {revision}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
