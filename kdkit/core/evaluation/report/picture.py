"""One picture of an evaluation: domains, means, and retention over versions.

Colors are Okabe and Ito's (distinguishable with any color vision); every series also has its own marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, PercentFormatter

from kdkit.core.base.atomic import new_file
from kdkit.core.evaluation.report.labels import spread_apart
from kdkit.core.evaluation.report.report import EvaluationReport
from kdkit.core.evaluation.report.tables import headline
from kdkit.core.evaluation.retention import Retention
from kdkit.core.evaluation.scores import ACCURACY, ModelScores

STUDENT, INK, FAINT, GRID = "#D55E00", "#222222", "#8A8A8A", "#E4E4E4"
COLORS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5D5D9C")
MARKERS = "os^vPXhd"
STYLE: Any = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(report: EvaluationReport, path: Path) -> str:
    """Write a PNG and return its alternative text."""
    with matplotlib.rc_context(STYLE):
        figure = _figure(report)
        with new_file(path) as draft:
            figure.savefig(draft, format="png", dpi=150, facecolor="white", metadata={"Software": "kdkit"})
    return describe_picture(report)


def describe_picture(report: EvaluationReport) -> str:
    """Alternative text of the picture."""
    evaluation, student = report.evaluation, report.evaluation.model(report.version)
    metric = evaluation.headline
    parts = [
        f"{metric.capitalize()} of {student.name} on {len(evaluation.domains)} domains "
        f"of the {evaluation.split} split: "
        + ", ".join(f"{d} {100 * s.metrics[metric]:.0f} %" for d, s in student.domains.items() if metric in s.metrics)
        + (f"; mean {100 * student.means[metric]:.1f} %." if metric in student.means else "none has a value.")
    ]
    teachers = [teacher for teacher in evaluation.of_role("teacher") if metric in teacher.means]
    if teachers:
        best = max(teachers, key=lambda teacher: teacher.means[metric])
        parts.append(f"The best single teacher, {best.name}, has a mean of {100 * best.means[metric]:.1f} %.")
    ratio = evaluation.ratios.get(student.name, {})
    if metric in ratio:  # absent if the oracle has none
        parts.append(f"The student reaches {100 * ratio[metric]:.1f} % of the oracle's mean {metric}.")
    if report.retention is not None and report.retention.worst is not None:
        worst = report.retention.worst
        parts.append(
            f"Against {report.history[-2]}, domains that are not new changed by "
            f"{report.retention.mean:+.1f} points on average, {worst.domain} by {worst.points:+.1f} at worst."
        )
    return " ".join(parts)


def _figure(report: EvaluationReport) -> Figure:
    rows, models = len(report.evaluation.domains), len(_ranked(report))
    retention = report.retention if report.retention and report.retention.domains else None
    increment = retention is not None  # a pulled student may know none of these domains
    means, curve = 0.8 + 0.3 * models, 3.2
    height = max(3.4, 1.8 + 0.44 * rows, 0.9 + means + (curve if increment else 0.0))
    figure = Figure(figsize=(13.5 if increment else 12.0, height), layout=_layout())
    widths = (1.25, 0.5, 1.0) if increment else (1.25, 1.0)
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths)
    left = figure.add_subplot(grid[0])
    _domains(left, report)
    right = grid[len(widths) - 1].subgridspec(2 if increment else 1, 1, height_ratios=(means, curve)[: 1 + increment])
    _means(figure.add_subplot(right[0]), report)
    if retention is not None:
        _changes(figure.add_subplot(grid[1], sharey=left), report, retention)
        _curve(figure.add_subplot(right[1]), report)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="outside upper left", ncols=min(len(labels), 10), frameon=False, handletextpad=0.2,
        columnspacing=1.4, markerscale=0.95,
    )  # fmt: skip
    return figure


def _layout() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.03, hspace=0.08)


# --------------------------------------------------------------------------------- domains


def _domains(axes: Axes, report: EvaluationReport) -> None:
    """One row per domain: every teacher, the oracle, and the student with its interval."""
    evaluation = report.evaluation
    domains, rows, metric = evaluation.domains, _rows(report), evaluation.headline
    student = evaluation.model(report.version)
    axes.scatter(
        student.values(metric, domains), rows, s=88, marker="D", color=STUDENT, edgecolors="white",
        zorder=7, label=f"student {student.name}",
    )  # fmt: skip
    for domain, row in zip(domains, rows, strict=True):
        if domain in student.domains and metric in student.domains[domain].intervals:
            axes.hlines(row, *student.domains[domain].intervals[metric], color=STUDENT, lw=2.4, zorder=6)
    oracle = next((m for m in evaluation.models if m.role == "oracle"), None)
    if oracle is not None:
        x = oracle.values(metric, domains)
        axes.scatter(x, rows, s=330, marker="|", color=INK, linewidths=1.7, zorder=5, label="oracle")
    teachers = evaluation.of_role("teacher")
    spread = np.linspace(0.24, -0.24, len(teachers)) if len(teachers) > 1 else np.zeros(len(teachers))
    for number, teacher in enumerate(teachers):
        x = teacher.values(metric, domains)
        axes.scatter(x, rows + spread[number], s=38, zorder=3, label=teacher.name, **_look(number))
    axes.set(ylim=(-0.5, len(domains) - 0.5), title=f"{headline(evaluation)} on each domain")
    axes.set_yticks(rows, domains)
    _percent(axes.xaxis)
    _stripes(axes, rows)


def _changes(axes: Axes, report: EvaluationReport, retention: Retention) -> None:
    """One row per domain: points gained or lost since the parent, with the interval and the tolerance."""
    for domain, row in zip(report.evaluation.domains, _rows(report), strict=True):
        if report.learned.get(domain) == report.version:
            axes.annotate("new", (0, row), ha="center", va="center", color=COLORS[0], backgroundcolor="white")
        if (change := retention.domains.get(domain)) is None:
            continue
        color = STUDENT if change.over_tolerance and change.significant else INK
        axes.hlines(row, change.low, change.high, color=color, lw=2.0, zorder=4)
        axes.scatter(change.points, row, s=40, color=color, zorder=5)
        axes.vlines(-change.tolerance, row - 0.5, row + 0.5, color=FAINT, lw=1.0, ls=(0, (2, 2)), zorder=2)
    axes.axvline(0, color=FAINT, lw=1.0, zorder=2)
    axes.set_title(f"Change since {report.history[-2]}, in points")
    axes.tick_params(axis="y", labelleft=False)
    axes.margins(x=0.15)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.annotate(
        "dashed: tolerance", (0.5, 0), xytext=(0, -30), xycoords="axes fraction", textcoords="offset points",
        ha="center", fontsize=8.5, color=FAINT,
    )  # fmt: skip
    _stripes(axes, _rows(report))


def _rows(report: EvaluationReport) -> np.ndarray[Any, Any]:
    """Height of each domain's row, the first on top."""
    return np.arange(len(report.evaluation.domains))[::-1].astype(float)


def _stripes(axes: Axes, rows: np.ndarray[Any, Any]) -> None:
    for row in rows[::2]:
        axes.axhspan(row - 0.5, row + 0.5, color="#F6F6F6", zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, zorder=1)


# ----------------------------------------------------------------------------------- means


def _ranked(report: EvaluationReport) -> list[ModelScores]:
    """Student and oracle above, teachers below, the best first."""
    evaluation = report.evaluation
    teachers = sorted(evaluation.of_role("teacher"), key=lambda m: m.means.get(evaluation.headline, 0.0), reverse=True)
    students = [evaluation.model(name) for name in reversed(report.history[-2:])]
    oracle = [m for m in evaluation.models if m.role == "oracle"][:1]
    return [*oracle, *students, *teachers]


def _means(axes: Axes, report: EvaluationReport) -> None:
    """Mean accuracy of every model, and AUC where there is one, with intervals and the numbers."""
    order = {t.name: n for n, t in enumerate(report.evaluation.of_role("teacher"))}
    models, main = _ranked(report), report.evaluation.headline
    for row, model in zip(range(len(models))[::-1], models, strict=True):
        color = INK if model.role == "oracle" else STUDENT
        if model.role == "teacher":
            color = str(_look(order[model.name])["color"])
        for metric, filled in ((main, True), ("auc", False)):
            if metric not in model.means:
                continue
            low, high = model.intervals[metric]
            axes.hlines(row, low, high, color=color, lw=2.0, zorder=3)
            face = color if filled else "white"
            axes.scatter(model.means[metric], row, s=46, color=face, edgecolors=color, lw=1.4, zorder=4)
        numbers = "".join(f"{100 * model.means[m]:8.1f}" for m in (main, "auc") if m in model.means)
        _beside(axes, numbers, row, STUDENT if model.role == "student" else INK)
    named = f"  ● {'acc' if main == ACCURACY else main}"
    named += "   ○ AUC" if any("auc" in model.means for model in models) else ""
    _beside(axes, named, len(models) - 0.45, FAINT)
    names = [f"student {m.name}" if m.role == "student" else m.name for m in models]
    axes.set_yticks(range(len(models))[::-1], names)
    axes.set(ylim=(-0.6, len(models) - 0.4), title="Mean over domains")
    axes.tick_params(axis="y", length=0)
    _percent(axes.xaxis)
    axes.grid(axis="x", color=GRID, zorder=1)


def _beside(axes: Axes, text: str, row: float, color: str) -> None:
    """Right of the axes, in columns."""
    axes.annotate(
        text, (1.0, row), xycoords=("axes fraction", "data"), va="center", family="DejaVu Sans Mono",
        fontsize=8.5, color=color, annotation_clip=False,
    )  # fmt: skip


# ----------------------------------------------------------------------------------- curve


def _curve(axes: Axes, report: EvaluationReport) -> None:
    """Points gained or lost since a domain was first taught, over versions; the bold line is their mean."""
    evaluation, history = report.evaluation, report.history
    lines = {}
    for domain, first in report.learned.items():
        start = history.index(first)
        y = np.full(len(history), np.nan)
        values = [evaluation.model(name).values(evaluation.headline, (domain,))[0] for name in history[start:]]
        y[start:] = 100 * (np.array(values) - values[0])
        lines[domain] = y
    old = [domain for domain, first in report.learned.items() if first != report.version]
    changes = report.retention.domains.values() if report.retention else ()
    lost = {change.domain for change in changes if change.over_tolerance and change.significant}
    x = np.arange(len(history))
    for domain, y in lines.items():
        axes.plot(x, y, "-o", color=STUDENT if domain in lost else FAINT, lw=1.4, ms=4, zorder=3)
    ends = [(float(lines[domain][-1]), domain) for domain in old]
    if old:
        mean = np.nanmean([lines[domain] for domain in old], axis=0)
        axes.plot(x, mean, "-o", color=INK, lw=2.8, ms=6, zorder=5)
        ends.append((float(mean[-1]), "mean of old domains"))
    axes.axhline(0, color=FAINT, lw=1.0, zorder=2)
    axes.set_xticks(x, history)
    axes.set_xlim(-0.08 * x[-1], x[-1] * 1.45)
    axes.set_title("Points since first taught")
    axes.grid(axis="y", color=GRID, zorder=1)
    _end_labels(axes, sorted(ends), float(x[-1]), lost)


def _end_labels(axes: Axes, ends: Sequence[tuple[float, str]], x: float, lost: set[str]) -> None:
    """Names beside the ends of the lines, moved apart, tied to them by a thin line."""
    low, high = axes.get_ylim()
    places = spread_apart([value for value, _ in ends], (high - low) * 0.085)
    for place, (value, name) in zip(places, ends, strict=True):
        color = STUDENT if name in lost else INK
        axes.plot([x, x * 1.09], [value, place], color=GRID, lw=0.9, zorder=1, clip_on=False)
        axes.annotate(
            f"{name} {value:+.1f}", (x * 1.1, place), va="center", fontsize=8.5, color=color,
            weight="bold" if name.startswith("mean") else "normal", annotation_clip=False,
        )  # fmt: skip


def _look(number: int) -> dict[str, Any]:
    return {"color": COLORS[number % len(COLORS)], "marker": MARKERS[number % len(MARKERS)]}


def _percent(axis: Any) -> None:
    axis.set_major_formatter(PercentFormatter(1.0, decimals=0))
