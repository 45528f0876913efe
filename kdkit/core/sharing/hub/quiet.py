"""The client's own words and bars on stderr, turned into ours."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kdkit.core.contracts import Reporter

_RETRY = re.compile(r"Retrying in ([\d.]+)s")


@contextmanager
def quiet(report: Reporter) -> Iterator[None]:
    """No progress bars of the client, and of its warnings only that it tries again.

    Its warnings hold whole addresses, and those of object stores are signed: who has them may write.
    """
    from huggingface_hub import utils

    client: Any = utils  # it exports these lazily, which type checkers do not see
    logger, relay = logging.getLogger("huggingface_hub"), _Relay(report)
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
    def __init__(self, report: Reporter) -> None:
        super().__init__(logging.WARNING)
        self.report = report

    def emit(self, record: logging.LogRecord) -> None:
        if match := _RETRY.search(record.getMessage()):
            self.report.say(f"the Hub is busy, or the connection broke: trying again in {float(match[1]):.0f} s")
