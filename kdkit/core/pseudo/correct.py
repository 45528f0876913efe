"""Reflective correction (ClinKD): the student answers what it was taught; what it gets wrong is written, corrected."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from kdkit.core.contracts import Answering, EvaluationTask, Reporter, Sample, Silent, StudentSpec
from kdkit.core.data.images import open_image
from kdkit.core.data.load import load_table
from kdkit.core.errors import ExitCode, KdkitError
from kdkit.core.evaluate.judging import AnswerJudge, judge_of
from kdkit.core.pseudo.manifest import count_domains, image_root, manifest_row, write_manifest
from kdkit.core.trust.answers import HEADLINE
from kdkit.core.versions import Versions, load_student

if TYPE_CHECKING:
    from kdkit.core.data.table import SampleTable
    from kdkit.core.workspace import Workspace

THRESHOLD = 0.8
"""Of the paper."""
REFERENCE = "reference"
"""The corrector that writes the sample's own text."""
ASK = (
    "Your answer is wrong. The right answer is: {reference}\n"
    "Write the right answer again, in your own words. Keep its meaning and its names, and its coordinates as they are. "
    "Write nothing else."
)
MARK = "<image>"


@dataclass(frozen=True)
class Wrong:
    """Which answers are corrected, and how.

    Attributes:
        threshold: answers of a lower score are.
        options: of the project's evaluation task, which scores them.
        corrector: a teacher of the registry that rewrites; None: the reference is taken as it is.
        domains: only these; empty for all.
        limit: samples that are asked about, at most.
    """

    threshold: float = THRESHOLD
    options: Mapping[str, Any] = field(default_factory=dict)
    corrector: str | None = None
    domains: tuple[str, ...] = ()
    limit: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise KdkitError("the threshold is in (0, 1]", where="threshold")
        if self.limit is not None and self.limit < 1:
            raise KdkitError("at least one sample", where="limit")


@dataclass(frozen=True)
class Corrected:
    """What came of it.

    Attributes:
        version: who answered; ``file``: the manifest, relative to the project; ``image_root``: relative to it.
        answered: samples that were asked about; ``unscored``: those that the task cannot score.
        rewritten: by the corrector; ``refused``: its texts that score below the threshold themselves, for which the
            reference stands.
        wrong: domain -> rows of the manifest.
    """

    version: str
    file: str
    image_root: str
    answered: int
    unscored: int
    rewritten: int
    refused: int
    wrong: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def correct(
    workspace: Workspace,
    to: Path,
    wanted: Wrong | None = None,
    *,
    version: str | None = None,
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> Corrected:
    """Write a manifest of the training samples that a version (by default the current one) answers badly.

    Each row has the corrected answer as text and in ``extra.correction`` the ``version``, its ``answer`` and ``score``,
    the ``corrector`` and the ``sample``. Rows of such manifests are not asked about again.

    Raises:
        KdkitError: a student that does not answer, no sample with an answer, a corrector that does not answer.
    """
    reporter, wanted = reporter or Silent(), wanted or Wrong()
    table = load_table(workspace, reporter)
    judge = judge_of(workspace, table)
    if not isinstance(judge, AnswerJudge):
        raise KdkitError("only students that answer can be corrected", fix="dual encoders: 'kdkit evaluate'")
    samples = _taught(table, wanted)
    found = Versions(workspace).get(version)
    done = _Counter("answering", len(samples), reporter)
    view = judge.student(found.name, load_student(found, workspace.catalogue), device=device, progress=done)
    answers = dict(zip([s.id for s in samples], view.answer(samples), strict=True))
    task = _task(workspace, wanted)
    scores = score(task, samples, answers)
    wrong = [sample for sample in samples if scores.get(sample.id, 1.0) < wanted.threshold]
    told: dict[str, str] = {}
    if wanted.corrector and wrong:
        told = _rewrite(_corrector(workspace, wanted.corrector, device, reporter), wrong, answers, reporter)
        good = score(task, wrong, told)
        told = {name: text for name, text in told.items() if text and good.get(name, 0.0) >= wanted.threshold}
    root = image_root(workspace, table)
    rows = []
    for sample in wrong:
        about = {"version": found.name, "sample": sample.id, "answer": answers[sample.id], "score": scores[sample.id]}
        about["corrector"] = str(wanted.corrector) if sample.id in told else REFERENCE
        text = told.get(sample.id, sample.text)
        rows.append(manifest_row(sample, f"{sample.id}#{found.name}", text, {"correction": about}, root))
    write_manifest(to, rows)
    return Corrected(
        version=found.name,
        file=os.path.relpath(to.resolve(), workspace.root.resolve()),
        image_root=os.path.relpath(root, to.resolve().parent),
        answered=len(samples),
        unscored=len(samples) - len(scores),
        rewritten=len(told),
        refused=len(wrong) - len(told) if wanted.corrector else 0,
        wrong=count_domains(wrong),
    )


def score(task: EvaluationTask, samples: Sequence[Sample], answers: Mapping[str, str]) -> dict[str, float]:
    """Sample id -> the task's headline for its answer, in [0, 1]; without samples that the task cannot score."""
    found: dict[str, float] = {}
    for scored in task.evaluate(_Given(answers), samples):
        found |= zip(scored.ids, np.asarray(scored.outcomes[HEADLINE], dtype=np.float64).tolist(), strict=True)
    return found


class _Given:
    """A ``contracts.AnswerView`` of answers that are there already."""

    name = "given"

    def __init__(self, answers: Mapping[str, str]) -> None:
        self._answers = answers

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        return [self._answers[sample.id] for sample in samples]


class _Counter:
    """Adds up what a view reports batch by batch."""

    def __init__(self, label: str, total: int, reporter: Reporter) -> None:
        self._label, self._total, self._reporter, self._done = label, total, reporter, 0

    def __call__(self, more: int) -> None:
        self._done += more
        self._reporter.progress(self._label, self._done, self._total)


def _taught(table: SampleTable, wanted: Wrong) -> list[Sample]:
    rows = table.select(split="train", domains=wanted.domains or None)
    samples = [s for row in rows if (s := table.samples[row]).text and "correction" not in s.extra][: wanted.limit]
    if not samples:
        raise KdkitError("there is no training sample with an answer", code=ExitCode.FOUND)
    return samples


def _task(workspace: Workspace, wanted: Wrong) -> EvaluationTask:
    family = cast(StudentSpec, workspace.catalogue.get("student", workspace.registry.student.family).spec)
    return cast(EvaluationTask, workspace.catalogue.make("task", family.task, **wanted.options))


def _corrector(workspace: Workspace, name: str, device: str, reporter: Reporter) -> Answering:
    from torch import nn

    from kdkit.core.artifacts import open_teacher

    model = open_teacher(workspace, name, reporter=reporter).model
    if not isinstance(model, Answering):
        raise KdkitError(f"teacher '{name}' does not answer, so it cannot correct", fix="docs/pseudo-labels.md")
    return model.to(device) if isinstance(model, nn.Module) else model


def _rewrite(
    model: Answering, wrong: Sequence[Sample], answers: Mapping[str, str], reporter: Reporter, batch: int = 16
) -> dict[str, str]:
    """Sample id -> what the corrector makes of the wrong answer, knowing the right one."""
    told: dict[str, str] = {}
    for start in range(0, len(wrong), batch):
        part = [_reproached(sample, answers[sample.id]) for sample in wrong[start : start + batch]]
        for sample, found in zip(part, model.answer([open_image(s) for s in part], part), strict=True):
            told[sample.id] = found[0].text.strip()
        reporter.progress("correcting", len(told), len(wrong))
    return told


def _reproached(sample: Sample, answer: str) -> Sample:
    before = sample.extra.get("messages") or [{"role": "user", "content": MARK}]
    said = answer.replace(MARK, " ").strip() or "(nothing)"
    asked = {"role": "user", "content": ASK.format(reference=sample.text)}
    messages = [*before, {"role": "assistant", "content": said}, asked]
    return replace(sample, text="", extra={**sample.extra, "messages": messages})
