"""Summaries as in papers: per task, the scores of its modalities and two means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from kdkit.core.contracts import DomainScore


@dataclass(frozen=True)
class TaskSummary:
    """One task over its modalities.

    Attributes:
        task: the part of the domains before the slash.
        modalities: modality -> score.
        macro: metric -> mean over the modalities that have it, as papers report.
        micro: metric with outcomes per sample -> mean over samples.
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
