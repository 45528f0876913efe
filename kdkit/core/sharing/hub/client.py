"""Two additions to the Hub's client: requests that it has no public method for, and its log relayed to a reporter."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kdkit.core.base.hub import Hub, with_retries
from kdkit.core.contracts import Reporter

_RETRY = re.compile(r"Retrying in ([\d.]+)s")


def request(hub: Hub, method: str, path: str, *, accept: tuple[int, ...] = (), json: Any = None) -> Any:
    """Send an idempotent request with the token and return the HTTP library's response.

    Args:
        path: begins with a slash, quoted.
        accept: statuses that are returned rather than raised.
        json: the body.

    Raises:
        HfHubHTTPError: any other status from 400 on; the HTTP library's own errors otherwise.
    """
    from huggingface_hub import utils

    client: Any = utils  # it exports these lazily, which type checkers do not see
    headers = client.build_hf_headers(token=hub.token or False, library_name="kdkit")

    def once() -> Any:
        response = client.get_session().request(method, hub.endpoint + path, headers=headers, json=json)
        if response.status_code not in accept:
            client.hf_raise_for_status(response)
        return response

    return with_retries(once)


@contextmanager
def quiet_client(reporter: Reporter) -> Iterator[None]:
    """Hide the client's progress bars and log; report only its retries.

    Its warnings contain whole addresses, and those of object stores are signed: they grant write access.
    """
    from huggingface_hub import utils

    client: Any = utils
    logger, relay = logging.getLogger("huggingface_hub"), _Relay(reporter)
    others, propagate, bars = list(logger.handlers), logger.propagate, not client.are_progress_bars_disabled()
    logger.handlers, logger.propagate = [relay], False
    client.disable_progress_bars()
    try:
        yield
    finally:
        logger.handlers, logger.propagate = others, propagate
        if bars:
            client.enable_progress_bars()


class _Relay(logging.Handler):
    def __init__(self, reporter: Reporter) -> None:
        super().__init__(logging.WARNING)
        self.reporter = reporter

    def emit(self, record: logging.LogRecord) -> None:
        if match := _RETRY.search(record.getMessage()):
            self.reporter.say(f"the Hub is busy, or the connection broke: trying again in {float(match[1]):.0f} s")
