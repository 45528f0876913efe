"""Which teachers ``kdkit teachers`` lists."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import get_args

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import Kind
from kdkit.core.project.licenses import LicenseClass, normalize
from kdkit.core.project.registry.listing import TeacherRow

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}


@dataclass(frozen=True)
class TeacherFilter:
    """Conditions that a teacher must fulfill; empty ones are none.

    Attributes:
        domain: its authors name this domain, or it teaches it in the project.
        license: a license, or a class of them: ``permissive``, ``non-commercial`` ...
        kind: what it reads into features.
        max_parameters: at most so many weights. Teachers of unknown size do not fulfill it.

    Raises:
        KdkitError: no such kind.
    """

    domain: str = ""
    license: str = ""
    kind: str = ""
    max_parameters: int | None = None

    def __post_init__(self) -> None:
        if self.kind and self.kind not in get_args(Kind):
            raise KdkitError(
                "KD-TEACH-027", f"no teacher is of the kind '{self.kind}'", fix=did_you_mean(self.kind, get_args(Kind))
            )

    def matches(self, row: TeacherRow) -> bool:
        """Whether the teacher is listed."""
        small = self.max_parameters is None or (row.parameters is not None and row.parameters <= self.max_parameters)
        return (
            small
            and (not self.domain or self.domain in row.domains)
            and (not self.kind or self.kind == row.kind)
            and (not self.license or self._license_matches(row))
        )

    def _license_matches(self, row: TeacherRow) -> bool:
        if self.license in get_args(LicenseClass):
            return row.license_class == self.license
        return normalize(self.license) in row.license.split(" / ")


def parse_count(text: str) -> int:
    """``"150M"`` -> 150 million; ``k``, ``M`` and ``B`` are thousands, millions and billions.

    Raises:
        KdkitError: no such number.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.strip().lower())
    if match is None or float(match[1]) == 0:
        raise KdkitError("KD-TEACH-028", f"'{text}' is no number of weights", fix="write it as 150M or 1.5B")
    return round(float(match[1]) * _UNITS[match[2]])


def choices(rows: Iterable[TeacherRow], only: TeacherFilter) -> list[str]:
    """Per condition that is set: what the teachers offer."""
    rows, lines = list(rows), []
    if only.domain:
        lines.append(f"domains: {_listed(domain for row in rows for domain in row.domains)}")
    if only.license:
        lines.append(f"classes of licenses: {', '.join(get_args(LicenseClass))}")
        lines.append(f"licenses: {_listed(name for row in rows for name in row.license.split(' / '))}")
    if only.kind:
        lines.append(f"kinds: {_listed(row.kind for row in rows if row.kind)}")
    if only.max_parameters is not None:
        known = [row.parameters for row in rows if row.parameters is not None]
        lines.append(f"least known number of weights: {min(known):,}" if known else "no number of weights is known")
    return lines


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted({name for name in names if name}))
