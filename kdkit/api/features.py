"""Results of the commands that read and write the feature store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kdkit.core.base.result import Result, ResultRows, Section, Table, format_size
from kdkit.core.contracts import TEXT

if TYPE_CHECKING:
    from kdkit.core.distill.alignment.compare import AlignerReport  # noqa: F401  # named in quotes
    from kdkit.core.distill.forecast.extraction import ExtractionCosts
    from kdkit.core.features.extract.extraction import Extracted  # noqa: F401  # named in quotes
    from kdkit.core.features.extract.status import ColumnStatus  # noqa: F401  # named in quotes
    from kdkit.core.features.imports.export import ExportedColumn
    from kdkit.core.features.imports.importing import ImportedColumn
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
                ("damaged" if column.damage else "yes" if column.complete else "no")
                + (" (live)" if column.live else ""),
            )
            for column in self.rows
        ]
        headers = ("teacher", "fingerprint", "signals", "rows", "prompts", "size", "complete")
        checksums = "checksums are not compared here: kdkit features verify"
        return [Table(headers, cells, "lllrrrl"), checksums, *self._by_domain()]

    def _by_domain(self) -> list[Section]:
        readable = [column for column in self.rows if column.domains]
        if not readable:
            return []
        domains = list(readable[0].domains)
        cells = [(s.teacher, *(_fraction(counts) for counts in s.domains.values()), s.unreadable) for s in readable]
        headers, title = ("teacher", *domains, "unreadable"), "samples with features"
        if any(column.answers for column in readable):
            headers, title = (*headers, "answers"), f"{title}; answers to calibration and test samples"
            cells = [(*row, _fraction(s.answers)) for row, s in zip(cells, readable, strict=True)]
        return ["", title, Table(headers, cells, "l" + "r" * (len(headers) - 1))]


class ExtractedFeatures(ResultRows["Extracted"]):
    """Columns that ``kdkit features extract`` completed; none where nothing was missing."""

    def sections(self) -> list[Section]:
        """New and kept rows by column."""
        if not self.rows:
            return ["nothing to extract"]
        cells = [(d.teacher, d.fingerprint[:12], d.new, d.kept, d.unreadable, d.prompts, d.answers) for d in self.rows]
        headers = ("teacher", "fingerprint", "new", "present before", "unreadable", "new prompts", "new answers")
        return [Table(headers, cells, "llrrrrr")]


@dataclass(frozen=True)
class ExtractionPlan(Result):
    """What an extraction would compute, and its cost."""

    costs: ExtractionCosts

    def to_json(self) -> dict[str, Any]:
        """Teachers with what they lack, the disk, and the arithmetic of a forecast."""
        return self.costs.to_json()

    def sections(self) -> list[Section]:
        """A row per teacher, the sum, and the arithmetic."""
        from kdkit.core.distill.forecast.arithmetic import format_time

        costs, found = self.costs, self.costs.teachers
        if not found:
            return ["nothing to extract"]
        cells = [
            (
                cost.teacher,
                cost.missing,
                format_size(cost.bytes),
                f"{1000 * cost.decode_seconds:.1f} ms",
                f"{1000 * cost.forward_seconds:.1f} ms",
                "" if cost.flops is None else f"{cost.flops / 1e9:,.1f} G",
                format_time(cost.seconds),
            )
            for cost in found
        ]
        headers = ("teacher", "missing", "disk", "preparing", "forward", "FLOPs", "time here")
        needed = sum(cost.bytes for cost in found)
        parts: list[Section] = [Table(headers, cells, "lrrrrrr"), ""]
        parts.append(f"{format_size(needed)} on disk ({format_size(costs.free)} free); times per sample")
        if needed > costs.free:
            parts.append(f"The disk is too small: free {format_size(needed - costs.free)}, or make a teacher live.")
        if costs.target:
            rows = [(line.label, line.arithmetic, line.value) for line in costs.lines]
            parts += ["", f"Planned for {costs.target}:", "", Table(("", "arithmetic", "result"), rows, "llr")]
        return parts


SHOWN = 3
"""Ids that an import shows of each side."""


@dataclass(frozen=True)
class FeatureImport(Result):
    """An import of features, or what it would do.

    Attributes:
        column: rows, matches and what was not used.
        dry_run: nothing was written.
    """

    column: ImportedColumn
    dry_run: bool = False

    @property
    def unchanged(self) -> bool:
        """Whether the store had all of it."""
        return not self.column.new and not self.column.prompts

    def to_json(self) -> dict[str, Any]:
        """Counts, and all ids that did not match."""
        return {**asdict(self.column), "unchanged": self.unchanged, "dry_run": self.dry_run}

    def sections(self) -> list[Section]:
        """Every row of the files: used, or why not."""
        column = self.column
        widths = ", ".join(f"{signal} {width}" for signal, width in column.signals.items())
        known = column.used - column.new
        rows = [
            (f"rows in the files ({widths})", column.rows + sum(column.skipped.values())),
            *((f"  skipped: {reason}", count) for reason, count in column.skipped.items()),
            ("  without a sample" + _first(column.rows_without_sample), len(column.rows_without_sample)),
            ("  imported before", known),
            ("  would be imported" if self.dry_run else "  imported", column.new),
            ("samples without features" + _first(column.samples_without_row), len(column.samples_without_row)),
            ("features of prompts", column.prompts),
        ]
        state = "nothing was written" if self.dry_run else "unchanged" if self.unchanged else "imported"
        head = f"{column.teacher} {column.fingerprint[:12]}".rstrip() + f": {state}"
        lines: list[Section] = [head, Table(("", "count"), [row for row in rows if row[1]], "lr")]
        if column.prompts_missing:
            first = column.prompts_missing[0]
            lines.append(
                f"{len(column.prompts_missing)} prompts such as '{first}' have no features, so trust cannot be "
                "measured by zero-shot classification: --prompts FILE adds them, --json lists them (prompts_missing)"
            )
        if TEXT not in column.signals:
            lines.append("no text vectors: losses that read texts do not use this teacher")
        if column.unused:
            lines.append("not read: " + ", ".join(column.unused[:SHOWN]) + _more(column.unused))
        lines.append("the model is not here, so features of new samples cannot be computed: import them too")
        return lines


def _first(ids: Sequence[str]) -> str:
    return ": " + ", ".join(ids[:SHOWN]) + _more(ids) if ids else ""


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""


@dataclass(frozen=True)
class FeatureExport(Result):
    """A column as a file or a folder of another program."""

    written: ExportedColumn

    def to_json(self) -> dict[str, Any]:
        """Path, counts and signals."""
        return {**asdict(self.written), "path": str(self.written.path)}

    def sections(self) -> list[Section]:
        """One line, and the samples that it lacks."""
        done = self.written
        signals = ", ".join(f"{name} {what}" for name, what in done.signals.items())
        lines: list[Section] = [f"{done.path}: {done.rows} rows of {done.teacher} ({signals}), with ids"]
        if done.samples_without_row:
            lines.append(f"without features: {len(done.samples_without_row)}{_first(done.samples_without_row)}")
        return lines


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
