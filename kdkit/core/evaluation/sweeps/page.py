"""``report.html`` of a sweep: changes with intervals, accuracy per domain, and a line over the swept key."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from kdkit.core.base.markup import Markup, join, tag
from kdkit.core.base.result import Table
from kdkit.core.data.names import count_of
from kdkit.core.evaluation.page.document import PageSection, render_document
from kdkit.core.evaluation.page.interval_chart import Dot, Rule, Span, axis, scale_of, strip
from kdkit.core.evaluation.page.line_chart import Line, line_chart
from kdkit.core.evaluation.page.numbers import percent, points, points_bounds
from kdkit.core.evaluation.page.tables import Cell, Head, data_table, heat, legend, number, round_range
from kdkit.core.evaluation.sweeps.clinkd import FIGURE_4, paper_tables, task_means, tasks_of
from kdkit.core.evaluation.sweeps.report import SweepReport
from kdkit.core.evaluation.sweeps.results import VariationResult

COLORS = 6
"""Classes ``t0`` to ``t5`` of lines."""


def render_sweep(report: SweepReport) -> str:
    """A complete HTML document."""
    record = report.record
    seeds = count_of(record.seeds, "seed")
    subtitle = (
        f"recipe {record.recipe} · {record.split} split · {seeds} · {record.length:g} of the steps · "
        f"{report.runs - len(report.missing)} of {report.runs} runs finished"
    )
    return render_document(f"Sweep {record.name}", subtitle, list(_sections(report)))


def _sections(report: SweepReport) -> Iterator[PageSection]:
    for number_, part in enumerate(report.parts):
        title = "Changes" + (f": {part}" if part else "")
        yield PageSection(f"changes-{number_}", title, changes(report, report.of_part(part)))
    if report.record.question == "clinkd":
        for number_, (title, table) in enumerate(paper_tables(report.results)):
            yield PageSection(f"paper-{number_}", title, plain_table(title, table))
        if (chart := alpha_chart(report)) is not None:
            yield PageSection("alpha", "Accuracy over alpha", chart)
    elif report.record.axis and (chart := axis_chart(report)) is not None:
        yield PageSection("axis", f"Accuracy over {report.record.axis}", chart)
    yield PageSection("domains", "Accuracy by domain", by_domain(report))
    yield PageSection("notes", "How to read this", tag("ul", *(tag("li", line) for line in report.notes)))


def changes(report: SweepReport, results: Sequence[VariationResult]) -> Markup:
    """One strip per variation: a small dot for each seed, and the change with its interval."""
    compared = [(r, r.effect.mean) for r in results if r.effect is not None]
    seeds = [value for result, _ in compared for _, value in report.per_seed(result)]
    scale = scale_of([*seeds, *(v for _, c in compared for v in (c.points, c.low, c.high))], zero=True)
    rows = []
    for result in results:
        one, effect = result.variation, result.effect
        runs = number(f"{len(result.seeds)} of {len(one.runs)}", len(result.seeds))
        mean = number(percent(result.mean), result.mean, title=f"spread over seeds {percent(result.spread)}")
        if effect is None:
            why = one.impossible or ("compared with this" if not one.against else report.change_text(result))
            rows.append([Cell(one.name), Cell(why, style="faint"), mean, Cell("–"), runs])
            continue
        change = effect.mean
        style = "plain" if not change.distinguishable else "lost" if change.points < 0 else "student"
        words = f"{one.name}: {points(change.points)} points ({points_bounds(change.low, change.high)})"
        marks: list[Dot | Span | Rule] = [
            Rule(0.0),
            Span(change.low, change.high, style),
            *(Dot(value, "m0", "oracle", f"seed {seed}: {points(value)}") for seed, value in report.per_seed(result)),
            Dot(change.points, "m1", style, words),
        ]
        text = join([tag("span", points(change.points)), tag("small", points_bounds(change.low, change.high))])
        rows.append(
            [
                Cell(one.name),
                Cell(strip(scale, marks, words), style="strip-cell"),
                mean,
                Cell(text, change.points, "n"),
                runs,
            ]
        )
    heads = [
        Head("Variation"), Head(axis(scale), "strip-cell", sortable=False), Head("Accuracy, %", "n"),
        Head("Change, points", "n"), Head("Runs", "n"),
    ]  # fmt: skip
    caption = (
        "Square: change of the mean accuracy, with its 95 % interval over samples and seeds; discs: single seeds. "
        "Colored where the interval excludes 0."
    )
    return data_table(heads, rows, caption=caption, style="strips")


def axis_chart(report: SweepReport) -> Markup | None:
    """A line per domain over the swept key, and their mean; None with fewer than two points."""
    axis_key = report.record.axis
    found = [(result.variation.values.get(axis_key), result) for result in report.results if result.accuracies]
    on_axis = sorted(((float(x), result) for x, result in found if x is not None), key=lambda pair: pair[0])
    if len(on_axis) < 2:
        return None
    x = [value for value, _ in on_axis]
    domains = on_axis[0][1].variation.domains
    lines = [
        Line(x, [100 * result.domain(d) for _, result in on_axis], f"t{n % COLORS}", d, d)
        for n, d in enumerate(domains)
    ]
    if len(domains) > 1:
        lines.append(Line(x, [100 * result.mean for _, result in on_axis], "strong", "mean", "mean"))
    return _figure(lines, f"Accuracy in %, mean over seeds, over {axis_key}", axis_key)


def alpha_chart(report: SweepReport) -> Markup | None:
    """Figure 4: a line per task over alpha."""
    results = [result for result in report.of_part(FIGURE_4) if result.accuracies]
    results.sort(key=lambda result: float(result.variation.values["alpha"]))
    if len(results) < 2:
        return None
    x = [float(result.variation.values["alpha"]) for result in results]
    lines = [
        Line(x, [100 * float(np.mean(task_means(r, domains))) for r in results], f"t{n % COLORS}", task, task.upper())
        for n, (task, domains) in enumerate(tasks_of(report.domains).items())
    ]
    return _figure(lines, "Mean over modalities and seeds in %, over alpha of eq. 16", "alpha")


def _figure(lines: Sequence[Line], label: str, x_title: str) -> Markup:
    return tag("figure", line_chart(lines, label=label, x_title=x_title), tag("figcaption", label))


def by_domain(report: SweepReport) -> Markup:
    """Accuracy of every variation in every domain that it was scored on, with the spread over seeds."""
    record = report.record
    domains = sorted(
        {d for one in record.variations for d in one.domains}, key=lambda d: (-record.samples.get(d, 0), d)
    )
    low, high = round_range(result.domain(d) for result in report.results for d in domains if result.accuracies)
    rows = [
        [Cell(result.variation.name), *(_heat_cell(result, d, low, high) for d in domains)] for result in report.results
    ]
    heads = [Head("Variation"), *(Head(f"{d} (n = {record.samples.get(d, 0):,})", "n") for d in domains)]
    caption = "Accuracy in %, mean over seeds, and standard deviation between seeds; n: training samples"
    return join([legend(low, high), data_table(heads, rows, caption=caption, style="heat")])


def _heat_cell(result: VariationResult, domain: str, low: float, high: float) -> Cell:
    if not result.accuracies:
        return number("–", math.nan)
    value, spread = result.domain(domain), result.domain_spread(domain)
    text = join([tag("span", percent(value)), tag("small", "" if math.isnan(spread) else f"± {100 * spread:.1f}")])
    return Cell(text, value, f"n {heat(value, low, high)}", f"{result.variation.name} on {domain}: {percent(value)} %")


def plain_table(title: str, table: Table) -> Markup:
    """A table of text as HTML."""
    right = [letter == "r" for letter in table.align]
    heads = [Head(name, "n" if r else "") for name, r in zip(table.headers, right, strict=True)]
    rows = [[Cell(str(cell), style="n" if r else "") for cell, r in zip(row, right, strict=True)] for row in table.rows]
    return data_table(heads, rows, caption=f"{title}; mean ± standard deviation over seeds")
