"""Large files: the LFS protocol, and the token that opens Xet storage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tests.local_hub.http import Answer, Refusal, Request, route
from tests.local_hub.routes.access import at, readable, signed_in, writable
from tests.local_hub.state import Kind
from tests.local_hub.store import WrongContent

if TYPE_CHECKING:
    from tests.local_hub.server import LocalHub


@route("POST", "/{repo}.git/info/lfs/objects/batch")
def model_batch(hub: LocalHub, request: Request) -> Answer:
    return _batch(hub, request, "model")


@route("POST", "/datasets/{repo}.git/info/lfs/objects/batch")
def dataset_batch(hub: LocalHub, request: Request) -> Answer:
    return _batch(hub, request, "dataset")


def _batch(hub: LocalHub, request: Request, kind: Kind) -> Answer:
    """Where to send each object; nothing for those that are here already."""
    wanted, objects = request.json(), list[dict[str, Any]]()
    ref = wanted.get("ref", {}).get("name", "refs/pr/")
    if ref.startswith("refs/pr/"):  # also without a ref: then a pull request is about to be opened
        signed_in(request)
        readable(hub, request, kind)
    else:
        writable(hub, request, kind)
    for asked in wanted["objects"]:
        about: dict[str, Any] = {"oid": asked["oid"], "size": asked["size"]}
        if not hub.store.has(asked["oid"]):
            about["actions"] = {
                "upload": {"href": f"{request.base}/lfs/{asked['oid']}"},
                "verify": {"href": f"{request.base}/lfs/verify"},
            }
        objects.append(about)
    return Answer({"transfer": "basic", "objects": objects}, headers={"Content-Type": "application/vnd.git-lfs+json"})


@route("PUT", "/lfs/{sha256}")
def put(hub: LocalHub, request: Request) -> Answer:
    request.body.seek(0)
    try:
        hub.store.put_large(request.parts["sha256"], request.body)  # type: ignore[arg-type]  # IO[bytes] reads alike
    except WrongContent as error:
        raise Refusal(400, str(error)) from None
    return Answer(headers={"ETag": f'"{request.parts["sha256"]}"'})


@route("POST", "/lfs/verify")
def verify(hub: LocalHub, request: Request) -> Answer:
    asked = request.json()
    if not hub.store.has(asked["oid"]) or hub.store.size(asked["oid"]) != asked["size"]:
        raise Refusal(404, "this object never arrived")
    return Answer({})


@route("GET", "/api/{kinds}/{repo}/xet-read-token/{revision}")
def read_token(hub: LocalHub, request: Request) -> Answer:
    at(readable(hub, request), request.parts["revision"])
    return _token(hub, request)


@route("GET", "/api/{kinds}/{repo}/xet-write-token/{revision}")
def write_token(hub: LocalHub, request: Request) -> Answer:
    if request.query.get("create_pr"):
        readable(hub, request)
    else:
        at(writable(hub, request), request.parts["revision"])
    return _token(hub, request)


def _token(hub: LocalHub, request: Request) -> Answer:
    """The client asks for this in two ways: hf_xet reads the body, Python the headers."""
    if hub.xet is None:
        raise Refusal(404, "this Hub has no Xet storage")
    address, token, until = f"{request.base}/xet", hub.xet.token, int(time.time()) + 3600
    return Answer(
        {"casUrl": address, "accessToken": token, "exp": until},
        headers={"X-Xet-Cas-Url": address, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(until)},
    )
