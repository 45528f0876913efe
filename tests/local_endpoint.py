"""An OpenAI-compatible server on the loopback interface for tests: chat completions and injected faults.

with local_endpoint(lambda request: [("a nodule", [-0.1, -0.2])]) as endpoint:
    endpoint.faults += [429, "garbage"]     # for the next requests
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

from tests.loopback import serving

Token = Mapping[str, Any]
"""A token of the protocol: ``token``, ``logprob``, optionally ``bytes`` and ``top_logprobs``."""
Reply = Sequence[tuple[str, Sequence[float | Token]]]
"""Texts with their tokens or the tokens' log-probabilities; empty for a server without log-probabilities."""
Fault = int | Literal["garbage", "shape", "cut", "hang", "redirect"]
"""A status; invalid JSON; JSON of another shape; a broken connection; no reply in time; a redirect (307)."""


class LocalEndpoint:
    """The running server.

    Attributes:
        url: base address, for ``endpoint.json``; ``model``: its name in replies.
        requests: received bodies; ``keys``: their ``Authorization`` headers.
        faults: for the next requests, one each.
        headers: of replies with a fault that is a status.
    """

    def __init__(self, answer: Callable[[Mapping[str, Any]], Reply]) -> None:
        self.url, self.model = "", "served"
        self.answer = answer
        self.requests: list[Mapping[str, Any]] = []
        self.keys: list[str | None] = []
        self.faults: list[Fault] = []
        self.headers: dict[str, str] = {}
        self.ended = threading.Event()

    def settle(self) -> None:
        """Wait until no more requests arrive: aborted ones may still be in transit."""
        count = -1
        while count != len(self.requests):
            count = len(self.requests)
            time.sleep(1.0)


class _Connection(BaseHTTPRequestHandler):
    endpoint: LocalEndpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.endpoint.requests.append(body)
        self.endpoint.keys.append(self.headers["Authorization"])
        with suppress(IndexError):
            return self._fail(self.endpoint.faults.pop(0))
        if self.path != "/v1/chat/completions":
            return self._reply(404, b'{"error": {"message": "no such route"}}')
        choices = [_choice(text, values, body) for text, values in self.endpoint.answer(body)]
        reply = {"object": "chat.completion", "model": self.endpoint.model, "choices": choices}
        return self._reply(200, json.dumps(reply).encode())

    def _fail(self, fault: Fault) -> None:
        if fault == "cut":
            self.connection.close()
        elif fault == "hang":
            self.endpoint.ended.wait(30)
        elif fault == "garbage":
            self._reply(200, b"<html>busy</html>")
        elif fault == "shape":
            self._reply(200, b'{"choices": [{"message": {"content": null}}]}')
        elif fault == "redirect":
            self._reply(307, b"{}", {"Location": self.endpoint.url + "/elsewhere"})
        else:
            message = f"injected, and your key is {self.headers['Authorization']}"
            self._reply(fault, json.dumps({"error": {"message": message}}).encode(), self.endpoint.headers)

    def _reply(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        with suppress(OSError):  # the client may have disconnected
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Silent."""


def _choice(text: str, tokens: Sequence[float | Token], body: Mapping[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if body.get("logprobs") and tokens:
        content = [{"token": "?", "logprob": token} if isinstance(token, float) else dict(token) for token in tokens]
        if "top_logprobs" not in body:
            content = [{name: x for name, x in token.items() if name != "top_logprobs"} for token in content]
        choice["logprobs"] = {"content": content}
    return choice


@contextmanager
def local_endpoint(answer: Callable[[Mapping[str, Any]], Reply]) -> Iterator[LocalEndpoint]:
    """Run a server in a thread until the end of the block.

    Args:
        answer: body of a request -> reply; called in several threads.
    """
    endpoint = LocalEndpoint(answer)
    with serving(type("Connection", (_Connection,), {"endpoint": endpoint})) as url:
        endpoint.url = f"{url}/v1"
        try:
            yield endpoint
        finally:
            endpoint.ended.set()
