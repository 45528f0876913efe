"""Pull requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.local_hub.http import Answer, Refusal, Request, route
from tests.local_hub.routes.access import at, readable, signed_in, writable
from tests.local_hub.state import PullRequest, Repository

if TYPE_CHECKING:
    from tests.local_hub.server import LocalHub


@route("POST", "/api/{kinds}/{repo}/discussions")
def open_one(hub: LocalHub, request: Request) -> Answer:
    found, account = readable(hub, request), signed_in(request)
    opened = found.open_pull_request(request.json()["title"], account.name, at(found, "main"))
    return Answer({"num": opened.number, "pullRequest": True})


@route("GET", "/api/{kinds}/{repo}/discussions")
def listed(hub: LocalHub, request: Request) -> Answer:
    found = readable(hub, request)
    about = [_about(found, pull) for pull in found.pull_requests]
    return Answer({"discussions": about, "count": len(about), "start": 0})


@route("GET", r"/api/{kinds}/{repo}/discussions/(?P<number>\d+)")
def one(hub: LocalHub, request: Request) -> Answer:
    found = readable(hub, request)
    changes = {"base": "refs/heads/main", "mergeCommitId": None}
    more: dict[str, Any] = {"events": [], "filesWithConflicts": [], "changes": changes, "diffUrl": None}
    return Answer({**_about(found, _pull(found, request)), **more})


@route("POST", r"/api/{kinds}/{repo}/discussions/(?P<number>\d+)/merge")
def merge(hub: LocalHub, request: Request) -> Answer:
    found = writable(hub, request)
    pull = _pull(found, request)
    found.refs["main"], pull.status = found.refs[f"refs/pr/{pull.number}"], "merged"
    return Answer({})


def _pull(found: Repository, request: Request) -> PullRequest:
    number = int(request.parts["number"])
    if not 1 <= number <= len(found.pull_requests):
        raise Refusal(404, "Discussion not found", "EntryNotFound")
    return found.pull_requests[number - 1]


def _about(found: Repository, pull: PullRequest) -> dict[str, Any]:
    return {
        "num": pull.number,
        "title": pull.title,
        "status": pull.status,
        "createdAt": pull.created,
        "isPullRequest": True,
        "author": {"name": pull.author},
        "repo": {"name": found.name, "type": found.kind},
    }
