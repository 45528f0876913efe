"""From scores per domain to the tables of papers: a row per task, a column per modality, and two means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from kdkit.core.contracts import DomainScore


@dataclass(frozen=True)
class TaskSummary:
    """One task over its modalities.

    Attributes:
        task: what the domains have before the slash.
        modalities: those present, with their scores; papers leave out others too, whatever their scripts print.
        macro: metric -> mean over the modalities that have it; what papers report.
        micro: metric -> mean over samples, of the metrics that have an outcome per sample.
    """

    task: str
    modalities: Mapping[str, DomainScore]
    macro: Mapping[str, float]
    micro: Mapping[str, float]


def summarize(scores: Iterable[DomainScore]) -> list[TaskSummary]:
    """One summary per task, in the order of the scores. Domains without a slash are modalities of the task ''."""
    by_task: dict[str, dict[str, DomainScore]] = {}
    for score in scores:
        task, slash, modality = score.domain.partition("/")
        by_task.setdefault(task if slash else "", {})[modality if slash else task] = score
    return [TaskSummary(task, found, _macro(found), _micro(found)) for task, found in by_task.items()]


def _macro(scores: Mapping[str, DomainScore]) -> dict[str, float]:
    names = dict.fromkeys(name for score in scores.values() for name in score.metrics)
    return {
        name: float(np.mean([score.metrics[name] for score in scores.values() if name in score.metrics]))
        for name in names
    }


def _micro(scores: Mapping[str, DomainScore]) -> dict[str, float]:
    names = dict.fromkeys(name for score in scores.values() for name in score.outcomes)
    return {
        name: float(np.concatenate([s.outcomes[name] for s in scores.values() if name in s.outcomes]).mean())
        for name in names
    }
