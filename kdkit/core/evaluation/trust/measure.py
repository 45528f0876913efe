"""How well each teacher does on calibration samples of each domain, from the store alone.

A dual encoder classifies them zero-shot; a generating teacher's answers are scored by the student's task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.contracts import Reporter, Silent, TrustTable
from kdkit.core.evaluation.judging import AnswerJudge, FeatureJudge, judge_of
from kdkit.core.evaluation.trust import answers
from kdkit.core.evaluation.trust.saved import Measured, TeacherTrust, as_table, load_measured, save_measured
from kdkit.core.evaluation.zero_shot import LOGIT_SCALE, Prompts, class_embeddings, class_probabilities, unit_rows
from kdkit.core.features.extract.advice import who_adds

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.features.store.column import Column
    from kdkit.core.features.store.store import FeatureStore
    from kdkit.core.project.project import Project

LEVEL = 0.95
SCORES = "trust"
"""Name of the per-sample scores beside a column: probability of the true class at :data:`LOGIT_SCALE`."""
_ROWS = 8192
Array = np.ndarray[Any, Any]


def measure_trust(
    project: Project,
    table: SampleIndex,
    store: FeatureStore,
    teachers: Sequence[str],
    *,
    level: float = LEVEL,
    reporter: Reporter | None = None,
) -> TrustTable:
    """Zero-shot accuracy of each teacher on each domain of the table, with Wilson bounds.

    Measured once: a teacher whose column, labeled samples and prompts are those of the saved scores is not
    measured again. Where its column is gone but its scores are not, those are used, and it is said. Beside
    each column lies, for every labeled sample of every split, the probability that the teacher gives its
    true class.

    Args:
        teachers: each with a column in the store, or saved scores.
        level: coverage of the bounds.

    Returns:
        Rows in the order of ``teachers``, columns in that of ``table.domains``; NaN for what cannot be
        measured, each said as a warning: a domain without a labeled calibration sample or with a single
        class, a teacher without features of a domain's calibration samples or prompts.

    Raises:
        KdkitError: when a teacher has neither column nor scores, its column is that of other files than the
            lock's, or its features are NaN.
    """
    reporter = reporter or Silent()
    judge = judge_of(project, table)
    examiner = _Answers(judge, reporter) if isinstance(judge, AnswerJudge) else _Features(judge, reporter)
    measured = load_measured(project)
    for number, teacher in enumerate(teachers):
        reporter.progress("measuring trust", number, len(teachers), teacher)
        if teacher in measured and teacher not in store.teachers:
            reporter.warn(f"teacher '{teacher}' has no features any more: using the trust measured before")
            continue
        column = column_of(project, store, teacher)
        fingerprint = examiner.fingerprint(column)
        if teacher in measured and measured[teacher].fingerprint == fingerprint:
            continue
        measured[teacher] = TeacherTrust(fingerprint, examiner.measure(column, who_adds(project, teacher)))
        save_measured(project, measured, logit_scale=LOGIT_SCALE)
    reporter.progress("measuring trust", len(teachers), len(teachers))
    return as_table(measured, teachers, table.domains, level)


class _Features:
    """Zero-shot classification from stored features."""

    def __init__(self, judge: FeatureJudge, reporter: Reporter) -> None:
        self._table, self._prompts, self._reporter = judge.table, judge.prompts, reporter
        self._domains = _measurable(judge.table, judge.prompts, reporter)

    def fingerprint(self, column: Column) -> str:
        return _fingerprint(column, self._table, self._prompts)

    def measure(self, column: Column, advice: str) -> dict[str, Measured]:
        return _measure(column, self._table, self._domains, self._reporter, advice)


class _Answers:
    """Scores of stored answers."""

    def __init__(self, judge: AnswerJudge, reporter: Reporter) -> None:
        self._judge, self._reporter = judge, reporter

    def fingerprint(self, column: Column) -> str:
        return answers.fingerprint(self._judge, column)

    def measure(self, column: Column, advice: str) -> dict[str, Measured]:
        return answers.measure(self._judge, column, SCORES, self._reporter, advice)


def column_of(project: Project, store: FeatureStore, teacher: str) -> Column:
    """The column of the teacher as it is locked; the last one for a teacher that was removed.

    Raises:
        KdkitError: when there is none, or only one of another fingerprint (naming both).
    """
    locked = project.lock.teachers.get(teacher)
    return store.column(teacher, None if locked is None else locked.fingerprint)


def _measurable(table: SampleIndex, prompts: Prompts, reporter: Reporter) -> dict[str, Mapping[str, Sequence[str]]]:
    """Domain -> its prompts, for domains on which zero-shot accuracy means something."""
    found: dict[str, Mapping[str, Sequence[str]]] = {}
    for domain in table.domains:
        rows = table.select(split="calibration", domains=[domain], labeled=True)
        labels = {table.samples[row].label for row in rows}
        problem = ""
        if not labels:
            problem = "no labeled calibration sample"
        elif len(prompts[domain]) < 2:
            problem = f"a single class ('{next(iter(prompts[domain]))}')"
        if problem:
            reporter.warn(
                f"domain '{domain}' has {problem}: trust cannot be measured, so no teacher is trusted there. "
                "Give it labeled samples of at least two classes in the calibration split, "
                "or use policy 'all' with unmeasured: true"
            )
            continue
        found[domain] = prompts[domain]
        if absent := [label for label in prompts[domain] if label not in labels]:
            reporter.warn(
                f"domain '{domain}': no calibration sample of {', '.join(absent)}: "
                "trust says nothing about " + ("this class" if len(absent) == 1 else "these classes")
            )
    return found


def _fingerprint(column: Column, table: SampleIndex, prompts: Prompts) -> str:
    """Of all that the scores depend on: the features, which of them exist, the samples, the prompts."""
    rows = table.select(labeled=True)
    about = [column.fingerprint, prompts, sorted(column.texts), LOGIT_SCALE]
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for row in rows:
        sample = table.samples[row]
        digest.update(json.dumps([sample.id, sample.domain, sample.label, sample.split]).encode())
    digest.update(table.digests[rows].tobytes())
    digest.update((column.locate(table)[rows] >= 0).tobytes())
    return digest.hexdigest()


def _measure(
    column: Column, table: SampleIndex, domains: Prompts, reporter: Reporter, advice: str
) -> dict[str, Measured]:
    """Domain -> counts, for those of which the column has features; the scores go beside the column."""
    places = column.locate(table)
    result, scored, scores = {}, [], []
    for domain, prompts in domains.items():
        rows = table.select(domains=[domain], labeled=True)
        if not _has_features(column, table, places, domain, prompts, reporter, advice):
            continue
        rows = rows[places[rows] >= 0]
        true, right = _judge(column, places[rows], table.label_index[rows], prompts, domain)
        judged = np.isin(rows, table.select(split="calibration"))
        result[domain] = Measured(int(right[judged].sum()), int(judged.sum()), len(prompts))
        scored.append(places[rows])
        scores.append(true)
    if scored:
        column.put_scores(SCORES, np.concatenate(scored), np.concatenate(scores))
    return result


def _judge(
    column: Column, places: Array, labels: Array, prompts: Mapping[str, Sequence[str]], domain: str
) -> tuple[Array, Array]:
    """Probability of the true class (N,) float32, and whether it is the highest (N,), per row."""
    where = f"teacher '{column.teacher}', domain '{domain}'"
    classes = class_embeddings(prompts, column.text_features, where=where)
    true, right = np.empty(len(places), dtype=np.float32), np.empty(len(places), dtype=bool)
    for start in range(0, len(places), _ROWS):
        part = slice(start, start + _ROWS)
        image = unit_rows(column.gather("image", places[part]), what="image features", where=where)
        probability = class_probabilities(image, classes)
        true[part] = probability[np.arange(len(image)), labels[part]]
        right[part] = probability.argmax(axis=1) == labels[part]
    return true, right


def _has_features(
    column: Column,
    table: SampleIndex,
    places: Array,
    domain: str,
    prompts: Mapping[str, Sequence[str]],
    reporter: Reporter,
    advice: str,
) -> bool:
    """Whether the domain can be measured; says what is missing (a teacher may exist no more), and who adds it."""
    calibration = table.select(split="calibration", domains=[domain], labeled=True)
    absent = int((places[calibration] < 0).sum())
    texts = [text for group in prompts.values() for text in group]
    problem = ""
    if absent == len(calibration):
        problem = "no features of its calibration samples"
    elif any(text not in column.texts for text in texts):
        problem = "no features of its prompts"
    if problem:
        reporter.warn(
            f"teacher '{column.teacher}' has {problem} in domain '{domain}' and is not trusted there; {advice}"
        )
    elif absent:
        reporter.warn(
            f"teacher '{column.teacher}' lacks features of {absent} of {len(calibration)} calibration "
            f"samples in domain '{domain}': measured on the others"
        )
    return not problem
