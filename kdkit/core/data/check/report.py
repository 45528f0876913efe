"""The result of ``kdkit data check``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

from kdkit.core.base.result import Result, Section, Table
from kdkit.core.data.check.finding import Finding


@dataclass(frozen=True)
class DataReport(Result):
    """What :func:`~kdkit.core.data.check.check_data` found.

    Attributes:
        samples: how many there are.
        counts: domain -> class -> split -> samples; samples without a label have the class ``(no label)``.
        findings: of all checks, in their order.
        looked_at: check -> what it looked at. A check that could not look has a finding of the level ``skipped``.
    """

    samples: int
    counts: Mapping[str, Mapping[str, Mapping[str, int]]]
    findings: tuple[Finding, ...]
    looked_at: Mapping[str, str]

    def items(self, check: str, level: str | None = None) -> tuple[Any, ...]:
        """The items of all findings of one check, or of those of one level."""
        found = (one for one in self.findings if one.check == check and level in (None, one.level))
        return tuple(item for one in found for item in one.items)

    @property
    def problems(self) -> tuple[str, ...]:
        """One line per kind of problem; empty if there is none."""
        return tuple(one.text for one in self.findings if one.level == "problem")

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that do not fail the check."""
        return tuple(one.text for one in self.findings if one.level == "note")

    @property
    def not_looked_at(self) -> Mapping[str, str]:
        """Check -> why it could not look."""
        return {one.check: one.text for one in self.findings if one.level == "skipped"}

    def to_json(self) -> dict[str, Any]:
        """Plain data: ``ok`` and ``complete``, the counts, and each finding with its items."""
        return {
            "ok": not self.problems,
            "complete": not self.not_looked_at,
            "samples": self.samples,
            "counts": self.counts,
            "problems": self.problems,
            "notes": self.notes,
            "findings": [
                {
                    "check": one.check,
                    "level": one.level,
                    "text": one.text,
                    "items": [_plain(item) for item in one.items],
                }
                for one in self.findings
            ],
            "looked_at": dict(self.looked_at),
            "not_looked_at": dict(self.not_looked_at),
        }

    def sections(self) -> list[Section]:
        """Samples by domain and class, notes, problems, and what was looked at."""
        rows = [
            (domain, label, *splits.values(), sum(splits.values()))
            for domain, labels in self.counts.items()
            for label, splits in labels.items()
        ]
        parts: list[Section] = [
            Table(("domain", "class", "train", "calibration", "test", "all"), rows, "llrrrr"),
            f"{self.samples} samples, {len(self.counts)} domains",
            *(f"note: {note}" for note in self.notes),
        ]
        for one in (one for one in self.findings if one.level == "problem"):
            parts += [f"problem: {one.text}", *(f"  {line}" for line in one.details)]
        parts += [f"looked at: {'; '.join(self.looked_at.values())}"]
        parts += [f"not looked at: {name}: {why}" for name, why in self.not_looked_at.items()]
        if not self.problems:
            parts.append("no problems found" + " in what was looked at" * bool(self.not_looked_at))
        return parts


def _plain(item: Any) -> Any:
    return asdict(item) if is_dataclass(item) and not isinstance(item, type) else item
