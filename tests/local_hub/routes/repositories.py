"""Making, describing, changing and deleting repositories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.local_hub.http import Answer, Refusal, Request, route
from tests.local_hub.routes.access import at, readable, signed_in, writable
from tests.local_hub.state import Commit, Kind, Repository

if TYPE_CHECKING:
    from tests.local_hub.server import LocalHub


@route("POST", "/api/repos/create")
def create(hub: LocalHub, request: Request) -> Answer:
    account, asked = signed_in(request), request.json()
    namespace, kind = asked.get("organization") or account.name, _kind(asked)
    if not account.may_write(namespace):
        raise Refusal(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    name = f"{namespace}/{asked['name']}"
    url = f"{request.base}/{'datasets/' if kind == 'dataset' else ''}{name}"
    private = asked.get("visibility") == "private" or bool(asked.get("private"))
    with hub.lock:
        if (kind, name) in hub.repositories:
            raise Refusal(409, f"You already created this {kind} repo", url=url)
        hub.create(name, kind, private=private, author=account.name)
    return Answer({"url": url, "name": name, "id": name})


@route("DELETE", "/api/repos/delete")
def delete(hub: LocalHub, request: Request) -> Answer:
    account, asked = signed_in(request), request.json()
    namespace, kind = asked.get("organization") or account.name, _kind(asked)
    if not account.may_write(namespace):
        raise Refusal(403, "Forbidden")
    if hub.repositories.pop((kind, f"{namespace}/{asked['name']}"), None) is None:
        raise Refusal(404, "Repository not found", "RepoNotFound")
    return Answer({})


def _kind(asked: dict[str, Any]) -> Kind:
    return "dataset" if asked.get("type") == "dataset" else "model"


@route("PUT", "/api/{kinds}/{repo}/settings")
def settings(hub: LocalHub, request: Request) -> Answer:
    found, asked = writable(hub, request), request.json()
    if "visibility" in asked or "private" in asked:
        found.private = asked.get("visibility") == "private" or bool(asked.get("private"))
    if "gated" in asked:
        found.gated = bool(asked["gated"])
    return Answer({"private": found.private, "gated": found.gated})


@route("GET", "/api/{kinds}/{repo}")
def describe(hub: LocalHub, request: Request) -> Answer:
    found = readable(hub, request)
    return Answer(_facts(found, at(found, "main"), "blobs" in request.query))


@route("GET", "/api/{kinds}/{repo}/revision/{revision}")
def describe_revision(hub: LocalHub, request: Request) -> Answer:
    found = readable(hub, request)
    return Answer(_facts(found, at(found, request.parts["revision"]), "blobs" in request.query))


def _facts(found: Repository, commit: Commit, sizes: bool) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = []
    for path, file in sorted(commit.files.items()):
        lfs = {"lfs": {"sha256": file.sha256, "size": file.size, "pointerSize": 130}} if file.sha256 else {}
        siblings.append({"rfilename": path, **({"size": file.size, "blobId": file.oid, **lfs} if sizes else {})})
    return {
        "_id": "0",
        "id": found.name,
        "modelId": found.name,
        "author": found.namespace,
        "sha": commit.oid,
        "lastModified": commit.date,
        "createdAt": found.created,
        "private": found.private,
        "gated": "auto" if found.gated else False,
        "disabled": False,
        "tags": [],
        "downloads": 0,
        "likes": 0,
        "siblings": siblings,
    }


@route("GET", "/api/{kinds}/{repo}/commits/{revision}")
def history(hub: LocalHub, request: Request) -> Answer:
    found = readable(hub, request)
    listed = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": "",
            "date": commit.date,
            "authors": [{"user": commit.author, "avatar": ""}],
        }
        for commit in found.history(at(found, request.parts["revision"]))
    ]
    return Answer(listed)


@route("POST", "/api/{kinds}/{repo}/super-squash/{branch}")
def squash(hub: LocalHub, request: Request) -> Answer:
    found, account = writable(hub, request), signed_in(request)
    branch = request.parts["branch"]
    title = request.json().get("message") or "Super-squash"
    found.commit(at(found, branch).files, title, account.name, branch, None)
    return Answer({})
