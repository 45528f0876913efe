"""Accuracy of each teacher on calibration samples of each domain, from the feature store alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import CAPTIONS, Reporter, Silent, TrustBasis, TrustTable
from kdkit.core.evaluation.evaluator import AnswerEvaluator, Evaluator
from kdkit.core.evaluation.features import signal_alone
from kdkit.core.evaluation.trust.answers import AnswerTrust
from kdkit.core.evaluation.trust.captions import CaptionTrust
from kdkit.core.evaluation.trust.lists import ListTrust, sample_scores
from kdkit.core.evaluation.trust.measurements import (
    LEVEL,
    TeacherMeasurement,
    load_measurements,
    make_trust_table,
    save_measurement,
    trust_file,
)
from kdkit.core.evaluation.trust.probe import ProbeTrust
from kdkit.core.evaluation.trust.retrieval import OTHERS, RetrievalTrust
from kdkit.core.evaluation.trust.weights import SampleScores
from kdkit.core.evaluation.trust.zero_shot import ZeroShotTrust
from kdkit.core.evaluation.zero_shot import LOGIT_SCALE

if TYPE_CHECKING:
    from kdkit.core.features.store.column import Column
    from kdkit.core.features.store.store import FeatureStore
    from kdkit.core.project.registry.lock import Lock

Meter = ZeroShotTrust | AnswerTrust | RetrievalTrust | ListTrust


def choose_basis(wanted: TrustBasis | None, evaluator: Evaluator, reporter: Reporter) -> TrustBasis:
    """What trust is measured by: ``wanted``, or by default labels; captions, and that is said, if there are no labels.

    Raises:
        KdkitError: captions or lists are wanted for students that answer.
    """
    if isinstance(evaluator, AnswerEvaluator):
        if wanted in (None, "label"):
            return "label"
        raise KdkitError(
            "KD-TRUST-004",
            f"trust by {wanted} is for dual encoders",
            where="trust.by",
            why=f"the task '{evaluator.settings['task']}' scores answers",
            fix="remove 'by', or set it to 'label'",
        )
    if wanted is not None:
        return wanted
    index = evaluator.table
    if evaluator.measurable(evaluator.rows("calibration")):
        return "label"
    if not index.has_text[index.select(split="calibration")].any():
        return "label"
    reporter.say(
        "trust is measured by captions, since no domain has labeled calibration samples of two classes: how often a "
        f"teacher ranks the true caption of an image before {OTHERS} others of its domain"
    )
    return "caption"


def measure_trust(
    evaluator: Evaluator,
    store: FeatureStore,
    lock: Lock,
    teachers: Sequence[str],
    *,
    advice: Callable[[str], str] | None = None,
    level: float = LEVEL,
    captions: bool = False,
    by: TrustBasis = "label",
    every_sample: bool = False,
    reporter: Reporter | None = None,
) -> TrustTable:
    """Accuracy of each teacher on each domain, with Wilson bounds.

    Teachers that give images or texts alone are measured by probes of their features. Saved scores are reused while the
    column, the labeled samples and the prompts are the same, and also, with a warning, when the column no longer
    exists. Beside each column lie per-sample scores: the probability of the true class for every labeled sample of
    every split (of a probe: for every calibration sample).

    Args:
        evaluator: of the student's family; its index gives samples and domains.
        teachers: each with a column in the store, or saved scores.
        advice: teacher -> the remedy for missing features, for warnings.
        level: coverage of the bounds.
        captions: measure the captions too, where a dual encoder learns from them: the table's last row. It is NaN by
            captions or lists, which say nothing about captions themselves.
        by: what to measure trust by; :func:`choose_basis` gives it.
        every_sample: by captions, store scores of samples of all splits.

    Returns:
        Rows in the order of ``teachers``, columns in that of the index's domains. NaN, with a warning, where trust
        cannot be measured: no labeled calibration sample, a single class, missing features or prompts.

    Raises:
        KdkitError: when a teacher has neither column nor scores, its column has another fingerprint than the lock,
            or its features are NaN.
    """
    reporter = reporter or Silent()
    meter = _make_meter(evaluator, reporter, by, every_sample=every_sample)
    file = trust_file(store.root)
    measured = load_measurements(file, by)
    for number, teacher in enumerate(teachers):
        reporter.progress("measuring trust", number, len(teachers), teacher)
        if teacher in measured and teacher not in store.teachers:
            reporter.warn(f"teacher '{teacher}' has no features any more: using the trust measured before")
            continue
        column = locked_column(store, lock, teacher)
        own = _meter_of(column, meter, evaluator, reporter)
        fingerprint = own.fingerprint(column)
        if teacher in measured and measured[teacher].fingerprint == fingerprint:
            continue
        counts = own.measure(column, advice(teacher) if advice else f"run 'kdkit features extract {teacher}'")
        measured[teacher] = TeacherMeasurement(
            fingerprint, counts, probe=own.signal if isinstance(own, ProbeTrust) else ""
        )
        save_measurement(file, teacher, measured[teacher], by, logit_scale=LOGIT_SCALE)
    rows = tuple(teachers)
    if captions and isinstance(meter, ZeroShotTrust):
        columns = [locked_column(store, lock, name) for name in teachers if name in store.teachers]
        if columns or CAPTIONS not in measured:  # scores outlive the features, as those of teachers do
            measured[CAPTIONS] = _measure_captions(CaptionTrust(evaluator.table, meter.domains, columns), measured)
            save_measurement(file, CAPTIONS, measured[CAPTIONS], logit_scale=LOGIT_SCALE)
        rows = (*rows, CAPTIONS)
    elif captions and by != "label":
        measured[CAPTIONS] = TeacherMeasurement("", {})
        rows = (*rows, CAPTIONS)
    reporter.progress("measuring trust", len(teachers), len(teachers))
    return make_trust_table(measured, rows, evaluator.table.domains, level, by)


def read_sample_scores(
    evaluator: Evaluator, store: FeatureStore, lock: Lock, table: TrustTable, reporter: Reporter
) -> SampleScores:
    """Stored trust of the table's teachers in every sample, by what the table was measured by.

    Raises:
        KdkitError: for students that answer.
    """
    index = evaluator.table
    if isinstance(evaluator, AnswerEvaluator):
        raise KdkitError(
            "KD-TRUST-005",
            "trust per sample is for dual encoders",
            where="trust.per",
            why="answers are scored on the calibration split alone",
            fix="remove 'per', or set it to 'domain'",
        )
    teachers = [name for name in table.teachers if name != CAPTIONS]
    values = np.full((len(teachers), len(index)), np.nan, dtype=np.float32)
    for row, name in enumerate(teachers):
        if name in store.teachers:
            values[row] = sample_scores(locked_column(store, lock, name), index, table.by)
        measured = not np.isnan(table.accuracy[row]).all()  # else another warning says why not
        if measured and np.isnan(values[row][index.select(split="train")]).all():
            reporter.warn(
                f"teacher '{name}' has no score by {table.by} of any training sample, and per sample it teaches "
                "nothing: scores need stored features; 'per: domain' needs none"
            )
    return SampleScores(values, index.domain_index)


def _measure_captions(meter: CaptionTrust, measured: Mapping[str, TeacherMeasurement]) -> TeacherMeasurement:
    fingerprint = meter.fingerprint()
    if CAPTIONS in measured and measured[CAPTIONS].fingerprint == fingerprint:
        return measured[CAPTIONS]
    return TeacherMeasurement(fingerprint, meter.measure())


def _make_meter(evaluator: Evaluator, reporter: Reporter, by: TrustBasis, *, every_sample: bool) -> Meter:
    if by == "caption":
        return RetrievalTrust(evaluator.table, reporter, every_sample=every_sample)
    if by == "list":
        return ListTrust(evaluator.table, reporter)
    if isinstance(evaluator, AnswerEvaluator):
        return AnswerTrust(evaluator, reporter)
    return ZeroShotTrust(evaluator, reporter)


def _meter_of(column: Column, meter: Meter, evaluator: Evaluator, reporter: Reporter) -> Meter | ProbeTrust:
    if isinstance(meter, ZeroShotTrust) and (signal := signal_alone(column)):
        return ProbeTrust(evaluator.table, meter.domains, reporter, signal)
    return meter


def locked_column(store: FeatureStore, lock: Lock, teacher: str) -> Column:
    """The column of the teacher's locked fingerprint; for a teacher that was removed, its last column.

    Raises:
        KdkitError: when there is none, or only one of another fingerprint (naming both).
    """
    locked = lock.teachers.get(teacher)
    return store.column(teacher, None if locked is None else locked.fingerprint)
