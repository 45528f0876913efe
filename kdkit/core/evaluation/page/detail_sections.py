"""Sections about what scores hold beside their metrics: confusions, reliability, subgroups, curves."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdkit.core.base.markup import Markup, join, shorten, tag
from kdkit.core.contracts import Calibration, Confusion, Curve, SubgroupScore
from kdkit.core.evaluation.answering.gate import HEADERS, gate_rows
from kdkit.core.evaluation.answering.gate_file import Gate
from kdkit.core.evaluation.page.interval_chart import Dot, Rule, Span, axis, scale_of, strip
from kdkit.core.evaluation.page.line_chart import Line, line_chart
from kdkit.core.evaluation.page.numbers import bounds, percent
from kdkit.core.evaluation.page.tables import Cell, Head, data_table, heat, number
from kdkit.core.evaluation.report.report import EvaluationReport
from kdkit.core.evaluation.scores import Evaluation

MATRIX = 20
"""With more classes than this, a domain has a list of its largest confusions instead of a matrix."""
LISTED = 20
SIDE, EDGE = 220, 34
"""Pixels of a reliability diagram, and of the space for its axes."""


def best_of_n(gates: Sequence[Gate]) -> Markup:
    """A table per setting of sampling: the decision of each domain, with its reason."""
    tables = []
    for gate in gates:
        decoding = gate.settings.get("decoding", {})
        count = decoding.get("samples") or decoding.get("beams")
        drawn = f"{count} sampled answers and the greedy one" if decoding.get("samples") else f"{count} beams"
        rows = [[Cell(str(cell)) for cell in row] for row in gate_rows([gate.domains[d] for d in sorted(gate.domains)])]
        tables.append(data_table(HEADERS, rows, caption=f"{drawn}: accuracy on the calibration split"))
    note = (
        "Domains where no choice is shown to help get the plain answer. Rules are cross-fitted; intervals are at 95 %."
    )
    return join([tag("p", note, class_="note"), *tables])


def confusion_matrices(report: EvaluationReport) -> Markup | None:
    """A matrix per domain of the student; shades are shares of the true class."""
    domains = report.evaluation.model(report.version).domains
    parts = [_confusion(name, score.confusion, score.level) for name, score in domains.items() if score.confusion]
    if not parts:
        return None
    note = "Rows: true classes, columns: predicted ones. Shades: shares of the true class. Recall has Wilson intervals."
    return join([tag("p", note, class_="note"), tag("div", *parts, class_="matrices")])


def _confusion(domain: str, item: Confusion, level: float) -> Markup:
    return _matrix(domain, item, level) if len(item.classes) <= MATRIX else _largest(domain, item)


def _matrix(domain: str, item: Confusion, level: float) -> Markup:
    rows = []
    for row, name in enumerate(item.classes):
        total = sum(item.counts[row])
        cells = [
            Cell(
                f"{count:,}",
                float(count),
                f"n {heat(count / total, 0, 1) if total else ''}" + " hit" * (row == column),
                f"{name} taken for {item.classes[column]}: {count} of {total}",
            )
            for column, count in enumerate(item.counts[row])
        ]
        rows.append([Cell(name), *cells, _recall(item.counts[row][row], total, level), number(f"{total:,}", total)])
    heads = [
        Head("True class"),
        *(Head(name, "n model") for name in item.classes),
        Head("Recall, %", "n"),
        Head("n", "n"),
    ]
    right = sum(counts[row] for row, counts in enumerate(item.counts))
    total = sum(map(sum, item.counts))
    caption = f"{domain}: {right:,} of {total:,} right ({percent(right / total) if total else '–'} %)"
    return tag("div", data_table(heads, rows, caption=caption, style="heat matrix"))


def _recall(right: int, total: int, level: float) -> Cell:
    if not total:
        return Cell("–", style="n", title="no sample")
    low, high = wilson(right, total, level)
    return Cell(join([tag("span", percent(right / total)), tag("small", bounds(low, high))]), right / total, "n")


def wilson(right: int, total: int, level: float) -> tuple[float, float]:
    """Interval of a share (Wilson, JASA 22, 1927), by scipy."""
    from scipy.stats import binomtest

    found = binomtest(right, total).proportion_ci(confidence_level=level, method="wilson")
    return float(found.low), float(found.high)


def _largest(domain: str, item: Confusion) -> Markup:
    off = [
        (count, row, column)
        for row, counts in enumerate(item.counts)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    rows = [
        [
            Cell(item.classes[row]), Cell(item.classes[column]), number(f"{count:,}", count),
            number(f"{sum(item.counts[row]):,}", float(sum(item.counts[row]))),
        ]
        for count, row, column in sorted(off, key=lambda found: -found[0])[:LISTED]
    ]  # fmt: skip
    caption = f"{domain}: the {len(rows)} largest confusions among {len(item.classes)} classes"
    heads = [Head("True class"), Head("Predicted"), Head("Samples", "n"), Head("n of the true class", "n")]
    return tag("div", data_table(heads, rows, caption=caption))


def reliability(report: EvaluationReport) -> Markup | None:
    """A diagram per domain of the student, and the calibration errors of all models."""
    domains = report.evaluation.model(report.version).domains
    diagrams = [_diagram(name, score.calibration) for name, score in domains.items() if score.calibration]
    if not diagrams:
        return None
    note = (
        "Dots are bins of samples by the probability of the chosen class; their area is the number of samples. On the "
        "diagonal, probabilities are what they say; below it, the student is too sure."
    )
    return join([
        tag("p", note, class_="note"), tag("div", *diagrams, class_="figures small-figures"),
        _calibration_table(report.evaluation),
    ])  # fmt: skip


def _diagram(domain: str, item: Calibration) -> Markup:
    total = sum(found.count for found in item.bins) or 1
    inner = SIDE - EDGE - 10

    def across(value: float) -> float:
        return EDGE + inner * value

    def down(value: float) -> float:
        return 10 + inner * (1 - value)

    parts = []
    for tick in (0.0, 0.5, 1.0):
        y, x = f"{down(tick):.1f}", f"{across(tick):.1f}"
        parts.append(tag("line", x1=EDGE, x2=across(1.0), y1=y, y2=y, class_="grid"))
        parts.append(tag("text", f"{100 * tick:g}", x=EDGE - 6, y=y, dy="0.35em", text_anchor="end"))
        parts.append(tag("text", f"{100 * tick:g}", x=x, y=down(0.0) + 16, text_anchor="middle"))
    parts.append(tag("line", x1=across(0), y1=down(0), x2=across(1), y2=down(1), class_="tolerance"))
    for found in item.bins:
        words = (
            f"confidence {percent(found.low, 0)} to {percent(found.high, 0)} %: mean {percent(found.confidence)} %, "
            f"accuracy {percent(found.accuracy)} %, n = {found.count:,}"
        )
        x, y = f"{across(found.confidence):.1f}", f"{down(found.accuracy):.1f}"
        radius = 2.5 + 9 * math.sqrt(found.count / total)
        parts.append(tag("line", x1=x, x2=x, y1=y, y2=f"{down(found.confidence):.1f}", class_="gap"))
        parts.append(tag("circle", tag("title", words), cx=x, cy=y, r=f"{radius:.1f}", class_="bin"))
    value, low, high = item.ece
    words = f"{domain}: ECE {percent(value)} % ({bounds(low, high)}), n = {sum(b.count for b in item.bins):,}"
    picture = tag(
        "svg", *parts, class_="chart square", viewBox=f"0 0 {SIDE} {SIDE}", width=SIDE, height=SIDE, role="img",
        aria_label=f"Accuracy in % over confidence in %. {words}",
    )  # fmt: skip
    return tag("figure", picture, tag("figcaption", words))


def _calibration_table(evaluation: Evaluation) -> Markup:
    rows = []
    for model in evaluation.models:
        for domain, score in model.domains.items():
            if (item := score.calibration) is None:
                continue
            sets = item.conformal
            rows.append([
                Cell(model.name), Cell(domain), _estimate(item.ece), _estimate(item.adaptive_ece),
                _estimate(item.brier, share=False),
                Cell("–", style="n")
                if sets is None
                else _estimate(sets.coverage, title=f"target {percent(sets.target)} %"),
                Cell("–", style="n") if sets is None else _estimate(sets.size, share=False),
                number(f"{score.count:,}", score.count),
            ])  # fmt: skip
    heads = [
        Head("Model"), Head("Domain"), Head("ECE, %", "n"), Head("Adaptive ECE, %", "n"), Head("Brier score", "n"),
        Head("Conformal coverage, %", "n"), Head("Mean set size", "n"), Head("n", "n"),
    ]  # fmt: skip
    table = data_table(heads, rows, caption="Calibration of all models, with intervals")
    return tag("details", tag("summary", f"Calibration of all models: {len(rows):,} rows"), table)


def _estimate(found: tuple[float, float, float], *, share: bool = True, title: str = "") -> Cell:
    value, low, high = found
    if math.isnan(value):
        return Cell("–", style="n")
    text = percent(value) if share else f"{value:.3g}"
    around = bounds(low, high) if share else "" if math.isnan(low + high) else f"{low:.3g} to {high:.3g}"
    return Cell(join([tag("span", text), tag("small", around)]), value, "n", title)


def subgroup_forest(report: EvaluationReport) -> Markup | None:
    """A forest plot per column: the student on every subgroup, beside all samples of the domain."""
    evaluation, metric = report.evaluation, report.evaluation.headline
    domains = evaluation.model(report.version).domains
    columns = list(dict.fromkeys(group.column for score in domains.values() for group in score.subgroups))
    parts = []
    for column in columns:
        found = [(d, g) for d, score in domains.items() for g in score.subgroups if g.column == column]
        overall = {d: score.metrics.get(metric, math.nan) for d, score in domains.items()}
        parts += [tag("h3", f"By {column}"), _forest(found, overall, metric)]
    return join(parts) if parts else None


def _forest(found: Sequence[tuple[str, SubgroupScore]], overall: dict[str, float], metric: str) -> Markup:
    judged = [(d, g) for d, g in found if metric in g.metrics]
    scale = scale_of(
        [v for d, g in judged for v in (*g.intervals.get(metric, ()), g.metrics[metric], overall[d])],
        factor=100, unit=" %",
    )  # fmt: skip
    worst = min(judged, key=lambda pair: pair[1].metrics[metric] - overall[pair[0]], default=None)
    rows = []
    for domain, group in found:
        count = number(f"{group.count:,}", group.count, title=f"{group.groups} groups" if group.groups else "")
        if metric not in group.metrics:
            rows.append(
                [Cell(domain), Cell(group.value), Cell(group.note or "not judged", style="faint"), Cell("–"), count]
            )
            continue
        value, (low, high) = group.metrics[metric], group.intervals.get(metric, (math.nan, math.nan))
        last = worst is not None and worst[1] is group and len(judged) > 1
        words = f"{domain}, {group.column} {group.value}: {percent(value)} % ({bounds(low, high)}), n = {group.count:,}"
        style = "lost" if last else "plain"
        marks: list[Dot | Span | Rule] = [
            Rule(overall[domain], "tolerance"),
            Span(low, high, style),
            Dot(value, "m1", style, words),
        ]
        shown = Cell(join([tag("span", percent(value)), tag("small", bounds(low, high))]), value, "n")
        name = Cell(f"{group.value} (worst)" if last else group.value, style="verdict-lost" if last else "")
        rows.append([Cell(domain), name, Cell(strip(scale, marks, words), style="strip-cell"), shown, count])
    heads = [
        Head("Domain"), Head("Subgroup"), Head(axis(scale), "strip-cell", sortable=False),
        Head(f"{metric.capitalize()}, %", "n"), Head("n", "n"),
    ]  # fmt: skip
    caption = "Dashed: all samples of the domain. Worst: the subgroup that is farthest below its domain."
    return data_table(heads, rows, caption=caption, style="strips")


def curves(report: EvaluationReport) -> Markup | None:
    """Curves such as the survival of risk groups, with their pointwise intervals."""
    domains = report.evaluation.model(report.version).domains
    figures = [_curves(name, score.curves) for name, score in domains.items() if score.curves]
    return tag("div", *figures, class_="figures") if figures else None


def _curves(domain: str, found: Sequence[Curve]) -> Markup:
    lines, styles = list[Line](), ("t0", "student", "t1", "t2", "t4", "t5")
    for number_, curve in enumerate(found):
        style = styles[number_ % len(styles)]
        x = [point for at in curve.x for point in (at, at)][1:]
        for values, kind in ((curve.low, "bound"), (curve.high, "bound"), (curve.y, "curve")):
            y = [value for v in values for value in (v, v)][:-1]
            end = f"{curve.name}, n = {curve.count:,}" if kind == "curve" else ""
            lines.append(Line(x, y, f"{kind} {style}", f"{curve.name} ({kind})", end))
    label = f"{domain}: " + ", ".join(f"{curve.name} (n = {curve.count:,})" for curve in found)
    return tag("figure", line_chart(lines, label=shorten(label, 300)), tag("figcaption", label), class_="wide")
