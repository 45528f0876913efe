"""Asking again where that can help: the Hub is busy, or the connection broke."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
WAITS = (0.5, 2.0, 5.0)
"""Seconds between attempts."""
BUSY = (408, 429, 500, 502, 503, 504)


def attempts() -> Iterator[float | None]:
    """One item for each attempt: seconds to wait before the next one, None for the last."""
    yield from WAITS
    yield None


def patiently(call: Callable[[], T]) -> T:
    """The result of ``call``, which changes nothing at the Hub when it is made twice; up to four attempts."""
    for wait in attempts():
        try:
            return call()
        except Exception as error:
            if wait is None or not may_pass(error):
                raise
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def may_pass(error: BaseException) -> bool:
    """Whether an error may be gone in a moment: the server is busy, or the connection broke."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY
    return is_connection_error(error) and not isinstance(error, OfflineModeIsEnabled)


def is_connection_error(error: BaseException | None) -> bool:
    """No answer, or half of one. Which HTTP library the Hub's client uses changes between its versions."""
    from_client = type(error).__module__.startswith(("httpx", "httpcore", "requests"))
    return isinstance(error, ConnectionError | TimeoutError) or from_client
