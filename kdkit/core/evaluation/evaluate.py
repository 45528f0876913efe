"""Evaluation of a version of a project's student beside its ancestors, every teacher and the oracle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import ModelFeatures, Reporter, Sample, Silent, Split, StudentSpec
from kdkit.core.data.load import load_index
from kdkit.core.data.unreadable import find_skipped
from kdkit.core.evaluation.answers import StudentAnswers
from kdkit.core.evaluation.compare import ModelOutputs, compare_models
from kdkit.core.evaluation.continual import ContinualMetrics, compute_continual_metrics
from kdkit.core.evaluation.evaluator import (
    AnswerEvaluator,
    Evaluator,
    FeatureEvaluator,
    TaskChoice,
    make_evaluator,
    own_task,
)
from kdkit.core.evaluation.report import EvaluationReport
from kdkit.core.evaluation.retention import Retention, measure_retention
from kdkit.core.evaluation.score_cache import CachedTask
from kdkit.core.evaluation.scores import SUITE, Evaluation
from kdkit.core.evaluation.student_cache import answer_cache, student_cache
from kdkit.core.evaluation.trust.measure import locked_column, measure_trust
from kdkit.core.evaluation.trust.measurements import table_of_scores
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.missing import extraction_hint
from kdkit.core.project.versions import Version, Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project
    from kdkit.core.project.registry.schema import GuardEntry


CACHE = "evaluation/scores"
"""Folder in a project's state, which people may delete."""


def evaluate_version(
    project: Project,
    name: str | None = None,
    *,
    task: TaskChoice | None = None,
    split: Split = "test",
    ancestors: bool = True,
    by: Sequence[str] = (),
    device: str = "cpu",
    suite: str = "",
    reporter: Reporter | None = None,
) -> EvaluationReport:
    """Evaluate a version (by default the current one) on a split.

    Teachers are read from the feature store: those of the registry and those that the version learned from. Features
    and scores of an earlier evaluation are reused. The oracle chooses by the calibration split: by trust for the task
    of the student's family, else by the task itself.

    Args:
        task: by default that of the student's family; where the split has no labels, the family's
            ``task_without_labels``.
        by: columns of the samples, for scores of subgroups.
        suite: the suite that the project's data is of; its trust is then measured for this evaluation alone.

    Raises:
        KdkitError: no such version, task or column, a student that does not give what the task reads, no labeled sample
            in the split, an unreadable image that may not be skipped.
    """
    reporter = reporter or Silent()
    registry, lock, versions = project.registry, project.lock, Versions(project)
    version = versions.get(name)
    chain = versions.ancestry(version) if ancestors else [version]
    table, store = load_index(project, reporter), FeatureStore(project.features)
    teachers = _teachers(registry.teachers, store, chain)
    columns = {teacher: locked_column(store, lock, teacher) for teacher in teachers}
    skipped = find_skipped(table, project.state, reporter) if not columns else np.zeros(len(table), dtype=bool)
    for column in columns.values():
        skipped |= column.unreadable(table) & table.may_skip
    evaluator = choose_evaluator(project, table, split, task, skipped, reporter, by)
    own = evaluator.settings["task"] == own_task(project)
    if count := evaluator.left_out(split):
        reporter.warn(f"{count} training samples are not used: their domain or text is a label of a teacher")
    samples = _samples_to_score(evaluator, split, skipped)
    advice = partial(extraction_hint, project.registry, project.lock)
    views = [evaluator.teacher(teacher, column) for teacher, column in columns.items()]
    scorer = CachedTask(evaluator, project.state / CACHE) if isinstance(evaluator, FeatureEvaluator) else evaluator.task
    trust = None
    if teachers and own and not suite:
        trust = measure_trust(evaluator, store, lock, teachers, advice=advice, reporter=reporter)
    elif teachers:
        rows = evaluator.rows("calibration")
        held_out = [table.samples[row] for row in rows[~skipped[rows]]]
        on_calibration = compare_models(scorer, [], views, held_out, settings=evaluator.settings)
        trust = table_of_scores(on_calibration)
    evaluation = compare_models(
        scorer,
        [_student(evaluator, project, item, device, len(samples), reporter) for item in reversed(chain)],
        views,
        samples,
        trust=trust,
        settings={**evaluator.settings, **({SUITE: suite} if suite else {})},
        subgroups=evaluator.subgroups,
        advice=advice if split != "train" or isinstance(evaluator, FeatureEvaluator) else _no_training_answers,
        reporter=reporter,
    )
    if not evaluation.domains:
        raise KdkitError(
            "KD-EVAL-007",
            "no domain can be evaluated",
            why="; ".join(f"{domain}: {why}" for domain, why in evaluation.skipped.items()),
            fix="a domain needs labeled samples of at least two classes in this split (for captions: two captions); "
            "see 'kdkit data check'",
            code=ExitCode.MISSING,
        )
    history = tuple(item.name for item in chain)
    learned = _learned(chain, evaluation.domains)
    lineage = version.lineage
    return EvaluationReport(
        version=version.name,
        history=history,
        evaluation=evaluation,
        retention=_retention(registry.guard, evaluation, chain, learned, suite) if len(history) > 1 else None,
        continual=_continual(evaluation, history, learned),
        learned=learned,
        weights={item.name: item.manifest.student_digest for item in chain},
        repair=None if lineage.repair is None else lineage.repair.describe(lineage.parent),
        own_task=own,
    )


def choose_evaluator(
    project: Project,
    table: SampleIndex,
    split: Split,
    task: TaskChoice | None,
    skipped: np.ndarray[Any, Any],
    reporter: Reporter,
    by: Sequence[str] = (),
) -> Evaluator:
    """That of ``task``, else of the student's family; its task for captions where the split has no labels to measure.

    Raises:
        KdkitError: for a family, task or option that no plugin provides.
    """
    registry, catalogue = project.registry, project.catalogue
    evaluator = make_evaluator(registry, catalogue, table, task, skipped, by, project.state)
    other = catalogue.spec(StudentSpec, registry.student.family).task_without_labels
    if task is not None or not other or not isinstance(evaluator, FeatureEvaluator):
        return evaluator
    by_captions = make_evaluator(registry, catalogue, table, TaskChoice(other), skipped, by)
    able = [each.measurable(_rows(each, split, skipped)) for each in (evaluator, by_captions)]
    if able[0] or not able[1]:
        return evaluator
    reporter.say(f"no labels of two classes in the split '{split}': evaluated by the task '{other}' on its captions")
    return by_captions


def _rows(evaluator: Evaluator, split: Split, skipped: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    rows = evaluator.rows(split)
    return np.asarray(rows[~skipped[rows]])


def _teachers(registered: Mapping[str, Any], store: FeatureStore, chain: Sequence[Version]) -> list[str]:
    """Teachers with features: those of the registry in its order, then others that the version learned from."""
    taught = [teacher.name for version in reversed(chain) for teacher in version.lineage.teachers]
    stored = set(store.teachers)
    return [name for name in dict.fromkeys([*registered, *taught]) if name in stored]


def _no_training_answers(teacher: str) -> str:
    return f"'{teacher}' answers the calibration and test splits alone"


def _samples_to_score(evaluator: Evaluator, split: Split, skipped: np.ndarray[Any, Any]) -> list[Sample]:
    """What the task scores, without unreadable images that their data entry allows to skip."""
    samples = [evaluator.table.samples[row] for row in _rows(evaluator, split, skipped)]
    if not samples:
        truth = _truth(evaluator)
        raise KdkitError(
            "KD-EVAL-011",
            f"no sample in the split '{split}' is {truth}, so the task '{evaluator.settings['task']}' has nothing to "
            "score",
            fix="choose another by --split or --task, or label samples; 'kdkit data check' counts them",
        )
    return samples


def _truth(evaluator: Evaluator) -> str:
    """What a sample must be for the task, in words."""
    if isinstance(evaluator, AnswerEvaluator) or evaluator.spec.truth == "labels":
        return "labeled (or answered)"
    if evaluator.spec.truth == "metadata":
        names = [str(evaluator.settings.get(option, option)) for option in evaluator.spec.metadata]
        return f"with the metadata {', '.join(names)}"
    return "with a caption" if evaluator.spec.truth == "captions" else "with findings"


def _student(
    evaluator: Evaluator, project: Project, version: Version, device: str, images: int, reporter: Reporter
) -> ModelOutputs:
    done = 0

    def progress(more: int) -> None:
        nonlocal done
        done += more
        reporter.progress(f"{version.name}: encoding images", min(done, images), images)

    version.check()
    if isinstance(evaluator, AnswerEvaluator):

        def open_answering() -> StudentAnswers:
            student = load_student(version, project.catalogue)
            return evaluator.student(version.name, student, device=device, progress=progress)

        return answer_cache(project, version, evaluator.table, device, open_answering)

    def open_model() -> ModelFeatures:
        student = load_student(version, project.catalogue)
        return evaluator.student(version.name, student, device=device, progress=progress)

    return student_cache(project, version, evaluator.table, device, open_model)


def _retention(
    guard: GuardEntry, evaluation: Evaluation, chain: Sequence[Version], learned: Mapping[str, str], suite: str
) -> Retention:
    unseen = [] if suite else sorted(set(chain[-2].lineage.data.known) - set(evaluation.domains))
    return measure_retention(
        evaluation,
        evaluation,
        student=(chain[-2].name, chain[-1].name),
        tolerance=guard.tolerance,
        tolerances=guard.domains,
        trusted={t.name: tuple(t.domains) for t in chain[-1].lineage.teachers},
        domains=[*(d for d in evaluation.domains if learned.get(d) != chain[-1].name), *unseen],
        metric=evaluation.headline,
        by={column: guard.by.get(column, guard.tolerance) for column in evaluation.columns},
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
    matrix = np.array([evaluation.model(name).values(evaluation.headline, evaluation.domains) for name in history])
    first = [history.index(learned[d]) if d in learned else len(history) for d in evaluation.domains]
    return compute_continual_metrics(matrix, first)
