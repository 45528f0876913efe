"""Subgroups, calibration and curves of an evaluation as sections. The JSON report has every model; tables show one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kdkit.core.base.result import Section, Table
from kdkit.core.contracts import Curve, DomainScore, Estimate, SubgroupScore
from kdkit.core.evaluation.scores import Evaluation

FEW = 3
"""With more metrics, tables of subgroups show the headline and AUC alone."""


def detail_sections(evaluation: Evaluation, version: str) -> list[Section]:
    """Tables of what the scores of ``version`` hold beside metrics."""
    scores = list(evaluation.model(version).domains.values())
    return [
        *_subgroups(scores, evaluation.headline, version),
        *_calibration(evaluation, version),
        *_curves(scores, version),
    ]


def worst_subgroups(score: DomainScore, metric: str) -> dict[str, SubgroupScore]:
    """Column -> the subgroup with the lowest value of a metric, where at least two can be judged."""
    found: dict[str, list[SubgroupScore]] = {}
    for one in score.subgroups:
        if metric in one.metrics:
            found.setdefault(one.column, []).append(one)
    return {column: min(ones, key=lambda one: one.metrics[metric]) for column, ones in found.items() if len(ones) > 1}


def _subgroups(scores: Sequence[DomainScore], headline: str, version: str) -> Iterator[Section]:
    rows = []
    for score in scores:
        worst = worst_subgroups(score, headline)
        for one in score.subgroups:
            mark = "worst" if worst.get(one.column) is one else one.note
            shown = [name for name in one.metrics if len(one.metrics) <= FEW or name in (headline, "auc")]
            cells = ", ".join(f"{name} {_share((one.metrics[name], *one.intervals[name]))}" for name in shown)
            groups = f" ({one.groups} groups)" if one.groups else ""
            rows.append((score.domain, one.column, one.value, f"{one.count}{groups}", cells or "-", mark))
    if rows:
        yield f"Subgroups of {version}, in %; 'worst' has the lowest {headline} of its column"
        yield Table(("domain", "column", "value", "samples", "metrics", ""), rows, "lllrll")


def _calibration(evaluation: Evaluation, version: str) -> Iterator[Section]:
    rows, sets = [], []
    for name in (version, "oracle"):
        for domain, score in (evaluation.model(name).domains if _has(evaluation, name) else {}).items():
            if (found := score.calibration) is None:
                continue
            brier = f"{found.brier[0]:.3f} ({found.brier[1]:.3f}-{found.brier[2]:.3f})"
            rows.append((domain, name, _share(found.ece), _share(found.adaptive_ece), brier))
            if (one := found.conformal) is not None:
                size = f"{one.size[0]:.2f} ({one.size[1]:.2f}-{one.size[2]:.2f})"
                stated = f"{100 * one.target:g}"
                sets.append((domain, name, stated, _share(one.coverage), size, str(one.calibrated_on)))
    if rows:
        yield "Calibration: expected and adaptive calibration error in %, Brier score (0 is perfect)"
        yield Table(("domain", "model", "ECE", "adaptive ECE", "Brier"), sorted(rows), "llrrr")
    if sets:
        yield "Conformal sets: how often they hold the true class, in %, and how many classes they have"
        headers = ("domain", "model", "stated", "coverage", "classes", "calibrated on")
        yield Table(headers, sorted(sets), "llrrrr")


def _curves(scores: Sequence[DomainScore], version: str) -> Iterator[Section]:
    rows = [(score.domain, curve.name, str(curve.count), _median(curve)) for score in scores for curve in score.curves]
    if rows:
        yield f"Kaplan-Meier curves of {version}; the JSON has their points"
        yield Table(("domain", "curve", "samples", "median"), rows, "llrr")


def _median(curve: Curve) -> str:
    """Where a curve falls to 0.5; ``-`` if it stays above."""
    return next((f"{x:g}" for x, y in zip(curve.x, curve.y, strict=True) if y <= 0.5), "-")


def _has(evaluation: Evaluation, name: str) -> bool:
    return any(model.name == name for model in evaluation.models)


def _share(values: Estimate) -> str:
    value, low, high = (100 * x for x in values)
    return f"{value:.1f} ({low:.1f}-{high:.1f})"
