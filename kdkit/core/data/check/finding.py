"""What a check of the data returns."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from kdkit.core.data.check.examined import Examined

SHOWN = 20
"""Details of a finding that are listed."""


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        check: name of the check.
        level: ``problem`` fails ``kdkit data check``; ``note`` does not; ``skipped``: the check could not look.
        text: one line.
        items: what was found, each a dataclass, a tuple or a text; for programs.
        details: lines below ``text``, for people.
        groups: rows of samples that belong together, such as the two of a leak; for pictures.
        captions: a line for each of ``groups``.
    """

    check: str
    level: Literal["problem", "note", "skipped"]
    text: str
    items: tuple[Any, ...] = ()
    details: tuple[str, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()
    captions: tuple[str, ...] = ()


class Check(NamedTuple):
    """A check: its name, what it looks at, and the function that looks."""

    name: str
    looks_at: str
    run: Callable[[Examined], Iterable[Finding]]
