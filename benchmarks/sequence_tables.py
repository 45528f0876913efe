"""Tables of the benchmark of five increments in a row, from saved evaluations of all versions of a chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from medmini_tables import mean_difference, student_outcomes
from projects import print_table, spread

from kdkit.core.evaluation.continual import ContinualMetrics, compute_continual_metrics
from kdkit.core.evaluation.scores import Evaluation

Learned = Mapping[str, int]
"""Domain -> the step that brings it; 0 for the base."""
METRICS = ("Transfer", "Average", "Last", "forgetting")


def print_strategies(
    found: Mapping[str, Sequence[Evaluation]], learned: Sequence[Learned], joint: Sequence[Evaluation]
) -> None:
    """Continual metrics of every strategy, in accuracy and AUC.

    Args:
        found: strategy -> an evaluation of the whole chain per run (order and seed).
        learned: per run, when each domain is learned.
        joint: one evaluation per seed of joint retraining.
    """
    for metric in ("accuracy", "auc"):
        rows = []
        for title, runs in found.items():
            metrics = [_metrics(run, metric, steps) for run, steps in zip(runs, learned, strict=True)]
            row = [title, *(_spread([getattr(one, name.lower()) for one in metrics]) for name in METRICS)]
            if metric == "accuracy":
                row += [_against(joint, runs) if joint else "", _spread([_cost(run) for run in runs], 0, 1.0)]
            rows.append(row)
        if joint:
            last = _spread([run.of_role("student")[0].means[metric] for run in joint])
            cost = [_spread([_cost(run) for run in joint], 0, 1.0)]
            rows.append(
                ["joint retraining at the end", "", "", last, "", *(["", *cost] if metric == "accuracy" else [])]
            )
        print(f"\n{metric}, %: mean over runs (smallest to largest); a difference has its 95 % paired interval:\n")
        more = ("Last - joint, points", "CPU seconds") if metric == "accuracy" else ()
        print_table(("strategy", *METRICS, *more), rows)


def print_matrices(title: str, runs: Sequence[Evaluation], learned: Sequence[Learned]) -> None:
    """Accuracy by step and domain, a table per order; bold from the step on that brings the domain."""
    orders = list(dict.fromkeys(tuple(steps) for steps in learned))
    for order in orders:
        chosen = [run for run, steps in zip(runs, learned, strict=True) if tuple(steps) == order]
        steps = next(steps for steps in learned if tuple(steps) == order)
        matrix = np.mean([_matrix(run, "accuracy", order) for run in chosen], axis=0)
        rows = [
            [f"v{row + 1}", *(_cell(matrix[row, column], row >= steps[d]) for column, d in enumerate(order))]
            for row in range(len(matrix))
        ]
        print(f"\n{title}: accuracy after each step, %\n")
        print_table(("version", *order), rows)


def _spread(values: Sequence[float], digits: int = 1, factor: float = 100.0) -> str:
    """Mean, and the range if there are several runs."""
    return spread(values, digits, factor) if len(values) > 1 else f"{factor * values[0]:.{digits}f}"


def _cell(value: float, known: bool) -> str:
    text = f"{100 * value:.0f}"
    return f"**{text}**" if known else text


def _metrics(run: Evaluation, metric: str, learned: Learned) -> ContinualMetrics:
    return compute_continual_metrics(_matrix(run, metric, tuple(learned)), list(learned.values()))


def _matrix(run: Evaluation, metric: str, domains: tuple[str, ...]) -> np.ndarray[Any, Any]:
    """(versions, domains), the oldest version first."""
    return np.array([student.values(metric, domains) for student in reversed(run.of_role("student"))])


def _against(joint: Sequence[Evaluation], runs: Sequence[Evaluation]) -> str:
    """Last version minus joint retraining on the same images; students are averaged over seeds and orders."""
    pairs = [(student_outcomes(joint, domain), student_outcomes(runs, domain)) for domain in joint[0].domains]
    mean, low, high = mean_difference(pairs)
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _cost(run: Evaluation) -> float:
    return float(run.settings["seconds"])
