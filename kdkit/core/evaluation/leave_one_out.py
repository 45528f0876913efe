"""What a student loses without a source: its accuracy with all sources and without one, on the same samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kdkit.core.base.result import Result, Section, Table
from kdkit.core.evaluation.metrics import LEVEL
from kdkit.core.evaluation.report.tables import count_unit
from kdkit.core.evaluation.run_comparison import Change, compare_runs
from kdkit.core.evaluation.scores import Evaluation

ENOUGH = 0.8
"""Share of the version's accuracy that runs must reach to say something about it."""
Kind = Literal["teacher", "texts"]


@dataclass(frozen=True)
class SourceChange(Change):
    """The change of accuracy without a source; ``points`` are negative where the source helps."""

    @property
    def everything(self) -> float:
        """Accuracy of the runs with all sources."""
        return self.before

    @property
    def without(self) -> float:
        """Accuracy of the runs without one."""
        return self.after

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        names = {"before": "everything", "after": "without"}
        return {names.get(key, key): value for key, value in super().to_json().items()}


@dataclass(frozen=True)
class SourceEffect:
    """What the student would lose without one source.

    Attributes:
        source: a teacher, ``captions`` or ``answers``.
        domains: the change per domain.
        mean: over these domains.
    """

    source: str
    kind: Kind
    domains: Mapping[str, SourceChange]
    mean: SourceChange

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "source": self.source,
            "kind": self.kind,
            "domains": [{"domain": domain, **change.to_json()} for domain, change in self.domains.items()],
            "mean": self.mean.to_json(),
        }


@dataclass(frozen=True)
class Explanation(Result):
    """What was learned from whom: the change of accuracy without each source, on the calibration split.

    Attributes:
        length: of the runs, as a share of the recipe's steps; ``steps`` in steps.
        seeds: of the runs.
        sources: teachers, then the samples' own texts.
        task: name of the evaluation task.
        version_accuracy: of the version itself, mean over the compared domains; None where it was not judged.
    """

    version: str
    recipe: str
    length: float
    steps: int
    seeds: tuple[int, ...]
    sources: tuple[SourceEffect, ...]
    task: str
    version_accuracy: float | None = None

    @property
    def too_short(self) -> bool:
        """Whether the run with all sources falls far behind the version: then the changes say little about it."""
        reached = self.sources[0].mean.everything
        return self.version_accuracy is not None and reached < ENOUGH * self.version_accuracy

    def to_json(self) -> dict[str, Any]:
        """All figures."""
        return {
            "version": self.version,
            "recipe": self.recipe,
            "length": self.length,
            "steps": self.steps,
            "seeds": list(self.seeds),
            "split": "calibration",
            "level": LEVEL,
            "version_accuracy": self.version_accuracy,
            "too_short": self.too_short,
            "sources": [effect.to_json() for effect in self.sources],
        }

    def sections(self) -> list[Section]:
        """Domains by sources, then the mean."""
        first, seeds = self.sources[0], ", ".join(map(str, self.seeds))
        rows = [(d, *self._row([effect.domains[d] for effect in self.sources])) for d in first.domains]
        mean = ("mean", *self._row([effect.mean for effect in self.sources]))
        headers = ("domain", *(f"without {effect.source}" for effect in self.sources), "with all, %")
        runs = f"{(1 + len(self.sources)) * len(self.seeds)} runs of {self.steps} steps from scratch"
        covered = f"the same {count_unit(self.task)}" + (" and over seeds" if len(self.seeds) > 1 else "")
        return [
            f"Change in accuracy (points) of {self.version}'s student without each source; calibration split, "
            f"{100 * LEVEL:g} % interval over {covered}",
            Table((*headers, count_unit(self.task)), [*rows, mean], "l" + "l" * len(self.sources) + "rr"),
            "",
            f"~ not distinguishable from 0. {runs} ({self.length:g} of recipe {self.recipe}), seed {seeds}",
            "Two sources that know the same can both show 0: each replaces the other.",
            *self._reached(),
            *(
                ["One seed: the chance of training is in no interval; --seeds 3 adds it"]
                if len(self.seeds) == 1
                else []
            ),
        ]

    def _reached(self) -> list[Section]:
        if self.version_accuracy is None:
            return []
        reached = (
            f"{100 * self.sources[0].mean.everything:.1f} %, {self.version} has {100 * self.version_accuracy:.1f} %"
        )
        verdict = ": the runs are too short to tell, raise --length" if self.too_short else ""
        return [f"With all sources the mean is {reached}{verdict}"]

    @staticmethod
    def _row(changes: Sequence[SourceChange]) -> list[str]:
        return [*(change.text() for change in changes), f"{100 * changes[0].everything:.1f}", str(changes[0].count)]


def measure_effects(
    everything: Sequence[Evaluation],
    without: Mapping[tuple[str, Kind], Sequence[Evaluation]],
    domains: Sequence[str],
) -> tuple[SourceEffect, ...]:
    """Compare runs with all sources with runs without one, by ``compare_runs``.

    Args:
        everything: one evaluation per seed.
        without: (source, kind) -> one evaluation per seed, in the same order.
        domains: those to compare.
    """
    pairs = {source: tuple(zip(everything, runs, strict=True)) for source, runs in without.items()}
    return tuple(
        SourceEffect(
            source,
            kind,
            {domain: SourceChange(**vars(change)) for domain, change in effect.domains.items()},
            SourceChange(**vars(effect.mean)),
        )
        for (source, kind), effect in compare_runs(pairs, domains).items()
    )
