"""What a Hub keeps on disk: repositories with commits, branches and tags, and the contents of their files."""

import json
import threading
from dataclasses import asdict, dataclass, field
from hashlib import sha1, sha256
from pathlib import Path

__all__ = ["Commit", "File", "Repository", "Store", "is_lfs"]


def is_lfs(path: str) -> bool:
    """Whether a file is kept by Git LFS."""
    return path.endswith((".safetensors", ".gif", ".bin"))


@dataclass
class File:
    """A file of a commit: the Git object, its length, and, under LFS, the SHA-256."""

    oid: str
    size: int
    sha256: str | None = None

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


@dataclass
class Commit:
    """A commit: what it says, and all files of the tree."""

    parent: str | None
    title: str
    message: str
    files: dict[str, File]

    @property
    def oid(self) -> str:
        return sha1(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass
class Repository:
    """A repository: its commits by hash, and what its branches and tags stand for."""

    id: str
    private: bool = False
    gated: bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    tag_messages: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> str | None:
        """Commit that a branch, a tag or a hash stands for."""
        known = {**self.tags, **self.branches}
        return known.get(revision) or (revision if revision in self.commits else None)


class Store:
    """Repositories and contents below a folder. What is there is found again by another store.

    Args:
        root: The folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = threading.RLock()
        for name in ("contents", "repositories"):
            (root / name).mkdir(parents=True, exist_ok=True)

    def get(self, id: str) -> Repository | None:
        path = self._path(id)
        if not path.is_file():
            return None
        content = json.loads(path.read_text())
        for commit in content["commits"].values():
            commit["files"] = {name: File(**file) for name, file in commit["files"].items()}
        content["commits"] = {oid: Commit(**commit) for oid, commit in content["commits"].items()}
        return Repository(**content)

    def put(self, repository: Repository) -> None:
        partial = self._path(repository.id).with_suffix(".partial")
        partial.write_text(json.dumps(asdict(repository)))
        partial.replace(self._path(repository.id))

    def delete(self, id: str) -> None:
        self._path(id).unlink()

    def list(self) -> list[Repository]:
        found = [self.get(path.stem.replace("--", "/")) for path in sorted((self.root / "repositories").glob("*.json"))]
        return [repository for repository in found if repository]

    def create(self, id: str, private: bool = False, gated: bool = False) -> Repository:
        """An empty repository, whose first commit holds what the Hub puts there itself."""
        repository = Repository(id, private, gated)
        attributes = self.add(".gitattributes", b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n")
        self._commit(repository, Commit(None, "initial commit", "", {".gitattributes": attributes}))
        return repository

    def add(self, path: str, content: bytes) -> File:
        """Keep a content, under LFS or not as its name asks."""
        digest = sha256(content).hexdigest()
        lfs = is_lfs(path)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n".encode()
        git = pointer if lfs else content
        file = File(sha1(b"blob %d\0" % len(git) + git).hexdigest(), len(content), digest if lfs else None)
        self.content_path(file.etag).write_bytes(content)
        return file

    def lfs_file(self, digest: str, size: int) -> File:
        """A file whose content was uploaded by itself."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()
        return File(sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest(), size, digest)

    def content_path(self, etag: str) -> Path:
        return self.root / "contents" / etag

    def commit(
        self,
        id: str,
        changes: dict[str, File | None],
        title: str = "change",
        message: str = "",
        branch: str = "main",
        tag: str | None = None,
    ) -> str:
        """Add files to a branch, or remove those that are None."""
        with self.lock:
            repository = self.get(id) or self.create(id)
            parent = repository.branches.get(branch, repository.branches["main"])
            files = {**repository.commits[parent].files, **changes}
            kept = {name: file for name, file in files.items() if file is not None}
            return self._commit(repository, Commit(parent, title, message, kept), branch, tag)

    def upload(self, id: str, folder: Path, tag: str | None = None, title: str = "upload") -> str:
        """Commit the files of a folder, as a client would."""
        contents = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        return self.commit(id, {name: self.add(name, content) for name, content in contents.items()}, title, tag=tag)

    def _commit(self, repository: Repository, commit: Commit, branch: str = "main", tag: str | None = None) -> str:
        repository.commits[commit.oid] = commit
        repository.branches[branch] = commit.oid
        if tag:
            repository.tags[tag] = commit.oid
        self.put(repository)
        return commit.oid

    def _path(self, id: str) -> Path:
        return self.root / "repositories" / f"{id.replace('/', '--')}.json"
