"""The one kind of error that a user is meant to read, and the exit codes of every command."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process returns. Documented in docs/reference/cli.md; tests rely on the numbers."""

    OK = 0
    FOUND = 1
    """The command ran and found something wrong (a failed check, a refused promotion)."""
    USAGE = 2
    """A wrong argument, a wrong line in a file, a state in which the command makes no sense."""
    MISSING = 3
    """Something that must be there is not: a file, a model, a network."""
    DENIED = 4
    """A license, a gate or a permission stands in the way."""
    PLUGIN = 5
    """A plugin broke, in strict mode or because the command needs it."""
    BUG = 101
    INTERRUPTED = 130


class KdkitError(Exception):
    """Says what went wrong, where, why, and what to do about it.

    Args:
        id: stable name of this error, such as ``KD-REG-012``: one per place that raises. The reference of the
            documentation lists ours; a plugin's own begin with the plugin's name (``ACME-001``).
        what: the problem in one sentence, naming the thing (no trailing full stop).
        where: ``file:line`` or the name of the object.
        why: the reason, when it is not obvious from ``what``.
        fix: what to do, as a command where possible.
        code: the exit code of a command that ends with this error.
    """

    def __init__(
        self, id: str, what: str, *, where: str = "", why: str = "", fix: str = "", code: ExitCode = ExitCode.USAGE
    ) -> None:
        self.id, self.what, self.where, self.why, self.fix, self.code = id, what, where, why, fix, code
        super().__init__(self.headline)

    @property
    def headline(self) -> str:
        """``where: what``, on one line."""
        return f"{self.where}: {self.what}" if self.where else self.what

    def fields(self) -> dict[str, str | int]:
        """What ``--json`` prints: ``id``, ``what``, ``where``, ``why``, ``fix``, ``code``."""
        return {
            "id": self.id,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "fix": self.fix,
            "code": int(self.code),
        }


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """A hint such as ``did you mean 'biomedclip'?``, or the list of what is known when nothing is close."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(sorted(known)) if known else "none is known"
