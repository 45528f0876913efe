"""Requests, answers and routes, apart from what they mean."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.local_hub.faults import Fault

if TYPE_CHECKING:
    from tests.local_hub.server import LocalHub
    from tests.local_hub.state import Account

_CHUNK = 1 << 16


@dataclass
class Recorded:
    """A request as the Hub saw it. ``received`` counts the bytes of its body, also when it never became complete."""

    method: str
    path: str
    token: str | None
    received: int = 0
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def line(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True)
class Request:
    """A complete request.

    Attributes:
        parts: the named groups of the route, decoded.
        query: the first value of each key.
        headers: names in lower case.
        account: of the request; None without a token.
        base: the address under which the client reached us.
    """

    method: str
    parts: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: IO[bytes]
    account: Account | None
    base: str

    def json(self) -> Any:
        return json.loads(self.content() or b"{}")

    def content(self) -> bytes:
        self.body.seek(0)
        return self.body.read()


@dataclass(frozen=True)
class Answer:
    """What goes back. A ``body`` that is not bytes becomes JSON."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """An error answer; ``code`` goes into ``X-Error-Code``, which the client's error classes come from."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.more = status, message, code, more

    def answer(self) -> Answer:
        headers = {"X-Error-Message": self.message, **({"X-Error-Code": self.code} if self.code else {})}
        return Answer({"error": self.message, **self.more}, self.status, headers)


def window(content: bytes, request: Request, headers: Mapping[str, str]) -> Answer:
    """All of ``content``, or the bytes that the ``Range`` header asks for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range") or "")
    if match is None:
        return Answer(content, headers=headers)
    start, end = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
    if start >= len(content):
        raise Refusal(416, "Range Not Satisfiable")
    return Answer(content[start : end + 1], 206, {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"})


Handler = Callable[["LocalHub", Request], Answer]
"""What serves a route; called with the Hub and a complete request."""
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, pattern: str) -> Callable[[Handler], Handler]:
    """Register a handler. In ``pattern``, ``{name}`` stands for one part of the path and ``{name:all}`` for the rest;
    ``{kinds}`` is ``models`` or ``datasets`` and ``{repo}`` is ``ORG/NAME``."""
    pattern = pattern.replace("{kinds}", "(?P<kinds>models|datasets)").replace("{repo}", r"(?P<repo>[^/]+/[^/]+)")
    pattern = re.sub(r"\{(\w+):all\}", r"(?P<\1>.+)", pattern)
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)

    def register(handler: Handler) -> Handler:
        ROUTES.append((method, re.compile(pattern), handler))
        return handler

    return register


class _Cut(Exception):
    """The connection is gone, or shall be."""


class Connection(BaseHTTPRequestHandler):
    """One client's connection: reads, records, injects faults, dispatches, answers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms for the client's acknowledgement
    hub: LocalHub

    def log_message(self, format: str, *args: Any) -> None: ...

    def handle(self) -> None:
        with suppress(ConnectionError):  # a client that was killed
            super().handle()

    def _serve(self) -> None:
        url = urlsplit(self.path)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ").strip() or None
        seen = Recorded(
            self.command,
            unquote(url.path),
            token,
            headers={name.lower(): value for name, value in self.headers.items()},
        )
        self.hub.requests.append(seen)
        fault = self.hub.faults.take(seen.line)
        with SpooledTemporaryFile(max_size=1 << 20) as body:
            try:
                self._read(body, seen, fault)
                answer = self._answer(seen, url.path, url.query, body, fault)
                seen.status = answer.status
                self._send(answer, half=fault is not None and fault.cut == "response")
            except (_Cut, ConnectionError):
                self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _answer(self, seen: Recorded, path: str, query: str, body: IO[bytes], fault: Fault | None) -> Answer:
        try:
            if fault and fault.status:
                raise Refusal(fault.status, fault.message, fault.code)
            account = self.hub.account_of(seen.token)
            for method, pattern, handler in ROUTES:
                if seen.method in method.split("|") and (match := pattern.fullmatch(path)):
                    parts = {name: unquote(text) for name, text in match.groupdict().items() if text is not None}
                    first = {name: values[0] for name, values in parse_qs(query).items()}
                    base = f"http://{self.headers['Host']}"
                    return handler(self.hub, Request(seen.method, parts, first, seen.headers, body, account, base))
            raise Refusal(404, f"no such route: {seen.line}")
        except Refusal as refusal:
            return refusal.answer()

    def _read(self, body: IO[bytes], seen: Recorded, fault: Fault | None) -> None:
        """Spool the body; count what came, slow down or cut where a fault says so."""
        cut_at, began = None, time.monotonic()
        if fault and fault.cut == "request":
            cut_at = int(self.headers.get("Content-Length") or 2 * _CHUNK) // 2
        for chunk in self._chunks():
            body.write(chunk)
            seen.received += len(chunk)
            if fault and fault.rate:
                time.sleep(max(0.0, began + seen.received / fault.rate - time.monotonic()))
            if cut_at is not None and seen.received >= cut_at:
                raise _Cut
        if cut_at is not None:
            raise _Cut
        body.seek(0)

    def _chunks(self) -> Iterator[bytes]:
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
                yield from self._exactly(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            yield from self._exactly(int(self.headers.get("Content-Length") or 0))

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size > 0:
            chunk = self.rfile.read1(min(size, _CHUNK))
            if not chunk:
                raise _Cut
            size -= len(chunk)
            yield chunk

    def _send(self, answer: Answer, *, half: bool) -> None:
        if half and self.command == "HEAD":
            raise _Cut
        body, headers = answer.body, {"X-Request-Id": "local", **answer.headers}
        if not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self.wfile.flush()
            raise _Cut
