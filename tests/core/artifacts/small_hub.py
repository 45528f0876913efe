"""A Hub on the loopback interface that the real huggingface_hub client reads from: metadata, tree, resolve."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_REPO = r"(?P<repo>[^/]+/[^/]+)"
_INFO = re.compile(rf"/api/models/{_REPO}(?:/revision/(?P<revision>[^/]+))?")
_TREE = re.compile(rf"/api/models/{_REPO}/tree/(?P<revision>[^/]+)")
_FILE = re.compile(rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


@dataclass
class Repository:
    """Commits of one repository; ``refs`` maps branches and tags to them."""

    commits: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit with exactly ``files``; its 40 hex digits."""
        content = repr((sorted(files.items()), len(self.commits)))
        name = hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()
        self.commits[name] = dict(files)
        self.refs[branch] = name
        return name


@dataclass
class SmallHub:
    """What it serves, and what was asked of it."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: bool = False

    def add(self, repo: str, files: Mapping[str, bytes], *, gated: bool = False) -> str:
        """A repository with one commit on ``main``."""
        self.repositories[repo] = Repository(gated=gated)
        return self.repositories[repo].commit(files)

    def downloads(self) -> list[str]:
        """Paths of the files that were fetched, sorted."""
        matches = (_FILE.fullmatch(line.removeprefix("GET ")) for line in self.asked)
        return sorted(match["path"] for match in matches if match)


@contextmanager
def small_hub() -> Iterator[SmallHub]:
    """A hub that runs until the end of the block."""
    hub = SmallHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: SmallHub

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        if self.hub.broken:
            return self._send(402, b"pay first")
        for pattern, handler in ((_FILE, self._file), (_TREE, self._tree), (_INFO, self._info)):
            if match := pattern.fullmatch(path):
                return self._in_repository(match.groupdict(), handler)
        return self._fail(404, "EntryNotFound")

    def _in_repository(self, asked: dict[str, str | None], handler: Any) -> None:
        repository = self.hub.repositories.get(asked["repo"] or "")
        if repository is None:
            return self._fail(401, "RepoNotFound")
        revision = asked["revision"] or "main"
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._fail(404, "RevisionNotFound")
        handler(repository, commit, asked["path"] if "path" in asked else asked["repo"])
        return None

    def _info(self, repository: Repository, commit: str, repo: str) -> None:
        files = repository.commits[commit]
        siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
        about = {"_id": "1", "id": repo, "sha": commit, "siblings": siblings, "tags": [], "downloads": 0}
        about |= {"private": False, "disabled": False, "likes": 0, "gated": "auto" if repository.gated else False}
        self._send(200, json.dumps(about).encode())

    def _tree(self, repository: Repository, commit: str, _: str) -> None:
        entries = [
            {"type": "file", "path": name, "size": len(content), "oid": _sha1(content)}
            for name, content in repository.commits[commit].items()
        ]
        self._send(200, json.dumps(entries).encode())

    def _file(self, repository: Repository, commit: str, path: str) -> None:
        content = repository.commits[commit].get(path)
        if content is None:
            return self._fail(404, "EntryNotFound")
        if repository.gated:
            return self._fail(403, "GatedRepo")
        headers = {"ETag": f'"{_sha1(content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        return self._send(200, content, headers)

    def _fail(self, status: int, code: str) -> None:
        self._send(status, b'{"error": "no"}', {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
