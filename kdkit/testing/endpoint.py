"""An OpenAI-compatible server of our own on the loopback interface, for tests: chat completions, and faults.

with local_endpoint(lambda request: [("a nodule", [-0.1, -0.2])]) as endpoint:
    endpoint.faults += [429, "garbage"]     # of the next requests
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

from kdkit.testing.loopback import serving

Token = Mapping[str, Any]
"""A token as the protocol has it: ``token``, ``logprob``, perhaps ``bytes`` and ``top_logprobs``."""
Reply = Sequence[tuple[str, Sequence[float | Token]]]
"""Texts with their tokens, or these tokens' log-probabilities; none for a server that tells nothing about them."""
Fault = int | Literal["garbage", "shape", "cut", "hang", "redirect"]
"""A status; no JSON; JSON of another shape; a connection that breaks; no reply in time; a status 307 elsewhere."""


class LocalEndpoint:
    """The running server.

    Attributes:
        url: base address, for ``endpoint.json``.
        requests: bodies that arrived; ``keys``: their ``Authorization`` headers.
        faults: those still to come, one for each request.
        headers: sent along with every fault that is a status.
    """

    def __init__(self, answer: Callable[[Mapping[str, Any]], Reply]) -> None:
        self.url = ""
        self.answer = answer
        self.requests: list[Mapping[str, Any]] = []
        self.keys: list[str | None] = []
        self.faults: list[Fault] = []
        self.headers: dict[str, str] = {}
        self.ended = threading.Event()

    def settle(self) -> None:
        """Come back when no request arrives any more: those that a client broke off may still be on their way."""
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
        return self._reply(200, json.dumps({"object": "chat.completion", "choices": choices}).encode())

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
            said = f"injected, and your key is {self.headers['Authorization']}"
            self._reply(fault, json.dumps({"error": {"message": said}}).encode(), self.endpoint.headers)

    def _reply(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        with suppress(OSError):  # who asked may have left
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
        told = [{"token": "?", "logprob": token} if isinstance(token, float) else dict(token) for token in tokens]
        if "top_logprobs" not in body:
            told = [{name: x for name, x in token.items() if name != "top_logprobs"} for token in told]
        choice["logprobs"] = {"content": told}
    return choice


@contextmanager
def local_endpoint(answer: Callable[[Mapping[str, Any]], Reply]) -> Iterator[LocalEndpoint]:
    """A server that runs in a thread until the end of the block.

    Args:
        answer: the body of a request -> what is answered; called in several threads.
    """
    endpoint = LocalEndpoint(answer)
    with serving(type("Connection", (_Connection,), {"endpoint": endpoint})) as url:
        endpoint.url = f"{url}/v1"
        try:
            yield endpoint
        finally:
            endpoint.ended.set()
