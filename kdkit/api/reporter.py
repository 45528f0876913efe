"""Progress as lines on stderr: for notebooks, scripts and logs."""

from __future__ import annotations

import sys
import time

EVERY_SECONDS = 5.0


class Lines:
    """A reporter that prints a line every few seconds, and one at the end of each piece of work.

    Args:
        every: seconds between lines.
    """

    def __init__(self, every: float = EVERY_SECONDS) -> None:
        self.every = every
        self._warned: set[str] = set()
        self._started: dict[str, float] = {}
        self._written: dict[str, float] = {}

    def say(self, text: str) -> None:
        """Print a line."""
        print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """Print a warning, once."""
        if text not in self._warned:
            self._warned.add(text)
            self.say(f"warning: {text}")

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        """Print how far a piece of work is, if it is time to."""
        now = time.monotonic()
        start = self._started.setdefault(label, now)
        ended = done >= total
        if not ended and now - self._written.setdefault(label, now) < self.every:
            return
        self._written[label] = now
        self.say(f"{label}: {done}/{total}  {now - start:.0f} s" + (f"  {note}" if note else ""))
        if ended:
            self._started.pop(label)
            self._written.pop(label, None)
