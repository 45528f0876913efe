"""The report of a sweep, from what is finished: one row per variation, compared over seeds; and what is missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from kdkit.core.base.result import Result, Section, Table
from kdkit.core.evaluation.metrics import LEVEL
from kdkit.core.evaluation.report.tables import count_unit
from kdkit.core.evaluation.run_comparison import RunEffect, accuracy_of, compare_runs
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.evaluation.sweeps.clinkd import paper_tables
from kdkit.core.evaluation.sweeps.record import SweepFolder, SweepRecord, SweptVariation
from kdkit.core.evaluation.sweeps.results import MISSING, VariationResult, of_part, percent


@dataclass(frozen=True)
class SweepReport(Result):
    """A sweep and what is finished of it.

    Attributes:
        folder: that it lies in, for messages.
        busy: evaluations that another process was making when this was read.
    """

    record: SweepRecord
    results: tuple[VariationResult, ...]
    folder: str = ""
    busy: int = 0

    @property
    def runs(self) -> int:
        """Evaluations of the whole sweep."""
        return len(self.record.keys)

    @property
    def missing(self) -> tuple[tuple[str, int], ...]:
        """(variation, seed) of what is not finished."""
        return tuple(
            (result.variation.name, seed)
            for result in self.results
            for seed in self.record.seeds[: len(result.variation.runs)]
            if seed not in result.seeds
        )

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        record = self.record
        names = ("name", "question", "recipe", "task", "split", "precision", "length", "axis", "chance", "samples")
        return {
            **{name: getattr(record, name) for name in names},
            "arguments": list(record.arguments),
            "seeds": list(record.seeds),
            "level": LEVEL,
            "runs": self.runs,
            "missing": [{"variation": name, "seed": seed} for name, seed in self.missing],
            "notes": list(record.notes),
            "variations": [result.to_json() for result in self.results],
        }

    def sections(self) -> list[Section]:
        """A table for each part of the question, the notes, and what is missing."""
        record = self.record
        shown: list[Section] = [
            f"Sweep {record.name}: accuracy on the {record.split} split, mean over domains; change in points with its "
            f"{100 * LEVEL:g} % interval over {count_unit(record.task)}"
            + (" and seeds" if len(record.seeds) > 1 else "")
        ]
        tables = paper_tables(self.results) if record.question == "clinkd" else []
        for title, table in tables or [(part, self._table(part)) for part in self.parts]:
            shown += ["", title] if title else []
            shown.append(table)
        return [*shown, "", *self.notes]

    @property
    def domains(self) -> tuple[str, ...]:
        """Those that the first variation is scored on."""
        return self.record.variations[0].domains

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts of the question; one that is empty for a question without parts."""
        return tuple(dict.fromkeys(part for one in self.record.variations for part in one.parts)) or ("",)

    def of_part(self, part: str) -> tuple[VariationResult, ...]:
        """Results of one part."""
        return of_part(self.results, part)

    def result(self, name: str) -> VariationResult:
        """The result of a variation."""
        return next(result for result in self.results if result.variation.name == name)

    def change_text(self, result: VariationResult) -> str:
        """The change with its interval, in words."""
        one = result.variation
        if one.against and one.runs == self.record.variation(one.against).runs:
            return "the same runs"
        return "" if not one.against else MISSING if result.effect is None else result.effect.mean.text()

    def per_seed(self, result: VariationResult) -> list[tuple[int, float]]:
        """(seed, change of the mean in points) of the seeds that are compared."""
        base, domains = self.result(result.variation.against), result.variation.domains
        return [
            (seed, 100 * float(np.mean([result.accuracies[seed][d] - base.accuracies[seed][d] for d in domains])))
            for seed in result.compared
        ]

    def _table(self, part: str) -> Table:
        results = self.of_part(part)
        everywhere = {result.variation.domains for result in results}
        narrow = len(everywhere) > 1
        rows = [self._row(result, narrow) for result in results]
        named = ("domains",) if narrow else ()
        headers = (
            "variation",
            *named,
            "steps",
            "accuracy, %",
            "spread",
            "change",
            "compared with",
            "worst domain",
            "runs",
        )
        return Table(headers, rows, "l" + "l" * narrow + "rrrlllr")

    def _row(self, result: VariationResult, narrow: bool) -> list[str]:
        one = result.variation
        names = [", ".join(one.domains)] if narrow else []
        if one.impossible:
            return [one.name, *names, MISSING, MISSING, MISSING, "not trained, see below", one.against, "", "0"]
        worst = f"{result.worst} {percent(result.domain(result.worst))}" if result.worst else MISSING
        figures = [str(one.steps), percent(result.mean), percent(result.spread), self.change_text(result)]
        against = f"{one.against} {percent(result.effect.mean.before)}" if narrow and result.effect else one.against
        return [one.name, *names, *figures, against, worst, f"{len(result.seeds)} of {len(one.runs)}"]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know, and what is missing."""
        return tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        record = self.record
        yield (
            f"~ not distinguishable from 0. Runs from scratch, {record.length:g} of the steps of recipe "
            f"{record.recipe}, {record.seeds_text}; spread: standard deviation between seeds, in points"
        )
        if record.split == "test":
            yield (
                "This looked at the TEST split: what is chosen by this table has no unbiased score left. Choose on the "
                "calibration split, and look here once."
            )
        if len(record.seeds) == 1:
            yield "One seed: the chance of training is in no interval; --seeds 3 adds it"
        yield from record.notes
        own = {domain for one in record.variations for domain in one.domains if one.domains != self.domains}
        if known := [f"{domain} {percent(record.chance[domain])}" for domain in sorted(own) if domain in record.chance]:
            yield f"Accuracy of guessing, %: {', '.join(known)}"
        for one in record.variations:
            if one.impossible:
                yield f"{one.name}: {one.impossible}"
        if missing := self.missing:
            first = ", ".join(f"{name} (seed {seed})" for name, seed in missing[:4])
            more = f" and {len(missing) - 4} more" if len(missing) > 4 else ""
            busy = f"; {self.busy} of them at work in other processes" if self.busy else ""
            yield f"Missing {len(missing)} runs{busy}: {first}{more}. The same command finishes them"


def read_report(folder: SweepFolder, record: SweepRecord, busy: int = 0) -> SweepReport:
    """The report of a sweep, from the evaluations that are there.

    Raises:
        KdkitError: a damaged evaluation.
    """
    kept = folder.kept
    found: dict[str, dict[int, Evaluation]] = {}
    for one in record.variations:
        runs = zip(record.seeds, one.runs, strict=False)
        found[one.name] = {seed: kept.load(key) for seed, key in runs if kept.has(key)}
    effects = _effects(record, found)
    results = tuple(
        VariationResult(
            variation=one,
            seeds=tuple(found[one.name]),
            accuracies={
                seed: {domain: accuracy_of(evaluation, domain) for domain in _scored(evaluation)}
                for seed, evaluation in found[one.name].items()
            },
            effect=effects.get(one.name),
            compared=_common(one, found),
        )
        for one in record.variations
    )
    return SweepReport(record, results, str(folder.path.relative_to(folder.project.root)), busy)


def _scored(evaluation: Evaluation) -> tuple[str, ...]:
    return tuple(evaluation.of_role("student")[0].domains)


def _common(one: SweptVariation, found: Mapping[str, Mapping[int, Evaluation]]) -> tuple[int, ...]:
    return tuple(seed for seed in found[one.name] if one.against and seed in found[one.against])


def _effects(record: SweepRecord, found: Mapping[str, Mapping[int, Evaluation]]) -> dict[str, RunEffect]:
    """Changes, with the noise of training pooled over the variations that are compared in the same domains."""
    groups: dict[tuple[str, ...], dict[str, list[tuple[Evaluation, Evaluation]]]] = {}
    for one in record.variations:
        pairs = [(found[one.against][seed], found[one.name][seed]) for seed in _common(one, found)]
        if pairs and one.runs != record.variation(one.against).runs:
            groups.setdefault(one.domains, {})[one.name] = pairs
    effects: dict[str, RunEffect] = {}
    for domains, group in groups.items():
        effects.update(compare_runs(group, domains))
    return effects
