"""Tables of the benchmark on real images, from saved evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from projects import print_table, spread

from kdkit.core.evaluation.metrics import mean_interval, paired_difference
from kdkit.core.evaluation.scores import Evaluation, ModelScores

INCREMENT_COLUMNS = (
    "old: mean accuracy [95 % paired interval]",
    "old: worst domain",
    "old: mean AUC",
    "new: accuracy",
    "new: AUC",
    "of joint's gain",
    "CPU seconds",
    "of joint's time",
)


def print_means(found: Mapping[str, Sequence[Evaluation]]) -> None:
    first = next(iter(found.values()))[0]
    rows = []
    for model in (*first.of_role("teacher"), *first.of_role("oracle")):
        rows.append([model.name, *(_cell(model.means[m], [model.intervals[m]]) for m in ("accuracy", "auc")), "", ""])
    for recipe, runs in found.items():
        students = [evaluation.of_role("student")[0] for evaluation in runs]
        row = [f"student, {recipe}"]
        for metric in ("accuracy", "auc"):
            values = [student.means[metric] for student in students]
            bounds = [student.intervals[metric] for student in students]
            row.append(f"{_cell(float(np.mean(values)), bounds)}; seeds {_range(values)}")
        for metric in ("accuracy", "auc"):
            row.append(spread([e.ratios[s.name][metric] for e, s in zip(runs, students, strict=True)]))
        rows.append(row)
    print(f"\nMean over the ten domains, {first.split} split, % [95 % interval over images]:\n")
    print_table(("model", "accuracy", "AUC", "accuracy of oracle's", "AUC of oracle's"), rows)


def print_domains(found: Mapping[str, Sequence[Evaluation]], metric: str) -> None:
    first = next(iter(found.values()))[0]
    teachers, oracle = first.of_role("teacher"), first.of_role("oracle")[0]
    rows = []
    for domain in first.domains:
        row = [f"{domain} ({oracle.domains[domain].count})"]
        row += [f"{100 * teacher.domains[domain].metrics[metric]:.0f}" for teacher in teachers]
        row.append(f"{_score(oracle, domain, metric)} {oracle.chosen[domain]}")
        for runs in found.values():
            students = [evaluation.of_role("student")[0].domains[domain] for evaluation in runs]
            value = float(np.mean([student.metrics[metric] for student in students]))
            row.append(_cell(value, [student.intervals[metric] for student in students], 0))
        rows.append(row)
    print(f"\n{metric} per domain (test images), % [95 % interval over images]:\n")
    print_table(("domain", *(teacher.name for teacher in teachers), "oracle", *found), rows)


def print_differences(found: Mapping[str, Sequence[Evaluation]]) -> None:
    """What the first recipe is better by than each other, on the same images."""
    first, *others = found
    rows = []
    for other in others:
        domains = found[first][0].domains
        pairs = [(student_outcomes(found[other], domain), student_outcomes(found[first], domain)) for domain in domains]
        mean, low, high = mean_difference(pairs)
        rows.append([f"{first} - {other}", f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"])
    print("\nDifference in mean accuracy, points [95 % paired interval over images, students averaged over seeds]:\n")
    print_table(("recipes", "points"), rows)


def mean_difference(pairs: Sequence[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]) -> tuple[float, float, float]:
    """(mean over domains of after - before, low, high) of (before, after) outcomes per domain."""
    found = np.array([paired_difference(before, after) for before, after in pairs])
    return mean_interval(found[:, 0], found[:, 1], found[:, 2])


def student_outcomes(runs: Sequence[Evaluation], domain: str) -> np.ndarray[Any, Any]:
    """(N,) share of the seeds' students that are right."""
    right = [evaluation.of_role("student")[0].domains[domain].outcomes["accuracy"] for evaluation in runs]
    return np.asarray(np.mean(right, axis=0))


def _score(model: ModelScores, domain: str, metric: str) -> str:
    score = model.domains[domain]
    return _cell(score.metrics[metric], [score.intervals[metric]], 0)


def _cell(value: float, bounds: Sequence[tuple[float, float]], digits: int = 1) -> str:
    low, high = 100 * np.mean(np.asarray(bounds), axis=0)
    return f"{100 * value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _range(values: Sequence[float]) -> str:
    return f"{100 * min(values):.1f} to {100 * max(values):.1f}"


def increment_row(
    before: Sequence[Evaluation],
    after: Sequence[Evaluation],
    together: Sequence[Evaluation],
    *,
    old: tuple[str, ...],
    new: tuple[str, ...],
) -> list[str]:
    """Cells of :data:`INCREMENT_COLUMNS` for one strategy; each argument has one evaluation per seed."""
    changes = [_values(b, "accuracy", old) - _values(a, "accuracy", old) for a, b in zip(before, after, strict=True)]
    areas = [_values(b, "auc", old) - _values(a, "auc", old) for a, b in zip(before, after, strict=True)]
    _, low, high = mean_difference(
        [(student_outcomes(before, domain), student_outcomes(after, domain)) for domain in old]
    )
    gained = {metric: [float(_values(e, metric, new).mean()) for e in after] for metric in ("accuracy", "auc")}
    start, whole = (np.array([_values(e, "accuracy", new).mean() for e in runs]) for runs in (before, together))
    seconds = [float(evaluation.settings["seconds"]) for evaluation in after]
    joint = [float(evaluation.settings["seconds"]) for evaluation in together]
    return [
        f"{spread([c.mean() for c in changes])} [{100 * low:+.1f}, {100 * high:+.1f}]",
        spread([c.min() for c in changes]),
        spread([a.mean() for a in areas]),
        spread(gained["accuracy"]),
        spread(gained["auc"]),
        spread(list((np.array(gained["accuracy"]) - start) / (whole - start)), 0),
        spread(seconds, 0, 1.0),
        spread(list(np.array(seconds) / np.array(joint)), 0),
    ]


def _values(evaluation: Evaluation, metric: str, domains: tuple[str, ...]) -> np.ndarray[Any, Any]:
    return np.array(evaluation.of_role("student")[0].values(metric, domains))
