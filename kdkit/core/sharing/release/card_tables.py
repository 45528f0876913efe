"""The tables of a card, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any

from kdkit.core.project.lineage import GuardRecord, Lineage, TrustScore
from kdkit.core.project.registry.lock import NOT_PUBLISHED
from kdkit.core.sharing.release.provenance import Taught


def cell(value: object) -> str:
    """Text that cannot break a table or become markup."""
    text = " ".join(str(value).split())
    for char in "\\`*_[]<>|":
        text = text.replace(char, f"\\{char}")
    return text


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], align: str = "") -> str:
    """``align``: one ``l`` or ``r`` per column, default ``l``; cells are Markdown."""
    marks = ["--:" if align[n : n + 1] == "r" else ":--" for n in range(len(headers))]
    lines = [headers, marks, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def interval(figure: Mapping[str, float | None], *, percent: bool = True) -> str:
    """``91.2 (88.0-94.1)``, or ``0.912 (0.880-0.941)``; ``-`` if not measured."""
    value, low, high = (figure.get(key) for key in ("value", "low", "high"))
    factor, digits = (100, 1) if percent else (1, 3)
    if value is None:
        return "-"
    bounds = f" ({factor * low:.{digits}f}-{factor * high:.{digits}f})" if low is not None and high is not None else ""
    return f"{factor * value:.{digits}f}{bounds}"


def figures_text(figures: Mapping[str, Mapping[str, float | None]], names: Collection[str] | None = None) -> str:
    """``Accuracy 91.2 (88.0-94.1) %, AUC 0.980 (0.970-0.990)``; of the metrics in ``names``, or of all."""
    parts = [
        f"{cell(metric_name(name))} {interval(figure, percent=name == 'accuracy')}" + " %" * (name == "accuracy")
        for name, figure in figures.items()
        if figure.get("value") is not None and (names is None or name in names)
    ]
    text = ", ".join(parts)
    return text[:1].upper() + text[1:]


def metric_name(name: str) -> str:
    return "AUC" if name == "auc" else name


def results_table(results: Mapping[str, Any], judged: str, metric: str = "accuracy") -> str:
    """The metric per domain and model, with intervals for students; last column: count of ``judged``."""
    shown = [model for model in results["models"] if model["name"] != "oracle-on-test"]
    rows = []
    for domain in results["domains"]:
        scores = [model["domains"].get(domain) for model in shown]
        count = max((score["count"] for score in scores if score), default=0)
        rows.append((cell(domain), *(_figure(*pair, metric) for pair in zip(shown, scores, strict=True)), str(count)))
    rows.append(("**mean**", *(_figure(model, {"metrics": model["mean"]}, metric) for model in shown), ""))
    headers = ("domain", *(cell(model["name"]) for model in shown), judged)
    return table(headers, rows, "l" + "r" * (len(shown) + 1))


def _figure(model: Mapping[str, Any], score: Mapping[str, Any] | None, metric: str) -> str:
    figure = (score or {}).get("metrics", {}).get(metric)
    if figure is None:
        return "-"
    return interval(figure if model["role"] == "student" else {"value": figure["value"]})


def means_table(results: Mapping[str, Any], names: Collection[str]) -> str:
    """Mean metrics in ``names`` per model, with intervals."""
    metrics = [name for name in results["metrics"] if name in names]
    rows, total = [], len(results["domains"])
    for model in results["models"]:
        means = (interval(model["mean"].get(metric, {}), percent=metric == "accuracy") for metric in metrics)
        scored = len(model["domains"])
        count = str(total) if scored == total else f"{scored} of {total}"
        rows.append((cell(model["name"]), model["role"], *means, count))
    headers = ("model", "role", *(metric_name(name) + ", %" * (name == "accuracy") for name in metrics), "domains")
    return table(headers, rows, "ll" + "r" * (len(metrics) + 1))


def metrics_table(own: Mapping[str, Any]) -> str:
    """All metrics per domain of one model's results; empty if all domains have the same metrics and no notes."""
    measured = {domain: list(score["metrics"]) for domain, score in own["domains"].items()}
    if len({tuple(names) for names in measured.values()}) < 2 and not any(s["notes"] for s in own["domains"].values()):
        return ""
    rows = [
        (cell(domain), figures_text(score["metrics"]), "; ".join(map(cell, score["notes"])) or "-")
        for domain, score in own["domains"].items()
    ]
    return table(("domain", "figures", "notes"), rows)


def teachers_table(teachers: Sequence[Taught], endpoint: str) -> str:
    """Repository, commit, license, where it may teach, trust with intervals, since when."""
    rows = []
    for teacher in teachers:
        entry = teacher.entry
        trust = [f"{cell(domain)} {_trust(entry.trust.get(domain))}" for domain in entry.domains]
        rows.append(
            (
                cell(teacher.name),
                _source(entry.source, endpoint),
                f"`{entry.commit[:12]}`" if entry.commit else "-",
                cell(teacher.facts.shown),
                "<br>".join(trust) or "nothing",
                cell(entry.since) + (", inherited" if entry.inherited else ""),
            )
        )
    headers = ("teacher", "from", "commit", "license", "teaches, with trust", "since")
    return table(headers, rows) if rows else "None: it was trained on the data alone."


def _trust(score: TrustScore | None) -> str:
    return interval({} if score is None else {"value": score.accuracy, "low": score.lower, "high": score.upper})


def _source(source: str, endpoint: str) -> str:
    kind, _, place = source.partition(":")
    if kind == "hf":
        return link(place.partition("@")[0], endpoint)
    return "not published" if kind == "local" else cell(source)


def link(repository: str, endpoint: str) -> str:
    """Link to a repository on the Hub at ``endpoint``; other text is escaped, and one at an unpublished address."""
    plain = endpoint != NOT_PUBLISHED and re.fullmatch(r"(datasets/)?[\w.-]+/[\w.-]+", repository, re.ASCII)
    return f"[{cell(repository)}]({endpoint}/{repository})" if plain else cell(repository)


def data_table(history: Sequence[Lineage], results: Mapping[str, Any]) -> str:
    """Training samples per domain and version, and evaluated images per domain."""
    domains = dict.fromkeys([*(d for lineage in history for d in lineage.data.samples), *results["domains"]])
    rows = []
    for domain in domains:
        taught = [str(lineage.data.samples.get(domain, "-")) for lineage in history]
        counts = [m["domains"][domain]["count"] for m in results["models"] if domain in m["domains"]]
        rows.append((cell(domain), *taught, str(max(counts)) if counts else "-"))
    headers = ("domain", *(f"train, {lineage.version}" for lineage in history), f"{results['split']} (labeled)")
    return table(headers, rows, "l" + "r" * (len(history) + 1))


def increments_table(history: Sequence[Lineage]) -> str:
    """One row per increment; empty when there was none."""
    rows = []
    for before, lineage in pairwise(history):
        kept = lineage.retention
        if kept is None:
            continue
        known = {teacher.name for teacher in before.teachers}
        new = [teacher.name for teacher in lineage.teachers if teacher.name not in known]
        added = [domain for domain in kept.new_domains if domain in lineage.data.known]
        worst = kept.worst
        rows.append(
            (
                f"{before.version} to {lineage.version}",
                ", ".join(map(cell, new)) or "-",
                ", ".join(map(cell, added)) or "-",
                _points(kept.mean, kept.low, kept.high),
                "-" if worst is None else f"{cell(worst.domain)} {_points(worst.points, worst.low, worst.high)}",
                _verdict(lineage, kept.guard) if kept.domains or kept.checks else "no labeled samples",
                ", ".join(map(cell, kept.not_compared)) or "-",
            )
        )
    headers = ("step", "new teachers", "new domains", "mean change", "worst domain", "guard", "not measured")
    return table(headers, rows) if rows else ""


def _points(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:+.1f}" + (f" ({low:+.1f} to {high:+.1f})" if low is not None and high is not None else "")


def _verdict(lineage: Lineage, guard: GuardRecord | None) -> str:
    if guard is None:
        return "-"
    if not guard.promoted:
        return f"**refused**: {', '.join(map(cell, guard.failed)) or 'the mean'}"
    verdict = f"passed; in doubt: {', '.join(map(cell, guard.uncertain))}" if guard.uncertain else "passed"
    return verdict if lineage.repair is None else f"{verdict}; {cell(lineage.repair.describe(lineage.parent))}"
