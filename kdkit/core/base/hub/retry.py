"""Retries for requests that fail while the Hub is busy or the connection breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")
WAITS = (0.5, 2.0, 5.0)
"""Seconds between attempts."""
BUSY = (408, 429, 500, 502, 503, 504)


def attempts() -> Iterator[float | None]:
    """One item per attempt: seconds to wait before the next one, None for the last."""
    yield from WAITS
    yield None


def with_retries(call: Callable[[], T]) -> T:
    """The result of ``call``, which must be idempotent; up to four attempts."""
    for wait in attempts():
        try:
            return call()
        except Exception as error:
            if wait is None or not is_transient(error):
                raise
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def is_transient(error: BaseException) -> bool:
    """Whether a retry can help: the server is busy, or the connection broke."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY
    return is_connection_error(error) and not isinstance(error, OfflineModeIsEnabled)


def is_connection_error(error: BaseException | None) -> bool:
    """No answer, or a truncated one. The HTTP library differs between versions of the Hub's client."""
    from_client = type(error).__module__.startswith(("httpx", "httpcore", "requests"))
    return isinstance(error, ConnectionError | TimeoutError) or from_client
