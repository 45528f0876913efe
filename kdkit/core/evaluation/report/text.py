"""An evaluation and a retention as plain text for a terminal. The JSON has everything; this has what matters."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from kdkit.core.evaluation.evaluation import Evaluation, ModelScores
from kdkit.core.evaluation.project import Findings
from kdkit.core.evaluation.retention import Change, Retention

Table = Callable[[Sequence[str], Sequence[Sequence[object]], str], str]
"""(headers, rows, alignment) -> text; the terminal's way of writing a table."""

WIDE = 4
"""So many metrics have room beside each other on a terminal."""


def findings_text(findings: Findings, table: Table) -> str:
    """Domains by models, means, the oracle, what was kept, and what a reader must know."""
    evaluation = findings.evaluation
    parts = [
        f"{headline(evaluation)} in %, {evaluation.split} split",
        _domains(evaluation, table),
        f"Mean over domains in %, with {100 * _level(evaluation):g} % intervals",
        _means(evaluation, table),
        *_oracle_lines(evaluation),
    ]
    if findings.retention is not None:
        parts += [f"Change since {findings.history[-2]}", retention_text(findings.retention, table)]
        new = [d for d, version in findings.learned.items() if version == findings.version]
        if new:
            before, after = (evaluation.model(name) for name in findings.history[-2:])
            gains = zip(new, before.values("accuracy", tuple(new)), after.values("accuracy", tuple(new)), strict=True)
            told = ", ".join(f"{d} {_percent(x)} -> {_percent(y)}" for d, x, y in gains)
            parts.append(f"new in {findings.version}: {told}")
    if findings.continual is not None:
        figures = findings.continual
        parts.append(
            f"Over {' -> '.join(findings.history)}: Average {_percent(figures.average)}, "
            f"Last {_percent(figures.last)}, Transfer {_percent(figures.transfer)}, "
            f"backward transfer {_percent(figures.backward_transfer, sign=True)}, "
            f"forgetting {_percent(figures.forgetting, sign=True)}"
        )
    return "\n".join([*parts, *_notes(evaluation)])


def retention_text(kept: Retention, table: Table) -> str:
    """Domains with their change in points, then teachers, then the mean."""
    rows = [
        (
            change.domain,
            f"{100 * change.before:.1f}",
            f"{100 * change.after:.1f}",
            f"{change.points:+.1f}",
            f"{change.low:+.1f} to {change.high:+.1f}",
            f"{change.tolerance:g}",
            _verdict(change),
        )
        for change in kept.domains.values()
    ]
    headers = ("domain", "before", "after", "points", "interval", "may lose", "")
    parts = [table(headers, rows, "lrrrlrl")] if rows else ["no domain of before can be compared here"]
    if kept.teachers:
        held = [
            (item.teacher, f"{100 * item.before:.1f}", f"{100 * item.after:.1f}", ", ".join(item.domains))
            for item in kept.teachers.values()
        ]
        parts.append(table(("teacher", "held before, %", "held after, %", "in"), held, "lrrl"))
    if rows:
        parts.append(f"mean change {kept.mean:+.2f} points ({kept.low:+.2f} to {kept.high:+.2f})")
    if kept.unjudged:
        parts.append(f"not measured, for want of labeled samples: {', '.join(kept.unjudged)}; they may be forgotten")
    return "\n".join(parts)


def _verdict(change: Change) -> str:
    if not change.broken:
        return ""
    return "LOST" if change.certain else "lost, maybe by chance"


def _domains(evaluation: Evaluation, table: Table) -> str:
    shown = [m for m in evaluation.models if m.name != "oracle-on-test"]
    rows: list[tuple[str, ...]] = []
    for domain in evaluation.domains:
        count = max(m.domains[domain].count for m in evaluation.models if domain in m.domains)
        cells = [_percent(m.values("accuracy", (domain,))[0]) for m in shown]
        rows.append((domain, *cells, str(count)))
    rows.append(("mean", *(_percent(m.means.get("accuracy", math.nan)) for m in shown), ""))
    counted = counted_in(_task(evaluation))
    return table(("domain", *(m.name for m in shown), counted), rows, "l" + "r" * (len(shown) + 1))


def _means(evaluation: Evaluation, table: Table) -> str:
    """A row per model; where metrics are many (a task of answers has a dozen), a row per metric."""
    if len(evaluation.metrics) > WIDE:
        return _metrics(evaluation, table)
    rows = [
        (
            model.name,
            model.role,
            *(_with_interval(model, metric) for metric in evaluation.metrics),
            _scored(model, evaluation),
        )
        for model in evaluation.models
    ]
    return table(("model", "role", *evaluation.metrics, ""), rows, "ll")


def _metrics(evaluation: Evaluation, table: Table) -> str:
    """A row per metric, with the number of domains that have it; a model without some of them says so in its head."""
    rows = [
        (metric, *(_with_interval(model, metric) for model in evaluation.models), str(_having(evaluation, metric)))
        for metric in evaluation.metrics
    ]
    heads = [f"{m.name} ({note})" if (note := _scored(m, evaluation)) else m.name for m in evaluation.models]
    return table(("metric", *heads, "domains"), rows, "l" * (len(heads) + 1) + "r")


def _having(evaluation: Evaluation, metric: str) -> int:
    """How many domains have this metric, of any model."""
    return len({d for m in evaluation.models for d, score in m.domains.items() if metric in score.metrics})


def _scored(model: ModelScores, evaluation: Evaluation) -> str:
    scored = len(model.domains)
    return "" if scored == len(evaluation.domains) else f"on {scored} of {len(evaluation.domains)} domains"


def _oracle_lines(evaluation: Evaluation) -> list[str]:
    lines = []
    for model in evaluation.of_role("oracle"):
        if model.name == "oracle":
            chosen = ", ".join(f"{domain} {teacher}" for domain, teacher in model.chosen.items())
            lines.append(f"oracle: the best teacher per domain on the calibration split: {chosen}")
    for student, ratio in evaluation.ratios.items():
        shown = ratio if len(evaluation.metrics) <= WIDE else {m: x for m, x in ratio.items() if m == "accuracy"}
        figures = ", ".join(f"{100 * value:.1f} % of its {metric}" for metric, value in shown.items())
        lines.append(f"{student} against the oracle: {figures or 'its means are 0'}")
    return lines


def _notes(evaluation: Evaluation) -> list[str]:
    notes = [f"note: {domain} is not evaluated: {why}" for domain, why in evaluation.skipped.items()]
    domains: dict[str, list[str]] = {}
    for domain in evaluation.domains:
        said = (m.domains[domain].notes for m in evaluation.models if domain in m.domains)
        for note in dict.fromkeys(n for group in said for n in group):
            domains.setdefault(note, []).append(domain)
    notes += [f"note: {', '.join(where)}: {note}" for note, where in domains.items()]
    if "logit_scale" in evaluation.settings:
        notes.append(f"AUC: macro one-vs-rest, probabilities at logit scale {evaluation.settings['logit_scale']:g}")
    return notes


def headline(evaluation: Evaluation) -> str:
    """What ``accuracy`` is here: the zero-shot one, or that of another task, which is named."""
    return accuracy_of(_task(evaluation))


def accuracy_of(task: str) -> str:
    """How a task's ``accuracy`` is called."""
    return "Zero-shot accuracy" if task == "zero-shot" else f"Accuracy (task '{task}')"


def counted_in(task: str) -> str:
    """What its counts are of: several questions may be about one image."""
    return "images" if task == "zero-shot" else "samples"


def _task(evaluation: Evaluation) -> str:
    return str(evaluation.settings.get("task", "zero-shot"))


def _level(evaluation: Evaluation) -> float:
    return next((s.level for m in evaluation.models for s in m.domains.values()), math.nan)


def _with_interval(model: ModelScores, metric: str) -> str:
    if metric not in model.means:
        return "-"
    low, high = model.intervals[metric]
    return f"{100 * model.means[metric]:5.1f} ({100 * low:.1f}-{100 * high:.1f})"


def _percent(value: float, *, sign: bool = False) -> str:
    if math.isnan(value):
        return "-"
    return f"{100 * value:+.1f}" if sign else f"{100 * value:.1f}"
