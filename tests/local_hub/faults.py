"""Faults to inject: an error status, a connection that is cut, a slow line."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import Literal

Cut = Literal["request", "response"]


@dataclass
class Fault:
    """What happens to the next ``times`` requests whose ``"METHOD /path"`` matches ``pattern``.

    Attributes:
        pattern: a regular expression, searched for.
        times: how often; counted down.
        status: answer with this instead of carrying out the request.
        message, code: of that answer; ``code`` is the ``X-Error-Code`` that the client's error classes come from.
        cut: ``request``: the connection ends while the request is read, and nothing is carried out;
            ``response``: the request is carried out, and the connection ends before the answer is complete.
        rate: read the body no faster than this, bytes a second.
    """

    pattern: str
    times: int = 1
    status: int | None = None
    message: str = "injected fault"
    code: str = ""
    cut: Cut | None = None
    rate: float | None = None


class Faults:
    """Those still to come; asked by many threads."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        self._waiting.append(fault)

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, request: str) -> Fault | None:
        """The fault for this request, if any; it then has one time less."""
        with self._lock:
            for fault in self._waiting:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None
