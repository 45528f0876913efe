"""The tables of ClinKD's paper (arXiv 2502.05928) from a sweep: by task, by task and modality, and by alpha."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from kdkit.core.base.result import Table
from kdkit.core.evaluation.sweeps.results import MISSING, VariationResult, of_part, spread_of

TABLE_2, TABLE_3, FIGURE_4 = "Table 2", "Table 3", "Figure 4"
TASKS = ("vg", "roc", "rc", "mia")
"""Of the paper, in its order; other tasks follow."""


def paper_tables(results: Sequence[VariationResult]) -> list[tuple[str, Table]]:
    """Titled tables in the paper's shape: mean and standard deviation over seeds, in percent."""
    tasks = tasks_of(results[0].variation.domains)
    return [
        (f"{TABLE_2}: the parts of ClinKD, mean over modalities, %", _by_task(results, TABLE_2, tasks, "method")),
        (f"{TABLE_3}: per task and modality, %", _by_modality(results, tasks)),
        (f"{FIGURE_4}: alpha, mean over modalities, %", _by_task(results, FIGURE_4, tasks, "alpha")),
    ]


def tasks_of(domains: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Task -> its domains; a domain is task and modality, ``vg/ct``.

    Example:
        >>> tasks_of(["mia/ct", "vg/ct", "vg/mri"])
        {'vg': ('vg/ct', 'vg/mri'), 'mia': ('mia/ct',)}
    """
    found: dict[str, list[str]] = {}
    for domain in domains:
        found.setdefault(domain.partition("/")[0], []).append(domain)
    order = sorted(found, key=lambda task: (TASKS.index(task) if task in TASKS else len(TASKS), task))
    return {task: tuple(found[task]) for task in order}


def task_means(result: VariationResult, domains: Sequence[str]) -> tuple[float, ...]:
    """Mean over the modalities of a task, for each finished seed."""
    return tuple(float(np.mean([found[domain] for domain in domains])) for found in result.accuracies.values())


def alpha_of(result: VariationResult) -> float:
    """Of Figure 4."""
    return float(result.variation.values.get("alpha", math.nan))


def with_spread(values: Sequence[float]) -> str:
    """``66.8 ± 1.2`` in percent; one value has no spread, none is a dash.

    Example:
        >>> with_spread([0.66, 0.68]), with_spread([0.5]), with_spread([])
        ('67.0 ± 1.4', '50.0', '–')
    """
    if not values:
        return MISSING
    mean = f"{100 * float(np.mean(values)):.1f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * spread_of(values):.1f}"


def _average(result: VariationResult, tasks: Mapping[str, Sequence[str]]) -> tuple[float, ...]:
    """Mean over tasks of the means over modalities, for each finished seed."""
    per_task = [task_means(result, domains) for domains in tasks.values()]
    return tuple(float(np.mean(values)) for values in zip(*per_task, strict=True))


def _by_task(every: Sequence[VariationResult], part: str, tasks: Mapping[str, Sequence[str]], first: str) -> Table:
    results = of_part(every, part)
    if part == FIGURE_4:
        results = tuple(sorted(results, key=alpha_of))
    rows = []
    for result in results:
        name = f"{alpha_of(result):g}" if part == FIGURE_4 else result.variation.name
        cells = [with_spread(task_means(result, domains)) for domains in tasks.values()]
        rows.append((name, *cells, with_spread(_average(result, tasks)), _finished(result)))
    heads = (first, *(task.upper() for task in tasks), "average", "seeds")
    return Table(heads, rows, "l" + "r" * (len(heads) - 1))


def _by_modality(results: Sequence[VariationResult], tasks: Mapping[str, Sequence[str]]) -> Table:
    modalities = list(dict.fromkeys(d.partition("/")[2] for domains in tasks.values() for d in domains))
    rows = []
    for task, domains in tasks.items():
        for result in of_part(results, TABLE_3):
            there = {d.partition("/")[2]: [found[d] for found in result.accuracies.values()] for d in domains}
            cells = [with_spread(there.get(modality, [])) for modality in modalities]
            rows.append((task.upper(), result.variation.name, *cells, with_spread(task_means(result, domains))))
    heads = ("task", "method", *(modality or "all" for modality in modalities), "average")
    return Table(heads, rows, "ll" + "r" * (len(heads) - 2))


def _finished(result: VariationResult) -> str:
    return "not trained" if result.variation.impossible else f"{len(result.seeds)} of {len(result.variation.runs)}"
