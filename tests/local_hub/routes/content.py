"""Reading: listings and files."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.local_hub.http import Answer, Refusal, Request, route, window
from tests.local_hub.routes.access import at, open_to, readable
from tests.local_hub.state import File, Repository

if TYPE_CHECKING:
    from tests.local_hub.server import LocalHub


@route("GET", "/api/{kinds}/{repo}/tree/{revision}")
def tree(hub: LocalHub, request: Request) -> Answer:
    return _tree(hub, request, "")


@route("GET", "/api/{kinds}/{repo}/tree/{revision}/{folder}")
def tree_of_folder(hub: LocalHub, request: Request) -> Answer:
    return _tree(hub, request, request.parts["folder"].rstrip("/") + "/")


def _tree(hub: LocalHub, request: Request, prefix: str) -> Answer:
    """Entries under ``prefix``, in pages: the ``Link`` header leads to the next one."""
    files = at(readable(hub, request), request.parts["revision"]).files
    recursive = request.query.get("recursive", "false").lower() == "true"
    entries: dict[str, dict[str, Any]] = {}
    for path, file in sorted(files.items()):
        if not path.startswith(prefix):
            continue
        *folders, _ = path[len(prefix) :].split("/")
        for depth in range(1, len(folders) + 1 if recursive else min(2, len(folders) + 1)):
            folder = prefix + "/".join(folders[:depth])
            oid = hashlib.sha1(folder.encode(), usedforsecurity=False).hexdigest()
            entries.setdefault(folder, {"type": "directory", "path": folder, "oid": oid, "size": 0})
        if recursive or not folders:
            entries[path] = entry(path, file)
    start = int(request.query.get("cursor", 0))
    page = list(entries.values())[start : start + hub.page]
    if start + hub.page >= len(entries):
        return Answer(page)
    query = urlencode({**request.query, "cursor": start + hub.page})
    path = f"/api/{request.parts['kinds']}/{request.parts['repo']}/tree/{request.parts['revision']}"
    folder = f"/{prefix.rstrip('/')}" if prefix else ""
    return Answer(page, headers={"Link": f'<{request.base}{path}{folder}?{query}>; rel="next"'})


@route("POST", "/api/{kinds}/{repo}/paths-info/{revision}")
def paths_info(hub: LocalHub, request: Request) -> Answer:
    files = at(readable(hub, request), request.parts["revision"]).files
    return Answer([entry(path, files[path]) for path in request.json()["paths"] if path in files])


def entry(path: str, file: File) -> dict[str, Any]:
    """A file as listings show it."""
    about: dict[str, Any] = {"type": "file", "path": path, "oid": file.oid, "size": file.size}
    if file.sha256:
        about["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": 130}
    if file.xet:
        about["xetHash"] = file.xet
    return about


@route("GET|HEAD", "/{repo}/resolve/{revision}/{path:all}")
def model_file(hub: LocalHub, request: Request) -> Answer:
    return _file(hub, request, readable(hub, request, "model"))


@route("GET|HEAD", "/datasets/{repo}/resolve/{revision}/{path:all}")
def dataset_file(hub: LocalHub, request: Request) -> Answer:
    return _file(hub, request, readable(hub, request, "dataset"))


def _file(hub: LocalHub, request: Request, found: Repository) -> Answer:
    commit = at(found, request.parts["revision"])
    open_to(request, found)
    file = commit.files.get(request.parts["path"])
    if file is None:
        raise Refusal(404, "Entry not found", "EntryNotFound")
    name = file.sha256 or file.oid
    headers = {
        "ETag": f'"{name}"',
        "X-Repo-Commit": commit.oid,
        "Accept-Ranges": "bytes",
        "Content-Type": "application/octet-stream",
    }
    headers |= {"X-Linked-Etag": f'"{name}"', "X-Linked-Size": str(file.size)}
    if file.xet:
        kinds = "datasets" if found.kind == "dataset" else "models"
        token = f"{request.base}/api/{kinds}/{found.name}/xet-read-token/{commit.oid}"
        headers |= {"X-Xet-Hash": file.xet, "Link": f'<{token}>; rel="xet-auth"'}
    if request.method == "HEAD":
        return Answer(b"", headers={**headers, "Content-Length": str(file.size)})
    if not hub.store.has(name):
        raise Refusal(404, "this file is in Xet storage alone", "EntryNotFound")
    return window(hub.store.path(name).read_bytes(), request, headers)
