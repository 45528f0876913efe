"""A version of a project's student beside its ancestors, every teacher and the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Reporter, Sample, Silent, Split
from kdkit.core.data.check import skipped_images
from kdkit.core.data.load import load_index
from kdkit.core.evaluation.compare import View, evaluate_views
from kdkit.core.evaluation.continual import Continual, continual_metrics
from kdkit.core.evaluation.evaluation import Evaluation
from kdkit.core.evaluation.judging import FeatureJudge, Judge, judge_of
from kdkit.core.evaluation.retention import Retention, retention
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.advice import who_adds
from kdkit.core.project.versions import Version, Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class Findings:
    """An evaluation of a project.

    Attributes:
        version: the one that was asked for; a model of ``evaluation`` has its name.
        history: names of its ancestors that were evaluated too and itself, oldest first.
        evaluation: everything side by side.
        retention: against its parent, on domains that were not new to the version; None for a first version
            or without ancestors.
        continual: over ``history``; None when that is one version.
        learned: domain -> the version of ``history`` that was first taught it.
    """

    version: str
    history: tuple[str, ...]
    evaluation: Evaluation
    retention: Retention | None
    continual: Continual | None
    learned: dict[str, str]


def evaluate_project(
    project: Project,
    name: str | None = None,
    *,
    split: Split = "test",
    ancestors: bool = True,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Findings:
    """Evaluate a version (by default the current one) on a split, by its family's task.

    Teachers come from the feature store: those of the registry and those that the version learnt from. Trust,
    by which the oracle chooses, is measured on the calibration split first where it is not known.

    Raises:
        KdkitError: no such version, a student that does not give what the task reads, no sample to judge by in
            the split, an unreadable image that may not be skipped.
    """
    from kdkit.core.evaluation.trust.measure import column_of, measure_trust

    reporter = reporter or Silent()
    versions = Versions(project)
    version = versions.get(name)
    chain = versions.ancestry(version) if ancestors else [version]
    table = load_index(project, reporter)
    store = FeatureStore(project.features)
    teachers = _teachers(project, store, chain)
    columns = {teacher: column_of(project, store, teacher) for teacher in teachers}
    judge = judge_of(project, table)
    skipped = skipped_images(project, table, reporter) if not columns else np.zeros(len(table), dtype=bool)
    for column in columns.values():
        skipped |= column.unreadable(table) & table.may_skip
    samples = _samples(judge, table, split, skipped)
    evaluation = evaluate_views(
        judge.task,
        [_student_view(project, judge, item, device, len(samples), reporter) for item in reversed(chain)],
        [judge.teacher(teacher, column) for teacher, column in columns.items()],
        samples,
        trust=measure_trust(project, table, store, teachers, reporter=reporter) if teachers else None,
        settings=judge.settings,
        advice=partial(_advice, project, asked=split != "train" or isinstance(judge, FeatureJudge)),
        reporter=reporter,
    )
    history = tuple(item.name for item in chain)
    learned = _learned(chain, evaluation.domains)
    kept = _retention(project, evaluation, chain, learned) if len(history) > 1 else None
    return Findings(version.name, history, evaluation, kept, _continual(evaluation, history, learned), learned)


def _teachers(project: Project, store: FeatureStore, chain: Sequence[Version]) -> list[str]:
    """Those of the registry in its order, then others that the version learnt from; with features."""
    taught = [teacher["name"] for version in reversed(chain) for teacher in version.lineage["teachers"]]
    wanted = dict.fromkeys([*project.registry.teachers, *taught])
    stored = set(store.teachers)
    return [name for name in wanted if name in stored]


def _advice(project: Project, teacher: str, *, asked: bool) -> str:
    """About what a teacher lacks; ``asked``: whether it is asked about samples of this split at all."""
    return who_adds(project, teacher) if asked else "teachers answer the calibration and test splits alone"


def _samples(judge: Judge, table: SampleIndex, split: Split, skipped: np.ndarray[Any, Any]) -> list[Sample]:
    """Samples of the split that can be judged, less unreadable images that their data entry allows to skip."""
    samples = [table.samples[row] for row in judge.rows(split) if not skipped[row]]
    if not samples:
        raise KdkitError(
            "KD-EVAL-011",
            f"there is no labeled (or answered) sample in the split '{split}'",
            fix="choose another by --split, or label samples; 'kdkit data check' counts them",
        )
    return samples


def _student_view(
    project: Project, judge: Judge, version: Version, device: str, images: int, reporter: Reporter
) -> View:
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        reporter.progress(f"{version.name}: looking at images", min(done, images), images)

    student = load_student(version, project.catalogue)
    return judge.student(version.name, student, device=device, progress=progress)


def _retention(
    project: Project, evaluation: Evaluation, chain: Sequence[Version], learned: dict[str, str]
) -> Retention:
    guard = project.registry.guard
    unseen = sorted(set(chain[-2].lineage["data"]["known"]) - set(evaluation.domains))
    return retention(
        evaluation,
        evaluation,
        student=(chain[-2].name, chain[-1].name),
        tolerance=guard.tolerance,
        tolerances=guard.domains,
        trusted={t["name"]: tuple(t["domains"]) for t in chain[-1].lineage["teachers"]},
        domains=[*(d for d in evaluation.domains if learned.get(d) != chain[-1].name), *unseen],
    )


def _learned(chain: Sequence[Version], domains: Sequence[str]) -> dict[str, str]:
    """Domain -> the oldest version of the chain that was trained on samples of it.

    Those before the first of the chain are gone (or are elsewhere, where it was pulled from): it counts for them.
    """
    found = dict.fromkeys(chain[0].lineage["data"]["known"], chain[0].name)
    for version in chain:
        for domain in version.lineage["data"]["samples"]:
            found.setdefault(domain, version.name)
    return {domain: found[domain] for domain in domains if domain in found}


def _continual(evaluation: Evaluation, history: Sequence[str], learned: dict[str, str]) -> Continual | None:
    if len(history) < 2:
        return None
    matrix = np.array([evaluation.model(name).values("accuracy", evaluation.domains) for name in history])
    first = [history.index(learned[d]) if d in learned else len(history) for d in evaluation.domains]
    return continual_metrics(matrix, first)
