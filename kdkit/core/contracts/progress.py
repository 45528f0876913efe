"""Messages and progress of long work. Import from ``kdkit.core.contracts``."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives messages and progress; the CLI prints them."""

    def say(self, text: str) -> None:
        """One line of information."""

    def warn(self, text: str) -> None:
        """One line of warning."""

    def progress(self, label: str, done: int, total: int, note: str = "") -> None:
        """Called frequently; ``done == total`` ends the bar."""


class Silent:
    """The default reporter; it discards everything."""

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None: ...
    def progress(self, label: str, done: int, total: int, note: str = "") -> None: ...
