"""The page as a whole: sections in their order, and what is absent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from kdkit.core.base.markup import Markup, join, shorten, tag
from kdkit.core.evaluation.page import detail_sections, sample_sections, score_sections
from kdkit.core.evaluation.page import history_sections as history
from kdkit.core.evaluation.page.document import PageSection, render_document
from kdkit.core.evaluation.page.facts import PageFacts
from kdkit.core.evaluation.page.numbers import bounds, percent, points, points_bounds
from kdkit.core.evaluation.page.tables import Cell, Head, data_table
from kdkit.core.evaluation.report.report import EvaluationReport
from kdkit.core.evaluation.report.tables import evaluation_notes, headline
from kdkit.core.evaluation.scores import SUITE

DETAILS: Sequence[tuple[str, str, Callable[[EvaluationReport], Markup | None]]] = (
    ("reliability", "Reliability", detail_sections.reliability),
    ("subgroups", "Subgroups", detail_sections.subgroup_forest),
    ("confusions", "Confusion matrices", detail_sections.confusion_matrices),
    ("curves", "Curves", detail_sections.curves),
)
"""Anchor, title and content of what only some evaluations hold."""
ABSENT = {
    "reliability": "No stored evaluation holds calibration: run 'kdkit evaluate' again.",
    "subgroups": "No stored evaluation holds subgroups: run 'kdkit evaluate --by COLUMN'.",
    "confusions": "No stored evaluation holds predicted classes: run 'kdkit evaluate' again.",
}


def render_page(facts: PageFacts) -> str:
    """A complete HTML document. Its policy forbids every request and every script but its own."""
    sections = list(_sections(facts))
    sections.append(PageSection("absent", "What is absent", _absent(absent_parts(facts))))
    return render_document(f"{facts.project}: {facts.version}", _subtitle(facts), sections)


def section_titles(facts: PageFacts) -> tuple[str, ...]:
    """Titles of the sections that the page has."""
    return tuple(section.title for section in _sections(facts))


def _sections(facts: PageFacts) -> Iterator[PageSection]:
    yield PageSection("summary", "Summary", _summary(facts))
    for number, report in enumerate(facts.reports):
        yield from _evaluation(report, number)
    if facts.lineage.teachers:
        yield PageSection("trust", "Trust in the teachers", history.trust_map(facts.lineage))
    if facts.gates:
        yield PageSection("best-of-n", "Best of several answers", detail_sections.best_of_n(facts.gates))
    if (samples := facts.samples) is not None:
        if samples.flips:
            parent = facts.lineage.parent or "its parent"
            changed = sample_sections.changed_samples(samples.changes, samples.flips, parent, facts.version)
            yield PageSection("changed", f"Most-changed samples since {parent}", changed)
        if samples.examples:
            examples = sample_sections.retrieval_examples(samples.examples)
            yield PageSection("examples", "Retrieval examples", examples)
    if logged := [item for item in facts.lineages if item.training.log]:
        curves = join(tag("div", tag("h3", item.version), history.loss_curves(item)) for item in reversed(logged))
        yield PageSection("training", "Training", curves)
    yield PageSection("lineage", "Where it comes from", join([history.lineage_table(facts), _teachers(facts)]))


def _evaluation(report: EvaluationReport, number: int) -> Iterator[PageSection]:
    evaluation = report.evaluation
    task, suffix = str(evaluation.settings.get("task", "zero-shot")), f"-{number}" if number else ""
    suite = f"suite {evaluation.settings[SUITE]}, " if SUITE in evaluation.settings else ""
    named = "" if number == 0 else f" ({suite}{task}, {evaluation.split} split)"
    yield PageSection(f"domains{suffix}", f"Models by domain{named}", score_sections.heat_map(report))
    yield PageSection(
        f"against{suffix}", f"Student, teachers and oracle{named}", score_sections.against_teachers(report)
    )
    if len(report.history) > 1:
        yield PageSection(f"retention{suffix}", f"Retention{named}", _retention(report))
    for name, title, make in DETAILS:
        if (content := make(report)) is not None:
            yield PageSection(f"{name}{suffix}", f"{title}{named}", content)
    numbers = join([score_sections.all_numbers(report), _notes(report)])
    yield PageSection(f"numbers{suffix}", f"All numbers{named}", numbers)


def _retention(report: EvaluationReport) -> Markup:
    parts = [history.retention_over_versions(report)]
    if report.retention is not None and report.retention.domains:
        parts = [history.changes_since_parent(report), *parts]
    if report.repair is not None:
        parts.append(tag("p", f"{report.version}: {report.repair}"))
    return join(parts)


def _summary(facts: PageFacts) -> Markup:
    """Tiles with the figures that decide, each with n and interval."""
    lineage, report = facts.lineage, facts.main
    tiles = list[Markup]()
    if report is not None:
        tiles += _score_tiles(report)
    elif lineage.judged and "accuracy" in lineage.scores.mean:
        mean = lineage.scores.mean["accuracy"]
        tiles.append(_tile("Accuracy", f"{percent(mean)} %", "mean over domains, calibration split; no interval"))
    if (kept := lineage.retention) is not None and kept.mean is not None:
        interval = "" if kept.low is None or kept.high is None else points_bounds(kept.low, kept.high)
        text = f"points on old domains, calibration split; {interval}"
        tiles.append(_tile(f"Change since {lineage.parent}", points(kept.mean), text))
    if kept is not None and kept.guard is not None and not kept.guard.promoted:
        changes = {**{c.name: c for c in kept.checks}, **kept.domains}
        lost = [f"{name} {points(changes[name].points)}" if name in changes else name for name in kept.guard.failed]
        text = f"points: {', '.join(lost)}" if lost else "the mean over old domains lost too much"
        tiles.append(_tile("Guard", "refused", f"{text}; calibration split"))
    taught = [teacher.name for teacher in lineage.teachers if not teacher.inherited]
    tiles.append(_tile("Teachers", str(len(taught)), shorten(", ".join(taught), 90)))
    samples = sum(lineage.data.samples.values())
    domains = ", ".join(lineage.data.samples)
    tiles.append(_tile("Training samples", f"{samples:,}", shorten(domains, 90)))
    return tag("div", *tiles, class_="tiles")


def _score_tiles(report: EvaluationReport) -> Iterator[Markup]:
    evaluation, metric = report.evaluation, report.evaluation.headline
    student = evaluation.model(report.version)
    if metric in student.means:
        low, high = student.intervals.get(metric, (math.nan, math.nan))
        count = sum(score.count for score in student.domains.values())
        text = f"{bounds(low, high)}; mean of {len(student.domains)} domains, n = {count:,}, {evaluation.split} split"
        yield _tile(headline(evaluation), f"{percent(student.means[metric])} %", text)
    ratio = evaluation.ratios.get(student.name, {}).get(metric)
    if ratio is not None:
        text = "of the oracle's mean: the best teacher of each domain, chosen on the calibration split"
        yield _tile("Against the oracle", f"{percent(ratio)} %", text)
    kept = report.retention
    if kept is not None and kept.worst is not None:
        worst = kept.worst
        text = f"points on {worst.domain}; {points_bounds(worst.low, worst.high)}; n = {worst.count:,}"
        yield _tile(f"Worst change since {report.history[-2]}", points(worst.points), text)


def _tile(name: str, value: str, text: str) -> Markup:
    return tag("div", tag("h3", name), tag("p", value, class_="value"), tag("p", text, class_="note"), class_="tile")


def _notes(report: EvaluationReport) -> Markup | None:
    lines = [str(line) for line in evaluation_notes(report.evaluation)]
    settings = ", ".join(f"{name} {value}" for name, value in report.evaluation.settings.items() if _plain(value))
    return tag("ul", *(tag("li", line) for line in [*lines, f"settings: {settings}"]), class_="note")


def _plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool)


def _teachers(facts: PageFacts) -> Markup:
    rows = [
        [
            Cell(t.name), Cell(t.source), Cell(t.commit or "–"), Cell(", ".join(t.license_facts.names) or "not stated"),
            Cell(", ".join(t.domains) or "–"), Cell(f"{t.samples:,}", t.samples, "n"), Cell(t.since),
        ]
        for t in facts.lineage.teachers
    ]  # fmt: skip
    heads = [
        Head("Teacher"), Head("Source"), Head("Commit"), Head("License"), Head("May teach"), Head("Samples", "n"),
        Head("Since"),
    ]  # fmt: skip
    return data_table(heads, rows, caption="Teachers, those of ancestors too")


def absent_parts(facts: PageFacts) -> dict[str, str]:
    """Topic -> why the page lacks it."""
    found = dict(facts.absent)
    for name, title, make in DETAILS:
        if name in ABSENT and facts.reports and all(make(report) is None for report in facts.reports):
            found[title] = ABSENT[name]
    return found


def _absent(absent: dict[str, str]) -> Markup:
    if not absent:
        return tag("p", "Nothing: every part of the page could be made.")
    entries = (join([tag("dt", topic), tag("dd", why)]) for topic, why in absent.items())
    return tag("dl", *entries)


def _subtitle(facts: PageFacts) -> str:
    lineage = facts.lineage
    made = "imported, not trained" if lineage.imported else f"recipe {lineage.recipe.name}"
    return f"{facts.status} · made {lineage.created[:10]} · {made} · family {lineage.student.family}"
