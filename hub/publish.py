"""Putting snapshots on the Hub: checked, in one commit of what changed, with a tag and notes of what is new."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from huggingface_hub.hf_api import ModelInfo
from tqdm import tqdm

from hub.card import describe_figure, figures, write_card
from hub.check import check
from hub.published import Difference, compare, published
from learned_envs.catalog import BUNDLED, ORGANIZATION, repository_of
from learned_envs.download import tell_failure
from learned_envs.errors import SnapshotError
from learned_envs.manifest import FIDELITY, LOADED, MANIFEST, OPTIONAL, parse_json
from learned_envs.snapshot import read_config

__all__ = ["publish", "publish_all"]


def publish(
    folder: Path, repository: str | None = None, private: bool = False, tag: str | None = None, dry_run: bool = False
) -> str | None:
    """Put a snapshot on the Hub.

    It is checked first, and its card is made to name the repository; the folder itself is not changed. What the Hub has
    already is not sent again, and if that is everything, there is no commit.

    Args:
        folder: The snapshot.
        repository: Where it goes; None for the catalogue's own place.
        private: Whether a new repository is private.
        tag: Tag for the release.
        dry_run: Only say what would be done; nothing is changed on the Hub.

    Returns:
        The commit that the Hub has now; None after a dry run.

    Raises:
        SnapshotError: If the snapshot does not pass the check.
        MissingModelError: If the Hub refuses; the message says what to do.
        ValueError: If the tag stands for another commit already.
    """
    for found in check(folder):
        print(f"ok: {found}")
    repository = repository or repository_of(read_config(folder).id)
    try:
        with TemporaryDirectory() as temporary:
            staged = Path(temporary) / "snapshot"
            copytree(folder, staged, ignore=_all_but_ours)
            write_card(staged, repository)
            return _send(staged, repository, private, tag, dry_run)
    except HfHubHTTPError as error:
        told = tell_failure(error, repository)
        if told is None:
            raise
        raise told from error


def publish_all(
    organization: str | None = None, private: bool = False, tag: str | None = None, dry_run: bool = False
) -> list[str]:
    """Publish every bundled snapshot; see `publish`.

    Args:
        organization: Who publishes them; None for the catalogue's own organization.
        private: Whether new repositories are private.
        tag: Tag for the release.
        dry_run: Only say what would be done.

    Returns:
        The repositories.
    """
    folders = [folder for folder in sorted(BUNDLED.iterdir()) if (folder / MANIFEST).is_file()]
    repositories = []
    for folder in tqdm(folders, unit="snapshot"):
        repositories.append(f"{organization or ORGANIZATION}/{folder.name}")
        publish(folder, repositories[-1], private, tag, dry_run)
    return repositories


def _send(folder: Path, repository: str, private: bool, tag: str | None, dry_run: bool) -> str | None:
    info = published(repository)
    difference = compare(folder, info)
    notes = _notes(folder, repository, info, difference)
    _check_tag(repository, info, difference, tag)
    print(f"{constants.ENDPOINT}/{repository}{'' if info else ' (new)'}\n{notes}")
    if dry_run:
        print("Nothing was sent: this was a dry run.")
        return None
    api = HfApi()
    if info is None:
        api.create_repo(repository, private=private, exist_ok=True)
    commit = info.sha if info else None
    if difference:
        operations = [CommitOperationAdd(name, folder / name) for name in difference.changed]
        removals = [CommitOperationDelete(name) for name in difference.removed]
        title = f"Publish {read_config(folder).id}" + (f" {tag}" if tag else "")
        # Whoever published something else meanwhile is not overwritten.
        done = api.create_commit(
            repository, [*operations, *removals], commit_message=title, commit_description=notes, parent_commit=commit
        )
        commit = done.oid
    assert commit is not None
    if tag and tag not in _tags(repository):
        api.create_tag(repository, tag=tag, tag_message=notes, revision=commit)
    print(f"{repository} is at {commit}{f', tagged {tag}' if tag else ''}.")
    return commit


def _check_tag(repository: str, info: ModelInfo | None, difference: Difference, tag: str | None) -> None:
    """Refuse to give a tag a second meaning: people pin their results with it."""
    target = _tags(repository).get(tag) if info and tag else None
    assert info is not None or target is None
    if target and (difference or target != info.sha):  # type: ignore[union-attr]
        raise ValueError(f"The tag {tag} of {repository} stands for {target} already. Choose another one.")


def _tags(repository: str) -> dict[str, str]:
    return {ref.name: ref.target_commit for ref in HfApi().list_repo_refs(repository).tags}


def _notes(folder: Path, repository: str, info: ModelInfo | None, difference: Difference) -> str:
    """What is new, for people."""
    if not difference:
        return "Nothing changed."
    lines = [f"- {name}: {'changed' if info else 'new'}" for name in difference.changed]
    lines += [f"- {name}: removed" for name in difference.removed]
    if FIDELITY in difference.changed and info is not None:
        lines += _new_figures(folder, repository, info)
    return "\n".join(lines)


def _new_figures(folder: Path, repository: str, info: ModelInfo) -> Iterator[str]:
    try:
        before = dict(figures(parse_json(Path(hf_hub_download(repository, FIDELITY, revision=info.sha)))))
    except (SnapshotError, FileNotFoundError, EntryNotFoundError):
        before = {}  # what was there was none of ours
    for name, value in figures(parse_json(folder / FIDELITY)):
        if before.get(name) != value:
            was = f"{before[name]:.4g} before" if name in before else "not measured before"
            yield f"- {describe_figure(name)}: {value:.4g} ({was})"


def _all_but_ours(_: Any, names: list[str]) -> list[str]:
    return [name for name in names if name not in (MANIFEST, *LOADED, *OPTIONAL)]
