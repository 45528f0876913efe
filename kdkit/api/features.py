"""Results of the commands that read and write the feature store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kdkit.core.base.result import Result, ResultRows, Section, Table, format_size

if TYPE_CHECKING:
    from kdkit.core.distill.alignment.compare import AlignerReport  # noqa: F401  # named in quotes
    from kdkit.core.features.extract.extraction import Extracted  # noqa: F401  # named in quotes
    from kdkit.core.features.extract.status import ColumnStatus  # noqa: F401  # named in quotes
    from kdkit.core.sharing.features import PulledColumn  # noqa: F401  # named in quotes


class FeatureStatus(ResultRows["ColumnStatus"]):
    """The columns of the feature store."""

    def sections(self) -> list[Section]:
        """Columns, then samples with features by domain."""
        if not self.rows:
            return ["no features yet: kdkit features extract"]
        cells = [
            (
                column.teacher,
                column.fingerprint[:12] + ("" if column.current else " (old)"),
                ", ".join(f"{name} {what}" for name, what in column.signals.items()),
                column.rows,
                column.texts,
                format_size(column.bytes),
                ("yes" if column.complete else "no") + (" (live)" if column.live else ""),
            )
            for column in self.rows
        ]
        headers = ("teacher", "fingerprint", "signals", "rows", "prompts", "size", "complete")
        return [Table(headers, cells, "lllrrrl"), *self._by_domain()]

    def _by_domain(self) -> list[Section]:
        domains = list(self.rows[0].domains)
        if not domains:
            return []
        cells = [(s.teacher, *(_fraction(counts) for counts in s.domains.values()), s.unreadable) for s in self.rows]
        headers, title = ("teacher", *domains, "unreadable"), "samples with features"
        if any(column.answers for column in self.rows):
            headers, title = (*headers, "answers"), f"{title}; answers to calibration and test samples"
            cells = [(*row, _fraction(s.answers)) for row, s in zip(cells, self.rows, strict=True)]
        return ["", title, Table(headers, cells, "l" + "r" * (len(headers) - 1))]


class ExtractedFeatures(ResultRows["Extracted"]):
    """Columns that ``kdkit features extract`` completed; none where nothing was missing."""

    def sections(self) -> list[Section]:
        """New and kept rows by column."""
        if not self.rows:
            return ["nothing is missing"]
        cells = [(d.teacher, d.fingerprint[:12], d.new, d.kept, d.unreadable, d.prompts, d.answers) for d in self.rows]
        headers = ("teacher", "fingerprint", "new", "present before", "unreadable", "new prompts", "new answers")
        return [Table(headers, cells, "llrrrrr")]


@dataclass(frozen=True)
class FeatureCheck(Result):
    """Problems of each column; an intact one has none."""

    columns: Mapping[str, tuple[str, ...]]

    @property
    def ok(self) -> bool:
        """Whether all columns are intact."""
        return not any(self.columns.values())

    def to_json(self) -> dict[str, Any]:
        """``ok`` and ``columns``."""
        return {"ok": self.ok, "columns": {column: list(problems) for column, problems in self.columns.items()}}

    def sections(self) -> list[Section]:
        """One line per problem, or ``ok``."""
        lines = (f"{column}: {problem}" for column, found in self.columns.items() for problem in found or ("ok",))
        return list(lines) or ["no features"]


@dataclass(frozen=True)
class PulledFeatures(ResultRows["PulledColumn"]):
    """Columns that came from a data set repository.

    Attributes:
        unused: teachers of these columns that are not in the registry.
    """

    unused: tuple[str, ...]

    def sections(self) -> list[Section]:
        """New rows by column."""
        cells = [(c.teacher, c.fingerprint[:12], c.rows, c.here, c.texts) for c in self.rows]
        headers = ("teacher", "fingerprint", "new rows", "shards present before", "new prompts")
        table = Table(headers, cells, "llrrr")
        return [table, f"not in registry.yaml, so not used yet: {', '.join(self.unused)}"] if self.unused else [table]


@dataclass(frozen=True)
class AlignerComparison(ResultRows["AlignerReport"]):
    """Aligners, the best ranking first."""

    teacher: str

    def sections(self) -> list[Section]:
        """One row per aligner, and what the columns mean."""
        cells = [
            (r.aligner, _number(r.ranking), _number(r.top1), _number(r.gap), _number(r.reconstruction))
            for r in self.rows
        ]
        return [
            Table(("aligner", "ranking", "same first", "gap", "reconstruction"), cells, "lrrrr"),
            "",
            f"{self.rows[0].samples} training samples of '{self.teacher}' on which no aligner was fitted.",
            "ranking: rank correlation of how images order the texts, before and after;",
            "same first: share of images that keep their first text;",
            "gap: cosine with other teachers, same sample minus different samples;",
            "reconstruction: cosine of the features with their reconstruction.",
        ]


def _fraction(counts: tuple[int, int] | None) -> str:
    return "-" if counts is None else f"{counts[0]}/{counts[1]}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
