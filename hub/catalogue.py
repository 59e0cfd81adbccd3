"""What is published beside what is bundled in this checkout, and copies of it."""

from pathlib import Path
from shutil import copyfile

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from rich.console import Console
from rich.table import Table

from hub.published import compare, published
from learned_envs.catalog import BUNDLED, CATALOG, ORGANIZATION, repository_of
from learned_envs.download import download, tell_failure
from learned_envs.errors import MissingModelError
from learned_envs.files import new_folder
from learned_envs.manifest import MANIFEST, OPTIONAL, check_file, read_manifest

__all__ = ["print_catalogue", "pull", "rows"]


def print_catalogue(query: str | None = None, organization: str | None = None) -> None:
    """Print `rows` as a table."""
    table = Table("repository", "commit", "tags", "compared with this checkout", box=None)
    for row in rows(query, organization):
        table.add_row(*row)
    console = Console(markup=False, highlight=False, width=None if Console().is_terminal else 160)
    console.print(table if table.row_count else "Nothing is published or bundled by that name.")


def rows(query: str | None = None, organization: str | None = None) -> list[tuple[str, str, str, str]]:
    """What is published by an organization, and what of this checkout is not.

    Args:
        query: Only names that contain this, in small or capital letters.
        organization: Whose models; None for those of the catalogue.

    Returns:
        Repository, commit, tags, and how it compares with the bundled snapshot of that name.

    Raises:
        MissingModelError: If the Hub refuses.
    """
    organization = organization or ORGANIZATION
    try:
        models = HfApi().list_models(author=organization, filter="learned_envs", search=query)
        names = {model.id.partition("/")[2] for model in models}
        bundled = {folder.name: folder for folder in BUNDLED.iterdir() if (folder / MANIFEST).is_file()}
        wanted = sorted(name for name in names | bundled.keys() if (query or "").lower() in name.lower())
        return [_row(f"{organization}/{name}", bundled.get(name)) for name in wanted]
    except HfHubHTTPError as error:
        told = tell_failure(error, organization)
        if told is None:
            raise
        raise told from error


def _row(repository: str, folder: Path | None) -> tuple[str, str, str, str]:
    info = published(repository)
    if info is None:
        return repository, "-", "-", f"not published: python -m hub publish {folder}"
    tags = ", ".join(ref.name for ref in HfApi().list_repo_refs(repository).tags) or "-"
    if folder is None:
        state = "not bundled"
    else:
        different = compare(folder, info).of_the_model
        state = f"differs in {', '.join(different)}" if different else "the same"
    return repository, str(info.sha)[:12], tags, state


def pull(name: str, revision: str | None = None, out: Path | None = None) -> Path:
    """Copy a published snapshot into a plain folder, complete or not at all.

    Args:
        name: Repository, or an id of the catalogue.
        revision: Branch, tag or commit.
        out: Where it goes; None for a folder of the repository's name here.

    Returns:
        The folder.

    Raises:
        FileExistsError: If the folder exists.
        MissingModelError: If it is not to be had.
        SnapshotError: If it is no snapshot, or damaged.
    """
    repository = repository_of(name) if name in CATALOG else name
    out = out or Path(repository.partition("/")[2])
    source = download(repository, revision)
    manifest = read_manifest(source)
    with new_folder(out, replace=False) as partial:
        for file in (MANIFEST, *manifest.loaded):
            copyfile(source / file, partial / file)
        for file in OPTIONAL:
            if file in manifest.files:
                copyfile(_fetch(repository, file, source.name), partial / file)
                check_file(partial, file, manifest)
    return out


def _fetch(repository: str, file: str, commit: str) -> str:
    try:
        return hf_hub_download(repository, file, revision=commit)
    except EntryNotFoundError as error:
        raise MissingModelError(f"{file} of {repository} is not at {constants.ENDPOINT} ({error}).") from error
