"""The error for users, and the exit codes of every command."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """Exit code of the process, as documented in docs/reference/cli.md."""

    OK = 0
    FOUND = 1
    """The command ran and found a problem (a failed check, a refused promotion)."""
    USAGE = 2
    """A wrong argument, a wrong line in a file, a command that does not apply."""
    MISSING = 3
    """A required file, model or network is missing."""
    DENIED = 4
    """A license, a gate or a permission forbids it."""
    PLUGIN = 5
    """A plugin failed that strict mode or the command requires."""
    BUG = 101
    INTERRUPTED = 130


class KdkitError(Exception):
    """What went wrong, where, why, and what to do.

    Args:
        id: stable id of this raise site, such as ``KD-REG-012``. The documentation lists kdkit's ids; ids of a plugin
            begin with the plugin's name (``ACME-001``).
        what: the problem in one sentence that names the object (no trailing full stop).
        where: ``file:line`` or the name of the object.
        why: the cause, unless obvious from ``what``.
        fix: the remedy, as a command where possible.
        code: exit code of the command.
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

    def at(self, where: str, *, fix: str = "") -> KdkitError:
        """The same error, located at ``where``; ``fix`` replaces its remedy."""
        return type(self)(**{**vars(self), "where": where, "fix": fix or self.fix})

    def renamed(self, names: Mapping[str, str]) -> KdkitError:
        """The same error with other names of files: old -> new."""
        texts = {key: value for key, value in vars(self).items() if isinstance(value, str)}
        for old, new in names.items():
            texts = {key: value.replace(old, new) for key, value in texts.items()}
        return type(self)(**{**vars(self), **texts})

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> KdkitError:
        """The inverse of :meth:`fields`, for an error of another process."""
        return cls(**{**fields, "code": ExitCode(fields["code"])})

    def fields(self) -> dict[str, str | int]:
        """The fields, as ``--json`` prints them."""
        return {
            "id": self.id,
            "what": self.what,
            "where": self.where,
            "why": self.why,
            "fix": self.fix,
            "code": int(self.code),
        }


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """A hint such as ``did you mean 'biomedclip'?``; without a close match, the list of known words."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(sorted(known)) if known else "none is known"
