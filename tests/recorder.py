"""A reporter that keeps its lines."""

from __future__ import annotations

from kdkit.core.contracts import Silent


class Recorder(Silent):
    """Keeps what a command says, and what it warns of."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
