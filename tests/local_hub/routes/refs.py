"""Branches and tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.local_hub.http import Answer, Refusal, Request, route
from tests.local_hub.routes.access import at, readable, writable

if TYPE_CHECKING:
    from tests.local_hub.server import LocalHub


@route("GET", "/api/{kinds}/{repo}/refs")
def refs(hub: LocalHub, request: Request) -> Answer:
    found = readable(hub, request)

    def about(name: str, ref: str, commit: str) -> dict[str, Any]:
        return {"name": name, "ref": ref, "targetCommit": commit}

    branches = {name: oid for name, oid in found.refs.items() if not name.startswith("refs/")}
    pulls = {name: oid for name, oid in found.refs.items() if name.startswith("refs/pr/")}
    listed: dict[str, Any] = {
        "branches": [about(name, f"refs/heads/{name}", oid) for name, oid in branches.items()],
        "tags": [about(name, f"refs/tags/{name}", oid) for name, oid in found.tags.items()],
        "converts": [],
    }
    if request.query.get("include_prs"):
        listed["pullRequests"] = [about(name, name, oid) for name, oid in pulls.items()]
    return Answer(listed)


@route("POST", "/api/{kinds}/{repo}/tag/{revision}")
def tag(hub: LocalHub, request: Request) -> Answer:
    found, name = writable(hub, request), request.json()["tag"]
    if name in found.tags:
        raise Refusal(409, f"Tag {name} already exists")
    found.tags[name] = at(found, request.parts["revision"]).oid
    return Answer({})


@route("DELETE", "/api/{kinds}/{repo}/tag/{name}")
def delete_tag(hub: LocalHub, request: Request) -> Answer:
    if writable(hub, request).tags.pop(request.parts["name"], None) is None:
        raise Refusal(404, "no such tag", "RevisionNotFound")
    return Answer({})


@route("POST", "/api/{kinds}/{repo}/branch/{name}")
def branch(hub: LocalHub, request: Request) -> Answer:
    found, name = writable(hub, request), request.parts["name"]
    if name in found.refs:
        raise Refusal(409, f"Reference already exists: refs/heads/{name}")
    found.refs[name] = at(found, request.json().get("startingPoint") or "main").oid
    return Answer({})
