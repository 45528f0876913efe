"""Evaluation of a version of a project's student beside its ancestors, every teacher and the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter, Sample, Silent, Split
from kdkit.core.data.check import find_skipped
from kdkit.core.data.load import load_index
from kdkit.core.evaluation.compare import ModelOutputs, compare_models
from kdkit.core.evaluation.continual import ContinualMetrics, compute_continual_metrics
from kdkit.core.evaluation.evaluator import Evaluator, FeatureEvaluator, make_evaluator
from kdkit.core.evaluation.report import EvaluationReport
from kdkit.core.evaluation.retention import Retention, measure_retention
from kdkit.core.evaluation.scores import Evaluation
from kdkit.core.evaluation.trust.measure import locked_column, measure_trust
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.missing import extraction_hint
from kdkit.core.project.versions import Version, Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.plugin_system.catalogue import Catalogue
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import GuardEntry


def evaluate_version(
    project: Project,
    name: str | None = None,
    *,
    split: Split = "test",
    ancestors: bool = True,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> EvaluationReport:
    """Evaluate a version (by default the current one) on a split with its family's task.

    Teachers are read from the feature store: those of the registry and those that the version learned from. The
    oracle chooses by trust, which is measured on the calibration split first where it is missing.

    Raises:
        KdkitError: no such version, a student that does not give what the task reads, no labeled sample in the split,
            an unreadable image that may not be skipped.
    """
    reporter = reporter or Silent()
    registry, lock, versions = project.registry, project.lock, Versions(project)
    version = versions.get(name)
    chain = versions.ancestry(version) if ancestors else [version]
    table, store = load_index(project, reporter), FeatureStore(project.features)
    teachers = _teachers(registry.teachers, store, chain)
    columns = {teacher: locked_column(store, lock, teacher) for teacher in teachers}
    evaluator = make_evaluator(registry, project.catalogue, table)
    skipped = find_skipped(table, project.state, reporter) if not columns else np.zeros(len(table), dtype=bool)
    for column in columns.values():
        skipped |= column.unreadable(table) & table.may_skip
    samples = _labeled_samples(evaluator, table, split, skipped)
    advice = partial(extraction_hint, project.registry, project.lock)
    trust = None
    if teachers:
        trust = measure_trust(evaluator, store, lock, teachers, advice=advice, reporter=reporter)
    catalogue = project.catalogue
    evaluation = compare_models(
        evaluator.task,
        [_student(evaluator, catalogue, item, device, len(samples), reporter) for item in reversed(chain)],
        [evaluator.teacher(teacher, column) for teacher, column in columns.items()],
        samples,
        trust=trust,
        settings=evaluator.settings,
        advice=advice if split != "train" or isinstance(evaluator, FeatureEvaluator) else _no_training_answers,
        reporter=reporter,
    )
    if not evaluation.domains:
        raise KdkitError(
            "KD-EVAL-007",
            "no domain can be evaluated",
            why="; ".join(f"{domain}: {why}" for domain, why in evaluation.skipped.items()),
            fix="a domain needs labeled samples of at least two classes in this split; see 'kdkit data check'",
            code=ExitCode.MISSING,
        )
    history = tuple(item.name for item in chain)
    learned = _learned(chain, evaluation.domains)
    retention = _retention(registry.guard, evaluation, chain, learned) if len(history) > 1 else None
    continual = _continual(evaluation, history, learned)
    weights = {item.name: item.manifest.student_digest for item in chain}
    lineage = version.lineage
    repair = None if lineage.repair is None else lineage.repair.describe(lineage.parent)
    return EvaluationReport(version.name, history, evaluation, retention, continual, learned, weights, repair)


def _teachers(registered: Mapping[str, Any], store: FeatureStore, chain: Sequence[Version]) -> list[str]:
    """Teachers with features: those of the registry in its order, then others that the version learned from."""
    taught = [teacher.name for version in reversed(chain) for teacher in version.lineage.teachers]
    stored = set(store.teachers)
    return [name for name in dict.fromkeys([*registered, *taught]) if name in stored]


def _no_training_answers(teacher: str) -> str:
    return f"'{teacher}' answers the calibration and test splits alone"


def _labeled_samples(
    evaluator: Evaluator, table: SampleIndex, split: Split, skipped: np.ndarray[Any, Any]
) -> list[Sample]:
    """Labeled samples of the split without unreadable images that their data entry allows to skip."""
    samples = [table.samples[row] for row in evaluator.rows(split) if not skipped[row]]
    if not samples:
        raise KdkitError(
            "KD-EVAL-011",
            f"there is no labeled (or answered) sample in the split '{split}'",
            fix="choose another by --split, or label samples; 'kdkit data check' counts them",
        )
    return samples


def _student(
    evaluator: Evaluator, catalogue: Catalogue, version: Version, device: str, images: int, reporter: Reporter
) -> ModelOutputs:
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        reporter.progress(f"{version.name}: encoding images", min(done, images), images)

    return evaluator.student(version.name, load_student(version, catalogue), device=device, progress=progress)


def _retention(
    guard: GuardEntry, evaluation: Evaluation, chain: Sequence[Version], learned: Mapping[str, str]
) -> Retention:
    unseen = sorted(set(chain[-2].lineage.data.known) - set(evaluation.domains))
    return measure_retention(
        evaluation,
        evaluation,
        student=(chain[-2].name, chain[-1].name),
        tolerance=guard.tolerance,
        tolerances=guard.domains,
        trusted={t.name: tuple(t.domains) for t in chain[-1].lineage.teachers},
        domains=[*(d for d in evaluation.domains if learned.get(d) != chain[-1].name), *unseen],
    )


def _learned(chain: Sequence[Version], domains: Sequence[str]) -> dict[str, str]:
    """Domain -> the oldest version of the chain that was trained on its samples.

    Domains that earlier, absent ancestors learned count for the first version of the chain.
    """
    found = dict.fromkeys(chain[0].lineage.data.known, chain[0].name)
    for version in chain:
        for domain in version.lineage.data.samples:
            found.setdefault(domain, version.name)
    return {domain: found[domain] for domain in domains if domain in found}


def _continual(evaluation: Evaluation, history: Sequence[str], learned: Mapping[str, str]) -> ContinualMetrics | None:
    if len(history) < 2:
        return None
    matrix = np.array([evaluation.model(name).values("accuracy", evaluation.domains) for name in history])
    first = [history.index(learned[d]) if d in learned else len(history) for d in evaluation.domains]
    return compute_continual_metrics(matrix, first)
