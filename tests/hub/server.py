"""A Hub on loopback: the part of its protocol that huggingface_hub speaks about models, over a store on disk, with faults.

It is driven through the real client only. Faults are injected by kind, method and a part of the path.
"""

import base64
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.hub.store import Commit, File, Repository, Store, is_lfs

__all__ = ["Fault", "Hub", "Request"]

FaultKind = Literal["status", "cut", "drop", "slow", "corrupt", "wrong etag"]


@dataclass
class Fault:
    """Something that goes wrong.

    Args:
        kind: ``"status"`` answers with one, ``"cut"`` breaks off in the middle of a body, ``"drop"`` before any answer,
            ``"slow"`` waits, ``"corrupt"`` changes bytes, ``"wrong etag"`` names another content.
        path: Part of the path of the requests that are hit.
        method: Their method; empty for any.
        times: How many of them.
        value: The status, the seconds, or the ETag.
    """

    kind: FaultKind
    path: str = ""
    method: str = ""
    times: int = 10**9
    value: Any = None


@dataclass(frozen=True)
class Request:
    """A request that was answered."""

    method: str
    path: str
    status: int
    token: str | None


@dataclass(frozen=True)
class User:
    """Who a token belongs to, and whether it may write."""

    name: str
    orgs: tuple[str, ...] = ()
    writes: bool = True

    def owns(self, id: str) -> bool:
        return id.partition("/")[0] in (self.name, *self.orgs)


@dataclass
class Hub:
    """The server.

    Args:
        root: Folder of its store.
        part_size: Length from which on LFS uploads come in parts.
    """

    root: Path
    part_size: int = 2**30
    tokens: dict[str, User] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Store(self.root)
        self.lock = threading.Lock()
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self._server = _Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop: whoever connects from now on is refused, and connections that are open break."""
        self.inject("drop")
        self._server.shutdown()
        self._server.server_close()

    def inject(self, kind: FaultKind, path: str = "", method: str = "", times: int = 10**9, value: Any = None) -> None:
        """Let something go wrong; see `Fault`."""
        self.faults.insert(0, Fault(kind, path, method, times, value))

    def count(self, method: str, path: str) -> int:
        """How many requests of a method, to a path that ends so, were answered with content."""
        return sum(r.method == method and r.path.endswith(path) and r.status < 300 for r in self.requests)

    def take_fault(self, method: str, path: str) -> Fault | None:
        """The next fault for a request; HEAD is hit where GET is, unless the method is named."""
        with self.lock:
            for fault in self.faults:
                if fault.path in path and fault.method in ("", method) and fault.times > 0:
                    fault.times -= 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""


class _Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.headers = status, {**(headers or {})}
        if code:
            self.headers["X-Error-Code"] = code
        self.headers["X-Error-Message"] = message or code


_ID = r"(?P<id>[^/]+/[^/]+)"
_ROUTES: list[tuple[str, str, str]] = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("DELETE", r"/api/repos/delete", "delete"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("GET", r"/api/models", "list"),
    ("GET", rf"/api/models/{_ID}", "info"),
    ("GET", rf"/api/models/{_ID}/revision/(?P<rev>[^/]+)", "info"),
    ("POST", rf"/api/models/{_ID}/preupload/(?P<rev>[^/]+)", "preupload"),
    ("POST", rf"/api/models/{_ID}/commit/(?P<rev>[^/]+)", "commit"),
    ("GET", rf"/api/models/{_ID}/tree/(?P<rev>[^/]+)", "tree"),
    ("POST", rf"/api/models/{_ID}/paths-info/(?P<rev>[^/]+)", "paths"),
    ("GET", rf"/api/models/{_ID}/refs", "refs"),
    ("GET", rf"/api/models/{_ID}/commits/(?P<rev>[^/]+)", "commits"),
    ("POST", rf"/api/models/{_ID}/tag/(?P<rev>[^/]+)", "tag"),
    ("DELETE", rf"/api/models/{_ID}/tag/(?P<rev>[^/]+)", "untag"),
    ("POST", rf"/api/models/{_ID}/branch/(?P<rev>[^/]+)", "branch"),
    ("POST", rf"/{_ID}\.git/info/lfs/objects/batch", "batch"),
    ("PUT", r"/lfs/(?P<oid>[0-9a-f]{64})(?:/(?P<part>\d+))?", "put"),
    ("POST", r"/lfs/(?P<oid>[0-9a-f]{64})/(?P<what>verify|complete)", "finish"),
    ("GET", rf"/{_ID}/resolve/(?P<rev>[^/]+)/(?P<path>.+)", "resolve"),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    # How requests are answered

    def _serve(self) -> None:
        self._body = self._read_body()
        self._fault = self.hub.take_fault(self.command, self.path)
        if self._fault and self._fault.kind == "slow":
            time.sleep(self._fault.value)
        if self._fault and self._fault.kind == "drop":
            return self._hang_up()
        try:
            if self._fault and self._fault.kind == "status":
                raise _Refusal(self._fault.value, message="injected", headers={"Retry-After": "0"})
            self._route()
        except _Refusal as refusal:
            self._send(refusal.status, json.dumps({"error": str(refusal)}).encode(), refusal.headers)

    def _route(self) -> None:
        url = urlsplit(self.path)
        self._query = parse_qs(url.query)
        method = "GET" if self.command == "HEAD" else self.command
        for verb, pattern, name in _ROUTES:
            match = re.fullmatch(pattern, url.path)
            if match and verb == method:
                found = {key: unquote(value) for key, value in match.groupdict().items() if value is not None}
                getattr(self, f"_do_{name}")(**found)
                return
        raise _Refusal(404, message="no such endpoint")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _json(self, content: Any, status: int = 200) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.hub.requests.append(Request(self.command, urlsplit(self.path).path, status, self._token()))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self._fault and self._fault.kind == "cut":
            self.wfile.write(body[: len(body) // 2])
            return self._hang_up()
        self.wfile.write(body)

    def _hang_up(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)

    # Who asks, and for what

    def _token(self) -> str | None:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        return token if scheme == "Bearer" else None

    def _user(self) -> User | None:
        token = self._token()
        if token is not None and token not in self.hub.tokens:
            raise _Refusal(401, message="Invalid credentials in Authorization header")
        return self.hub.tokens.get(token) if token else None

    def _repository(self, id: str) -> Repository:
        """A repository that whoever asks may know of."""
        user, repository = self._user(), self.hub.store.get(id)
        if repository is None or (repository.private and not (user and user.owns(id))):
            raise _Refusal(404 if user else 401, "RepoNotFound", "Repository not found")
        return repository

    def _commit_of(self, repository: Repository, revision: str) -> tuple[str, Commit]:
        oid = repository.resolve(revision)
        if oid is None:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid, repository.commits[oid]

    def _may_write(self, id: str) -> None:
        user = self._user()
        if user is None:
            raise _Refusal(401, message="Invalid username or password.")
        if not (user.writes and user.owns(id)):
            raise _Refusal(403, message="You don't have the rights to do that.")

    # Endpoints

    def _do_whoami(self) -> None:
        user = self._user()
        if user is None:
            raise _Refusal(401, message="Invalid username or password.")
        self._json({"type": "user", "name": user.name, "orgs": [{"name": org} for org in user.orgs], "auth": {}})

    def _do_create(self) -> None:
        asked = json.loads(self._body)
        user = self._user()
        id = f"{asked.get('organization') or (user.name if user else '')}/{asked['name']}"
        self._may_write(id)
        with self.hub.store.lock:
            url = {"url": f"{self.hub.endpoint}/{id}", "name": id, "id": id}
            if self.hub.store.get(id):
                return self._json({**url, "error": "You already created this model repo"}, 409)
            self.hub.store.create(id, bool(asked.get("private")) or asked.get("visibility") == "private")
            self._json(url)

    def _do_delete(self) -> None:
        asked = json.loads(self._body)
        id = f"{asked['organization']}/{asked['name']}"
        self._may_write(id)
        self._repository(id)
        self.hub.store.delete(id)
        self._json({})

    def _do_validate(self) -> None:
        self._json({"errors": [], "warnings": []})

    def _do_list(self) -> None:
        user = self._user()
        infos = []
        for repository in self.hub.store.list():
            if repository.private and not (user and user.owns(repository.id)):
                continue
            info = self._info(repository, repository.branches["main"])
            author, search = (self._query.get(name, [""])[0] for name in ("author", "search"))
            fits = all(wanted in info["tags"] for wanted in self._query.get("filter", []))
            if fits and author in ("", repository.id.partition("/")[0]) and search.lower() in repository.id.lower():
                infos.append(info)
        self._json(infos)

    def _do_info(self, id: str, rev: str = "main") -> None:
        repository = self._repository(id)
        self._json(self._info(repository, self._commit_of(repository, rev)[0]))

    def _info(self, repository: Repository, oid: str) -> dict[str, Any]:
        files = repository.commits[oid].files
        card = self._card(files)
        siblings = [
            {"rfilename": name, "size": file.size, "blobId": file.oid, **_lfs(file)} for name, file in files.items()
        ]
        tags = [*card.get("tags", []), *filter(None, [card.get("library_name")])]
        known = {"id": repository.id, "sha": oid, "private": repository.private, "gated": repository.gated and "auto"}
        return {**known, "siblings": siblings, "tags": tags, "library_name": card.get("library_name"), "cardData": card}

    def _card(self, files: dict[str, File]) -> dict[str, Any]:
        if "README.md" not in files:
            return {}
        parts = self.hub.store.content_path(files["README.md"].etag).read_text(errors="replace").split("---\n")
        return yaml.safe_load(parts[1]) if len(parts) > 2 else {}

    def _do_preupload(self, id: str, rev: str) -> None:
        repository = self._repository(id)
        self._may_write(id)
        there = self._commit_of(repository, rev)[1].files
        answer = []
        for file in json.loads(self._body)["files"]:
            mode = "lfs" if is_lfs(file["path"]) else "regular"
            known = {"oid": there[file["path"]].etag} if file["path"] in there else {}
            answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known})
        self._json({"files": answer})

    def _do_commit(self, id: str, rev: str) -> None:
        repository = self._repository(id)
        self._may_write(id)
        store = self.hub.store
        changes: dict[str, File | None] = {}
        header: dict[str, Any] = {}
        for line in self._body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                header = value
            elif key == "file":
                changes[value["path"]] = store.add(value["path"], base64.b64decode(value["content"]))
            elif key == "lfsFile":
                if not store.content_path(value["oid"]).is_file():
                    raise _Refusal(400, message="a file was never uploaded")
                changes[value["path"]] = store.lfs_file(value["oid"], value["size"])
            elif key == "deletedFile":
                changes[value["path"]] = None
        if header.get("parentCommit", repository.branches[rev]) != repository.branches[rev]:
            raise _Refusal(412, message="A commit has happened since. Please refresh and try again.")
        oid = store.commit(id, changes, header["summary"], header.get("description", ""), rev)
        self._json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.endpoint}/{id}/commit/{oid}"})

    def _do_tree(self, id: str, rev: str) -> None:
        repository = self._repository(id)
        self._json([_entry(*item) for item in self._commit_of(repository, rev)[1].files.items()])

    def _do_paths(self, id: str, rev: str) -> None:
        repository = self._repository(id)
        files = self._commit_of(repository, rev)[1].files
        asked = parse_qs(self._body.decode()).get("paths", [])
        self._json([_entry(path, files[path]) for path in asked if path in files])

    def _do_refs(self, id: str) -> None:
        repository = self._repository(id)
        kinds = {"branches": ("heads", repository.branches), "tags": ("tags", repository.tags)}
        answer: dict[str, Any] = {
            kind: [{"name": name, "ref": f"refs/{word}/{name}", "targetCommit": oid} for name, oid in known.items()]
            for kind, (word, known) in kinds.items()
        }
        self._json({**answer, "converts": []})

    def _do_commits(self, id: str, rev: str) -> None:
        repository = self._repository(id)
        oid: str | None = self._commit_of(repository, rev)[0]
        answer = []
        while oid:
            commit = repository.commits[oid]
            date = {"date": "2026-01-01T00:00:00.000Z", "authors": [{"user": "someone"}]}
            answer.append({"id": oid, "title": commit.title, "message": commit.message, **date})
            oid = commit.parent
        self._json(answer)

    def _do_tag(self, id: str, rev: str) -> None:
        repository = self._repository(id)
        self._may_write(id)
        asked = json.loads(self._body)
        if asked["tag"] in repository.tags:
            raise _Refusal(409, message="Tag reference exists already")
        repository.tags[asked["tag"]] = self._commit_of(repository, rev)[0]
        repository.tag_messages[asked["tag"]] = asked.get("message", "")
        self.hub.store.put(repository)
        self._json({})

    def _do_untag(self, id: str, rev: str) -> None:
        repository = self._repository(id)
        self._may_write(id)
        repository.tags.pop(rev, None)
        self.hub.store.put(repository)
        self._json({})

    def _do_branch(self, id: str, rev: str) -> None:
        repository = self._repository(id)
        self._may_write(id)
        start = json.loads(self._body or b"{}").get("startingPoint", "main")
        repository.branches[rev] = self._commit_of(repository, start)[0]
        self.hub.store.put(repository)
        self._json({})

    def _do_batch(self, id: str) -> None:
        self._may_write(id)
        objects = []
        for asked in json.loads(self._body)["objects"]:
            objects.append(dict(asked))
            if not self.hub.store.content_path(asked["oid"]).is_file():
                objects[-1]["actions"] = self._upload_actions(asked["oid"], asked["size"])
        self._json({"transfer": "multipart", "objects": objects})

    def _upload_actions(self, oid: str, size: int) -> dict[str, Any]:
        place = f"{self.hub.endpoint}/lfs/{oid}"
        verify = {"href": f"{place}/verify", "header": {}}
        parts = -(-size // self.hub.part_size)
        if parts <= 1:
            return {"upload": {"href": place, "header": {}}, "verify": verify}
        urls = {str(part + 1): f"{place}/{part + 1}" for part in range(parts)}
        header = {"chunk_size": str(self.hub.part_size), **urls}
        return {"upload": {"href": f"{place}/complete", "header": header}, "verify": verify}

    def _do_put(self, oid: str, part: str = "") -> None:
        path = self.hub.store.content_path(oid)
        (path.with_name(f"{oid}.{part}") if part else path).write_bytes(self._body)
        self._send(200, b"", {"ETag": f'"{oid[:8]}-{part}"'})

    def _do_finish(self, oid: str, what: str) -> None:
        path = self.hub.store.content_path(oid)
        if what == "complete":
            count = len(json.loads(self._body)["parts"])
            path.write_bytes(b"".join(path.with_name(f"{oid}.{part + 1}").read_bytes() for part in range(count)))
        self._json({})

    def _do_resolve(self, id: str, rev: str, path: str) -> None:
        repository = self._repository(id)
        if repository.gated and not (self._user() and self._user().owns(id)):  # type: ignore[union-attr]
            raise _Refusal(403 if self._user() else 401, "GatedRepo", "Access to this model is restricted.")
        oid, commit = self._commit_of(repository, rev)
        if path not in commit.files:
            raise _Refusal(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": oid})
        file = commit.files[path]
        etag = self._fault.value if self._fault and self._fault.kind == "wrong etag" else file.etag
        headers = {"X-Repo-Commit": oid, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        if file.sha256:
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(file.size)}
        body = self.hub.store.content_path(file.etag).read_bytes()
        if self._fault and self._fault.kind == "corrupt":
            body = _flip(body)
        status = 200
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), int(wanted[2] or len(body) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            status, body = 206, body[first : last + 1]
        self._send(status, body, headers)


def _lfs(file: File) -> dict[str, Any]:
    return {"lfs": {"size": file.size, "sha256": file.sha256, "pointerSize": 130}} if file.sha256 else {}


def _entry(path: str, file: File) -> dict[str, Any]:
    lfs = {"lfs": {"oid": file.sha256, "size": file.size, "pointerSize": 130}} if file.sha256 else {}
    return {"type": "file", "path": path, "size": file.size, "oid": file.oid, **lfs}


def _flip(body: bytes) -> bytes:
    """The same length, other bytes."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 0xFF]) + body[middle + 1 :] if body else body
