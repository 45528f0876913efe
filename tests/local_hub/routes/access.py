"""Who may do what: what every other route asks first; and the routes about accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.local_hub.http import Answer, Refusal, Request, route
from tests.local_hub.state import Account, Commit, Kind, Repository

if TYPE_CHECKING:
    from tests.local_hub.server import LocalHub


def kind_of(request: Request) -> Kind:
    """From ``models`` or ``datasets`` in the path."""
    return "dataset" if request.parts.get("kinds", "models").startswith("dataset") else "model"


def signed_in(request: Request) -> Account:
    """The account. Raises: Refusal without one."""
    if request.account is None:
        raise Refusal(401, "Invalid username or password.")
    return request.account


def readable(hub: LocalHub, request: Request, kind: Kind | None = None) -> Repository:
    """The repository, if the account may know that it exists. As on the Hub, a private one looks like none."""
    found = hub.repositories.get((kind or kind_of(request), request.parts["repo"]))
    account = request.account
    if found is None or (found.private and (account is None or not account.may_read(found.namespace))):
        # A client without a token gets 401: signing in may help.
        raise Refusal(401 if account is None else 404, "Repository not found", "RepoNotFound")
    return found


def writable(hub: LocalHub, request: Request, kind: Kind | None = None) -> Repository:
    """The repository, if the account may write to it."""
    found = readable(hub, request, kind)
    if not signed_in(request).may_write(found.namespace):
        raise Refusal(403, "Forbidden: you don't have write access to this repository with this token")
    return found


def open_to(request: Request, found: Repository) -> None:
    """Raises: Refusal when the files are gated and the account has not accepted the terms."""
    name = request.account.name if request.account else ""
    if (
        found.gated
        and name not in found.granted
        and not (request.account and request.account.may_read(found.namespace))
    ):
        raise Refusal(403 if name else 401, f"Access to model {found.name} is restricted.", "GatedRepo")


def at(found: Repository, revision: str) -> Commit:
    """The commit that a revision stands for."""
    commit = found.resolve(revision)
    if commit is None:
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit


@route("GET", "/api/whoami-v2")
def whoami(_: LocalHub, request: Request) -> Answer:
    account = signed_in(request)
    organizations = [{"name": name, "roleInOrg": role} for name, role in account.organizations.items()]
    token = {"displayName": "local", "role": account.role}
    return Answer(
        {
            "type": "user",
            "id": account.name,
            "name": account.name,
            "fullname": account.name,
            "isPro": False,
            "orgs": organizations,
            "auth": {"type": "access_token", "accessToken": token},
        }
    )


@route("GET", "/api/{kinds}/{repo}/auth-check")
def may_read(hub: LocalHub, request: Request) -> Answer:
    open_to(request, readable(hub, request))
    return Answer({"ok": True})


@route("GET", "/api/{kinds}/{repo}/auth-check/write")
def may_write(hub: LocalHub, request: Request) -> Answer:
    writable(hub, request)
    return Answer({"ok": True})
