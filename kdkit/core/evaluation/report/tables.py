"""An evaluation and a retention as sections: tables and lines for people. The JSON report has every figure."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kdkit.core.base.cells import Shade, shades
from kdkit.core.base.result import Section, Table
from kdkit.core.contracts import DomainScore
from kdkit.core.evaluation.retention import Retention
from kdkit.core.evaluation.scores import (
    ACCURACY,
    LEFT_OUT,
    METHOD,
    OTHER_RELEASE,
    OVERLAP,
    SUITE,
    Evaluation,
    ModelScores,
)
from kdkit.core.project.lineage import DomainChange

WIDE = 4
"""With more metrics than this, the table of means has a row per metric."""


def evaluation_sections(evaluation: Evaluation) -> list[Section]:
    """Accuracy of every model on every domain, then means of all metrics, then the oracle."""
    return [
        f"{headline(evaluation)} in %, {_where(evaluation)}",
        _domains(evaluation),
        f"Mean over domains in %, with {100 * _level(evaluation):g} % intervals",
        _means(evaluation),
        *_figures(evaluation),
        *_oracle_lines(evaluation),
    ]


def _where(evaluation: Evaluation) -> str:
    suite = evaluation.settings.get(SUITE)
    return f"suite {suite}, {evaluation.split} split" if suite else f"{evaluation.split} split"


def retention_sections(retention: Retention) -> list[Section]:
    """Domains with their change in points, then teachers, then the mean."""
    if not retention.domains:
        sections: list[Section] = ["no earlier domain can be compared"]
    else:
        headers = ("domain", "before", "after", "points", "interval", "tolerance", "")
        sections = [Table(headers, [_change_row(change) for change in retention.domains.values()], "lrrrlrl")]
    if retention.teachers:
        held = [
            (item.teacher, f"{100 * item.before:.1f}", f"{100 * item.after:.1f}", ", ".join(item.domains))
            for item in retention.teachers.values()
        ]
        sections.append(Table(("teacher", "retained before, %", "retained after, %", "domains"), held, "lrrl"))
    if retention.domains:
        interval = f"{retention.low:+.2f} to {retention.high:+.2f}"
        sections.append(f"mean change {retention.mean:+.2f} points ({interval})")
    if retention.checks:
        headers = ("also compared", "before", "after", "points", "interval", "tolerance", "")
        sections.append(Table(headers, [_change_row(change) for change in retention.checks], "lrrrlrl"))
    if grouped := {change.domain: change for change in retention.domains.values() if change.groups}:
        sections.append(f"intervals draw whole groups (patients): {_group_counts(grouped)}")
    if retention.not_compared:
        names = ", ".join(retention.not_compared)
        why = "no shared labeled samples, or no way to compare the metric"
        sections.append(f"not compared ({why}): {names}; forgetting there is not measured")
    return sections


def evaluation_notes(evaluation: Evaluation) -> list[Section]:
    """What a reader must know about the figures: skipped domains, notes of the task, the AUC's scale."""
    notes: list[Section] = [f"note: {domain} is not evaluated: {why}" for domain, why in evaluation.skipped.items()]
    domains: dict[str, list[str]] = {}
    for domain in evaluation.domains:
        found = (m.domains[domain].notes for m in evaluation.models if domain in m.domains)
        for note in dict.fromkeys(note for group in found for note in group):
            domains.setdefault(note, []).append(domain)
    notes += [f"note: {', '.join(where)}: {note}" for note, where in domains.items()]
    scores = {d: s for m in evaluation.models for d, s in m.domains.items() if s.groups}
    if scores:
        notes.append(f"intervals draw whole groups (patients): {_group_counts(scores)}")
    for signals, names in _left_out(evaluation).items():
        hint = "; 'kdkit trust' shows their probes" if signals == "text" else ""
        notes.append(f"note: not compared, no {signals} features: {', '.join(names)}{hint}")
    if other := evaluation.settings.get(OTHER_RELEASE):
        notes.append(f"note: files of another release than that of the suite: {', '.join(other)}")
    for dataset, teachers in evaluation.settings.get(OVERLAP, {}).items():
        notes += [f"note: {dataset} is not new to {teacher}: {what}" for teacher, what in teachers.items()]
    notes += [f"{name}: {text}" for name, text in evaluation.settings.get(METHOD, {}).items()]
    if "logit_scale" in evaluation.settings:
        notes.append(f"AUC: macro one-vs-rest, probabilities at logit scale {evaluation.settings['logit_scale']:g}")
    return notes


def _group_counts(found: Mapping[str, DomainScore] | Mapping[str, DomainChange]) -> str:
    return ", ".join(f"{domain} {one.groups} of {one.count} samples" for domain, one in found.items())


def headline(evaluation: Evaluation) -> str:
    """Title of the metric that stands for an evaluation's task."""
    task, metric = _task(evaluation), evaluation.headline
    return accuracy_title(task) if metric == ACCURACY else f"{metric} (task '{task}')"


def _left_out(evaluation: Evaluation) -> dict[str, list[str]]:
    """The signals that teachers lack -> these teachers."""
    found: dict[str, list[str]] = {}
    for teacher, signals in evaluation.settings.get(LEFT_OUT, {}).items():
        found.setdefault(" and ".join(signals), []).append(teacher)
    return found


def accuracy_title(task: str) -> str:
    """Title of a task's metric ``accuracy``."""
    return "Zero-shot accuracy" if task == "zero-shot" else f"Accuracy (task '{task}')"


def count_unit(task: str) -> str:
    """Unit of a task's counts: several questions may share one image."""
    return "images" if task == "zero-shot" else "samples"


def percent(value: float, *, sign: bool = False) -> str:
    """``91.2``, ``+1.3`` with ``sign``, ``-`` for NaN."""
    if math.isnan(value):
        return "-"
    return f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"


def _change_row(change: DomainChange) -> tuple[str, ...]:
    verdict = ""
    if change.over_tolerance:
        verdict = "LOST" if change.significant else "lost, not significant"
    return (
        change.name,
        f"{100 * change.before:.1f}",
        f"{100 * change.after:.1f}",
        f"{change.points:+.1f}",
        f"{change.low:+.1f} to {change.high:+.1f}",
        f"{change.tolerance:g}",
        verdict,
    )


def _domains(evaluation: Evaluation) -> Table:
    shown = [m for m in evaluation.models if m.name != "oracle-on-test"]
    values = [model.values(evaluation.headline, evaluation.domains) for model in shown]
    places = iter(shades([value for own in values for value in own]))
    shade = [[next(places) for _ in own] for own in values]
    rows: list[tuple[object, ...]] = []
    for number, domain in enumerate(evaluation.domains):
        count = max(m.domains[domain].count for m in evaluation.models if domain in m.domains)
        teachers = [own[number] for m, own in zip(shown, values, strict=True) if m.role == "teacher"]
        best = max((value for value in teachers if not math.isnan(value)), default=math.nan)
        cells = [
            Shade(percent(own[number]), shade[m][number], shown[m].role == "teacher" and own[number] >= best)
            for m, own in enumerate(values)
        ]
        rows.append((domain, *cells, str(count)))
    rows.append(("mean", *(percent(m.means.get(evaluation.headline, math.nan)) for m in shown), ""))
    headers = ("domain", *(m.name for m in shown), count_unit(_task(evaluation)))
    return Table(headers, rows, "l" + "r" * (len(shown) + 1))


def _means(evaluation: Evaluation) -> Table:
    """A row per model, or a row per metric when metrics are many."""
    if len(evaluation.metrics) > WIDE:
        return _means_by_metric(evaluation)
    rows = [
        (
            model.name,
            model.role,
            *(_with_interval(model, metric) for metric in evaluation.metrics),
            _coverage(model, evaluation),
        )
        for model in evaluation.models
    ]
    return Table(("model", "role", *evaluation.metrics, ""), rows, "ll")


def _figures(evaluation: Evaluation) -> list[Section]:
    """A row per domain and figure, such as a median rank; a column per model."""
    shown = [m for m in evaluation.models if m.name != "oracle-on-test"]
    rows = []
    for domain in evaluation.domains:
        for name in evaluation.figures:
            found = [m.domains[domain].figures.get(name) if domain in m.domains else None for m in shown]
            cells = ("-" if x is None else f"{x[0]:g} ({x[1]:g}-{x[2]:g})" for x in found)
            rows.append((domain, name, *cells))
    headers = ("domain", "", *(m.name for m in shown))
    return [Table(headers, rows, "ll" + "r" * len(shown))] if rows else []


def _means_by_metric(evaluation: Evaluation) -> Table:
    """A row per metric, with the number of domains that have it; headers note models that lack domains."""
    rows = [
        (
            metric,
            *(_with_interval(model, metric) for model in evaluation.models),
            str(_domains_with(evaluation, metric)),
        )
        for metric in evaluation.metrics
    ]
    heads = [f"{m.name} ({note})" if (note := _coverage(m, evaluation)) else m.name for m in evaluation.models]
    return Table(("metric", *heads, "domains"), rows, "l" * (len(heads) + 1) + "r")


def _domains_with(evaluation: Evaluation, metric: str) -> int:
    """Number of domains on which any model has this metric."""
    return len({d for m in evaluation.models for d, score in m.domains.items() if metric in score.metrics})


def _coverage(model: ModelScores, evaluation: Evaluation) -> str:
    scored = len(model.domains)
    return "" if scored == len(evaluation.domains) else f"on {scored} of {len(evaluation.domains)} domains"


def _oracle_lines(evaluation: Evaluation) -> list[str]:
    lines = []
    for model in evaluation.of_role("oracle"):
        if model.name == "oracle":
            chosen = ", ".join(f"{domain} {teacher}" for domain, teacher in model.chosen.items())
            lines.append(f"oracle: the best teacher per domain on the calibration split: {chosen}")
    for student, ratio in evaluation.ratios.items():
        few = len(evaluation.metrics) <= WIDE
        shown = {metric: value for metric, value in ratio.items() if few or metric == evaluation.headline}
        figures = ", ".join(f"{100 * value:.1f} % of its {metric}" for metric, value in shown.items())
        lines.append(f"{student} against the oracle: {figures or 'its means are 0'}")
        differences = evaluation.against_oracle.get(student, {}).items()
        points = (f"{d} {_points(value)} ({_points(low)} to {_points(high)})" for d, (value, low, high) in differences)
        if differences:
            lines.append(f"{student} against the oracle, points of {evaluation.headline}: {', '.join(points)}")
    return lines


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _task(evaluation: Evaluation) -> str:
    return str(evaluation.settings.get("task", "zero-shot"))


def _level(evaluation: Evaluation) -> float:
    return next((s.level for m in evaluation.models for s in m.domains.values()), math.nan)


def _with_interval(model: ModelScores, metric: str) -> str:
    if metric not in model.means:
        return "-"
    low, high = model.intervals[metric]
    return f"{100 * model.means[metric]:5.1f} ({100 * low:.1f}-{100 * high:.1f})"
