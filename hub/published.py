"""What the Hub holds, and how it differs from a folder."""

from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo

from learned_envs.manifest import CARD, LOADED, MANIFEST, OPTIONAL

__all__ = ["Difference", "compare", "published"]

_FILES = (MANIFEST, *LOADED, *OPTIONAL)


@dataclass(frozen=True)
class Difference:
    """How a folder differs from what is published.

    Args:
        changed: Files that the Hub lacks, or has with another content.
        removed: Files that only the Hub has.
    """

    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether there is any difference."""
        return bool(self.changed or self.removed)

    @property
    def of_the_model(self) -> tuple[str, ...]:
        """The differences that a user of the model meets: not those of the card, nor of the manifest, which notes it."""
        return tuple(name for name in (*self.changed, *self.removed) if name not in (CARD, MANIFEST))


def published(repository: str, revision: str | None = None) -> ModelInfo | None:
    """What the Hub knows of a repository and its files; None if there is no such repository.

    Raises:
        huggingface_hub.errors.HfHubHTTPError: If the Hub refuses, or has no such revision.
    """
    timeout = constants.HF_HUB_ETAG_TIMEOUT
    try:
        return HfApi().model_info(repository, revision=revision, files_metadata=True, timeout=timeout)
    except RepositoryNotFoundError:
        return None


def compare(folder: Path, info: ModelInfo | None) -> Difference:
    """How a folder differs from what is published, by checksums alone."""
    there = {sibling.rfilename: sibling for sibling in (info.siblings or [])} if info else {}
    here = [name for name in _FILES if (folder / name).is_file()]
    changed = []
    for name in here:
        content, file = (folder / name).read_bytes(), there.get(name)
        if file is None:
            changed.append(name)
        elif file.lfs is not None:
            if file.lfs.sha256 != sha256(content).hexdigest():
                changed.append(name)
        elif file.blob_id != sha1(b"blob %d\0" % len(content) + content).hexdigest():
            changed.append(name)
    return Difference(tuple(changed), tuple(name for name in _FILES if name in there and name not in here))
