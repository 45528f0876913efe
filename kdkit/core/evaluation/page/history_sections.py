"""Sections about the course of things: retention over versions, trust of the teachers, and the loss curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kdkit.core.base.markup import Markup, join, tag
from kdkit.core.evaluation.page.facts import PageFacts
from kdkit.core.evaluation.page.interval_chart import Dot, Rule, Span, axis, scale_of, strip
from kdkit.core.evaluation.page.line_chart import Line, line_chart, sparkline
from kdkit.core.evaluation.page.numbers import bounds, percent, points, points_bounds
from kdkit.core.evaluation.page.tables import Cell, Head, data_table, heat, legend, number, round_range
from kdkit.core.evaluation.report.report import EvaluationReport
from kdkit.core.evaluation.retention import Retention
from kdkit.core.project.lineage import DomainChange, Lineage
from kdkit.core.project.training_record import TrainingRecord

NAMED = 12
"""With more domains than this, the chart names the lost ones and the mean alone."""


def retention_over_versions(report: EvaluationReport) -> Markup:
    """A line per domain since it was first taught, and the same as numbers."""
    evaluation, history, metric = report.evaluation, report.history, report.evaluation.headline
    values = {
        domain: [evaluation.model(name).values(metric, (domain,))[0] for name in history]
        for domain in evaluation.domains
    }
    first = {domain: history.index(report.learned[domain]) for domain in values if domain in report.learned}
    kept = () if report.retention is None else report.retention.domains.values()
    lost = {c.domain for c in kept if c.over_tolerance and c.significant}
    lines = _domain_lines(values, first, lost)
    label = f"Points of {metric} gained or lost since each domain was first taught, over {' to '.join(history)}"
    rows = []
    for domain, series in values.items():
        start = first.get(domain)
        name = f"{domain}: " + ", ".join(f"{v} {percent(x)} %" for v, x in zip(history, series, strict=True))
        cells = [
            number(percent(value), value, style="faint" if start is None or n < start else "")
            for n, value in enumerate(series)
        ]
        taught = "not taught" if start is None else history[start]
        rows.append([Cell(domain), Cell(taught), Cell(sparkline(series, name)), *cells])
    heads = [Head("Domain"), Head("First taught"), Head("Course", sortable=False), *(Head(v, "n") for v in history)]
    table = data_table(
        heads, rows, caption=f"{metric.capitalize()} in % of each version; faint: before the domain was taught"
    )
    chart = tag("figure", line_chart(lines, label=label, x_names=history, zero=True), tag("figcaption", label))
    return join([chart if lines else None, table])


def _domain_lines(values: Mapping[str, Sequence[float]], first: Mapping[str, int], lost: set[str]) -> list[Line]:
    x = list(range(max((len(series) for series in values.values()), default=0)))
    since = {
        d: [100 * (v - values[d][start]) if n >= start else math.nan for n, v in enumerate(values[d])]
        for d, start in first.items()
        if start < len(x) - 1
    }
    few = len(since) <= NAMED
    lines = [
        Line(x, y, "lost" if d in lost else "plain", d, f"{d} {points(y[-1])}" if few or d in lost else "")
        for d, y in since.items()
        if not math.isnan(y[-1])
    ]
    if len(lines) > 1:
        mean = [_mean([line.y[n] for line in lines]) for n in x]
        lines.append(Line(x, mean, "strong", "mean of these domains", f"mean {points(mean[-1])}"))
    return lines


def changes_since_parent(report: EvaluationReport) -> Markup:
    """A strip per domain and further check: the change in points with its interval and tolerance."""
    changes = _changes(report.retention)
    scale = scale_of([v for c in changes for v in (c.low, c.high, c.points, -c.tolerance)], zero=True)
    rows = []
    for c in changes:
        bad = c.over_tolerance and c.significant
        style = "lost" if bad else "plain"
        words = f"{c.name}: {points(c.points)} points ({points_bounds(c.low, c.high)})"
        marks: list[Dot | Span | Rule] = [
            Rule(0.0), Rule(-c.tolerance, "tolerance"), Span(c.low, c.high, style), Dot(c.points, "m0", style, words)
        ]  # fmt: skip
        verdict = "LOST" if bad else "lost, not significant" if c.over_tolerance else "kept"
        rows.append([
            Cell(c.name), Cell(strip(scale, marks, words), style="strip-cell"),
            Cell(join([tag("span", points(c.points)), tag("small", points_bounds(c.low, c.high))]), c.points, "n"),
            number(percent(c.before), c.before), number(percent(c.after), c.after),
            number(f"{c.tolerance:g}", c.tolerance), Cell(verdict, style="verdict-lost" if bad else ""),
            number(f"{c.count:,}", c.count),
        ])  # fmt: skip
    heads = [
        Head("Domain"), Head(axis(scale), "strip-cell", sortable=False), Head("Points", "n"), Head("Before, %", "n"),
        Head("After, %", "n"), Head("Tolerance", "n"), Head("Verdict"), Head("n", "n"),
    ]  # fmt: skip
    caption = f"Change since {report.history[-2]} in points of {report.evaluation.headline}; dashed: tolerance"
    return data_table(heads, rows, caption=caption, style="strips")


def trust_map(lineage: Lineage) -> Markup:
    """Measured trust of every teacher; bold: it may teach there."""
    teachers = [teacher for teacher in lineage.teachers if teacher.trust]
    domains = sorted({domain for teacher in teachers for domain in teacher.trust})
    values = [s.accuracy for t in teachers for s in t.trust.values() if s.accuracy is not None]
    low, high = round_range(values)
    rows = []
    for domain in domains:
        cells = []
        for teacher in teachers:
            score, weight = teacher.trust.get(domain), teacher.domains.get(domain, 0.0)
            if score is None or score.accuracy is None:
                cells.append(number("–", math.nan, title=f"{teacher.name} is not measured on {domain}"))
                continue
            shown = tag("b" if weight >= 0.005 else "span", percent(score.accuracy))
            interval = bounds(_or_nan(score.lower), _or_nan(score.upper))
            more = f" × {weight:.2f}" if 0.005 <= weight < 0.995 else ""
            title = f"{teacher.name} on {domain}: {percent(score.accuracy)} % ({interval}), weight {weight:.3g}"
            style = f"n {heat(score.accuracy, low, high)}"
            cells.append(Cell(join([shown, tag("small", interval + more)]), score.accuracy, style, title))
        rows.append([Cell(domain), *cells])
    heads = [Head("Domain"), *(Head(teacher.name, "n model") for teacher in teachers)]
    caption = f"Accuracy of the teachers in % on the calibration split, as measured for {lineage.version}"
    note = "Bold: the teacher may teach the domain; × is its weight where that is not 1."
    return join([
        legend(low, high), data_table(heads, rows, caption=caption, style="heat"), tag("p", note, class_="note")
    ])  # fmt: skip


def loss_curves(lineage: Lineage) -> Markup:
    """The total loss of the run, and every term of it; of each stage, if it had several."""
    stages = [(f"{lineage.version}, stage {stage.number} ({stage.name})", stage.training) for stage in lineage.stages]
    last = f"{lineage.version}, last stage" if stages else lineage.version
    return join(_stage_curves(title, training) for title, training in (*stages, (last, lineage.training)))


def _stage_curves(title: str, training: TrainingRecord) -> Markup:
    log = [{name: value for name, value in point.items() if isinstance(value, int | float)} for point in training.log]
    names = list(dict.fromkeys(name for point in log for name in point if name != "step"))
    names.sort(key=lambda name: name != "loss")
    figures = [_curve(log, name, wide=position == 0) for position, name in enumerate(names)]
    facts = (
        f"{title}: {training.steps:,} steps of {training.batch_size} samples, learning rate {training.lr:g}, "
        f"seed {training.seed}, {training.seconds:,.0f} s on {training.machine.device} "
        f"({training.machine.processes} process{'es' * (training.machine.processes != 1)}, "
        f"precision {training.machine.precision})"
    )
    return join([tag("p", facts), tag("div", *figures, class_="figures")])


def _curve(log: Sequence[Mapping[str, Any]], name: str, *, wide: bool) -> Markup:
    x = [float(point["step"]) for point in log if name in point]
    y = [float(point[name]) for point in log if name in point]
    title = "total loss" if name == "loss" else name if name.startswith("own/") else f"loss term {name}"
    label = f"{title}: {y[0]:.3g} at step {x[0]:.0f}, {y[-1]:.3g} at step {x[-1]:.0f}, {len(x)} points"
    chart = line_chart(
        [Line(x, y, "strong" if wide else "term", title)],
        label=label, x_title="step", width=760 if wide else 370, height=240 if wide else 170,
    )  # fmt: skip
    return tag("figure", chart, tag("figcaption", label), class_="wide" if wide else None)


def lineage_table(facts: PageFacts) -> Markup:
    """The versions that led here."""
    rows = []
    for item in facts.lineages:
        mean = item.scores.mean.get("accuracy", math.nan)
        worst = item.retention.worst if item.retention else None
        rows.append([
            Cell(item.version), Cell(item.parent or "–"), Cell(item.created[:10]), Cell(item.made_by),
            Cell(", ".join(t.name for t in item.teachers if not t.inherited) or "–"),
            number(f"{sum(item.data.samples.values()):,}", sum(item.data.samples.values())),
            number("not judged" if math.isnan(mean) else percent(mean), mean),
            number(f"{points(worst.points)} ({worst.domain})", worst.points) if worst else number("–", math.nan),
        ])  # fmt: skip
    heads = [
        Head("Version"), Head("Parent"), Head("Created"), Head("Recipe"), Head("Teachers of the run"),
        Head("Samples", "n"), Head("Accuracy, %", "n"), Head("Worst change, points", "n"),
    ]  # fmt: skip
    return data_table(heads, rows, caption="Accuracy: mean over domains on the calibration split")


def _changes(retention: Retention | None) -> Sequence[DomainChange]:
    return () if retention is None else (*retention.domains.values(), *retention.checks)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
