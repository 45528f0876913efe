"""Progress of gigabytes, in megabytes."""

from __future__ import annotations

from kdkit.core.contracts import Reporter

CHUNK = 1 << 20
"""Bytes that are held in memory at a time."""
_MB = 1_000_000


class Meter:
    """Tells a reporter whenever another megabyte of ``total`` bytes has begun."""

    def __init__(self, label: str, total: int, reporter: Reporter) -> None:
        self._label, self._reporter, self._total = label, reporter, -(-total // _MB)
        self._bytes, self._said = 0, 0

    def add(self, count: int, note: str) -> None:
        """Another ``count`` bytes; ``note`` is the file."""
        self._bytes += count
        done = -(-self._bytes // _MB)
        if done > self._said:
            self._said = done
            self._reporter.progress(self._label, done, self._total, note)
