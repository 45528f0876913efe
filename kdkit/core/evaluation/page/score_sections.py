"""Sections about one evaluation: the heat map, the student against teachers and oracle, and all numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from kdkit.core.base.markup import Markup, join, tag
from kdkit.core.contracts import DomainScore
from kdkit.core.evaluation.page.interval_chart import Dot, Span, axis, key, look, scale_of, strip
from kdkit.core.evaluation.page.numbers import bounds, percent, points, points_bounds
from kdkit.core.evaluation.page.tables import Cell, Head, data_table, heat, legend, number, round_range
from kdkit.core.evaluation.report.report import EvaluationReport
from kdkit.core.evaluation.report.tables import headline
from kdkit.core.evaluation.scores import Evaluation, ModelScores

ORACLE = "oracle"


def shown_models(evaluation: Evaluation) -> list[ModelScores]:
    """Students, teachers and the oracle that one could use."""
    return [model for model in evaluation.models if model.name != "oracle-on-test"]


def samples_of(evaluation: Evaluation, domain: str) -> int:
    """Samples of a domain."""
    return max(model.domains[domain].count for model in evaluation.models if domain in model.domains)


def heat_map(report: EvaluationReport) -> Markup:
    """Every model on every domain; the best teacher of a row is bold."""
    evaluation = report.evaluation
    models, metric = shown_models(evaluation), evaluation.headline
    low, high = round_range(v for m in models for v in m.values(metric, evaluation.domains))
    rows = []
    for domain in evaluation.domains:
        best = max(
            (v for m in evaluation.of_role("teacher") if not math.isnan(v := _value(m, domain, metric))), default=2
        )
        cells = [_heat_cell(model, domain, metric, low, high, best) for model in models]
        count = samples_of(evaluation, domain)
        rows.append([Cell(domain), *cells, number(f"{count:,}", count)])
    means = [
        number(percent(m.means.get(metric, math.nan)), m.means.get(metric, math.nan), title=_mean_bounds(m, metric))
        for m in models
    ]
    heads = [Head("Domain"), *(Head(_name(model), "n model") for model in models), Head("n", "n")]
    caption = f"{headline(evaluation)} in % with {_level(evaluation)} intervals, {evaluation.split} split"
    foot = [[Cell("Mean over domains"), *means, number("", math.nan)]]
    note = "The best teacher of each domain is bold. A click on a header sorts by it."
    return join([
        legend(low, high),
        data_table(heads, rows, caption=caption, style="heat", foot=foot),
        tag("p", note, class_="note"),
    ])  # fmt: skip


def _heat_cell(model: ModelScores, domain: str, metric: str, low: float, high: float, best: float) -> Cell:
    value = _value(model, domain, metric)
    if math.isnan(value):
        return number("–", math.nan, title=f"{model.name} is not scored on {domain}")
    score = model.domains[domain]
    strong = model.role == "teacher" and value >= best
    inner = join([tag("b" if strong else "span", percent(value)), tag("small", _bounds(score, metric))])
    title = f"{model.name} on {domain}: {percent(value)} % ({_bounds(score, metric)}), n = {score.count}"
    return Cell(inner, value, f"n {heat(value, low, high)}", title)


def against_teachers(report: EvaluationReport) -> Markup:
    """One strip per domain: every teacher, the oracle, and the student with its interval."""
    evaluation, metric = report.evaluation, report.evaluation.headline
    models, student = shown_models(evaluation), evaluation.model(report.version)
    teachers = evaluation.of_role("teacher")
    scale = scale_of(_spread(models, metric, student), factor=100, unit=" %")
    oracle = next((m for m in evaluation.models if m.name == ORACLE), None)
    differences = evaluation.against_oracle.get(student.name, {})
    rows = []
    for domain in evaluation.domains:
        if metric not in getattr(student.domains.get(domain), "metrics", ()):
            continue
        score, value = student.domains[domain], student.domains[domain].metrics[metric]
        best = max(teachers, key=lambda t: _or_low(_value(t, domain, metric)), default=None)
        change, low, high = differences.get(domain, (math.nan,) * 3)
        row = strip(scale, _marks(student, teachers, oracle, domain, metric), _in_words(models, domain, metric))
        rows.append([
            Cell(domain), Cell(row, style="strip-cell"), _with_small(percent(value), _bounds(score, metric), value),
            Cell("–" if best is None else f"{best.name} {percent(_value(best, domain, metric))}"),
            _with_small(points(100 * change), points_bounds(100 * low, 100 * high), change),
            number(f"{score.count:,}", score.count),
        ])  # fmt: skip
    heads = [
        Head("Domain"), Head(axis(scale), "strip-cell", sortable=False), Head("Student, %", "n"),
        Head("Best teacher, %"), Head("To the oracle, points", "n"), Head("n", "n"),
    ]  # fmt: skip
    keys = [key("student", "student", f"student {student.name}")]
    keys += [key("oracle", "oracle", "oracle: the teacher that is best on the calibration split")] if oracle else []
    keys += [key(*look(number), teacher.name) for number, teacher in enumerate(teachers)]
    caption = f"{headline(evaluation)}: {student.name} beside teachers and oracle"
    return join([tag("p", *keys, class_="legend"), data_table(heads, rows, caption=caption, style="strips")])


def _marks(
    student: ModelScores, teachers: Sequence[ModelScores], oracle: ModelScores | None, domain: str, metric: str
) -> list[Dot | Span]:
    marks: list[Dot | Span] = []
    if oracle is not None:
        value = _value(oracle, domain, metric)
        marks.append(Dot(value, "oracle", "oracle", f"oracle ({oracle.chosen.get(domain, '?')}): {percent(value)} %"))
    for position, teacher in enumerate(teachers):
        value = _value(teacher, domain, metric)
        marks.append(Dot(value, *look(position), f"{teacher.name}: {percent(value)} %"))
    score = student.domains[domain]
    marks.append(Span(*score.intervals.get(metric, (math.nan, math.nan)), "student"))
    marks.append(
        Dot(score.metrics[metric], "student", "student", f"{student.name}: {percent(score.metrics[metric])} %")
    )
    return marks


def all_numbers(report: EvaluationReport) -> Markup:
    """Every metric of every model on every domain, with n and interval."""
    evaluation, rows = report.evaluation, list[list[Cell]]()
    for model in evaluation.models:
        for domain, score in model.domains.items():
            for metric, value in score.metrics.items():
                interval = bounds(*score.intervals.get(metric, (math.nan, math.nan)))
                rows.append(_number_row(model, domain, metric, percent(value), value, interval, score.count))
            for metric, (value, low, high) in score.figures.items():
                interval = "" if math.isnan(low + high) else f"{low:g} to {high:g}"
                rows.append(_number_row(model, domain, metric, f"{value:g}", value, interval, score.count))
    heads = [
        Head("Model"), Head("Role"), Head("Domain"), Head("Metric"), Head("Value", "n"),
        Head(f"{_level(evaluation)} interval", "n"), Head("n", "n"),
    ]  # fmt: skip
    table = data_table(heads, rows, caption="Shares are in %; figures such as ranks have their own unit")
    return tag("details", tag("summary", f"{len(rows):,} numbers"), table)


def _number_row(
    model: ModelScores, domain: str, metric: str, text: str, value: float, interval: str, count: int
) -> list[Cell]:
    return [
        Cell(model.name), Cell(model.role), Cell(domain), Cell(metric), number(text, value),
        Cell(interval or "–", style="n"), number(f"{count:,}", count),
    ]  # fmt: skip


def _in_words(models: Sequence[ModelScores], domain: str, metric: str) -> str:
    values = ((model.name, _value(model, domain, metric)) for model in models)
    return f"{domain}: " + ", ".join(f"{name} {percent(value)} %" for name, value in values if not math.isnan(value))


def _with_small(text: str, small: str, sort_key: float) -> Cell:
    return Cell(join([tag("span", text), tag("small", small)]), None if math.isnan(sort_key) else sort_key, "n")


def _spread(models: Sequence[ModelScores], metric: str, student: ModelScores) -> list[float]:
    values = [score.metrics.get(metric, math.nan) for model in models for score in model.domains.values()]
    return values + [bound for score in student.domains.values() for bound in score.intervals.get(metric, ())]


def _value(model: ModelScores, domain: str, metric: str) -> float:
    return model.values(metric, (domain,))[0]


def _or_low(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _bounds(score: DomainScore, metric: str) -> str:
    return bounds(*score.intervals.get(metric, (math.nan, math.nan)))


def _mean_bounds(model: ModelScores, metric: str) -> str:
    return bounds(*model.intervals[metric]) if metric in model.intervals else ""


def _name(model: ModelScores) -> str:
    return f"student {model.name}" if model.role == "student" else model.name


def _level(evaluation: Evaluation) -> str:
    level = next((s.level for m in evaluation.models for s in m.domains.values()), math.nan)
    return f"{100 * level:g} %"
