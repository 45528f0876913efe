"""Xet storage behind the token: what ``hf_xet`` sends and asks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tests.local_hub.http import Answer, Refusal, Request, route, window
from tests.local_hub.xet import Term, XetStorage

if TYPE_CHECKING:
    from tests.local_hub.server import LocalHub


def _storage(hub: LocalHub) -> XetStorage:
    if hub.xet is None:
        raise Refusal(404, "this Hub has no Xet storage")
    return hub.xet


@route("POST", "/xet/v1/xorbs/default/{name}")
def put_xorb(hub: LocalHub, request: Request) -> Answer:
    return Answer({"was_inserted": _storage(hub).put_xorb(request.parts["name"], request.content())})


@route("POST", "/xet/v1/shards")
def put_shard(hub: LocalHub, request: Request) -> Answer:
    try:
        _storage(hub).put_shard(request.content())
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    return Answer({"result": 1})


@route("GET", "/xet/v1/reconstructions/{name}")
def reconstruct(hub: LocalHub, request: Request) -> Answer:
    storage, name = _storage(hub), request.parts["name"]
    if name not in storage.files:
        raise Refusal(404, "no such file")
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range") or "")
    start = int(asked[1]) if asked else 0
    end = int(asked[2]) + 1 if asked and asked[2] else sum(segment.size for segment in storage.files[name])
    before, terms = storage.reconstruct(name, start, end)
    if not terms:
        raise Refusal(416, "Range Not Satisfiable")
    sources: dict[str, list[dict[str, Any]]] = {}
    for term in terms:
        source = {
            "range": _chunks(term),
            "url": f"{request.base}/xet/data/{term.segment.xorb}",
            "url_range": {"start": term.start, "end": term.end},
        }
        sources.setdefault(term.segment.xorb, []).append(source)
    listed = [
        {"hash": term.segment.xorb, "unpacked_length": term.segment.size, "range": _chunks(term)} for term in terms
    ]
    return Answer({"offset_into_first_range": before, "terms": listed, "fetch_info": sources})


def _chunks(term: Term) -> dict[str, int]:
    return {"start": term.segment.first, "end": term.segment.last}


@route("GET", "/xet/data/{name}")
def data(hub: LocalHub, request: Request) -> Answer:
    path = _storage(hub).root / request.parts["name"]
    if not path.is_file():
        raise Refusal(404, "no such xorb")
    return window(path.read_bytes(), request, {})
