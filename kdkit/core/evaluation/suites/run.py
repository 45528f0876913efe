"""Evaluation of a version on a suite: the data sets are domains of a project that differs in its data alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter, Silent, Split
from kdkit.core.data.load import load_index
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.evaluator import TaskChoice
from kdkit.core.evaluation.report import EvaluationReport
from kdkit.core.evaluation.scores import OTHER_RELEASE, OVERLAP
from kdkit.core.evaluation.suites.definition import chosen, load_suite
from kdkit.core.evaluation.suites.place import Placed, locate, missing_lines
from kdkit.core.features.extract.missing import extract_held_out
from kdkit.core.project.registry.schema import DataEntry

if TYPE_CHECKING:
    from kdkit.core.data.index import SampleIndex
    from kdkit.core.project.project import Project

FOLDER = "suites"
"""Folder of a project where the data sets of suites are looked for."""


@dataclass(frozen=True)
class SuiteChoice:
    """Which suite is evaluated, and where its data sets are.

    Attributes:
        name: of the suite.
        datasets: names; empty for all.
        folder: of the data sets.
        teachers: extract what the teachers lack, and compare with them.
    """

    name: str
    datasets: tuple[str, ...]
    folder: Path
    teachers: bool = True


def evaluate_suite(
    project: Project,
    choice: SuiteChoice,
    version: str | None = None,
    *,
    task: TaskChoice | None = None,
    split: Split = "test",
    ancestors: bool = True,
    by: Sequence[str] = (),
    device: str = "cpu",
    reporter: Reporter | None = None,
) -> EvaluationReport:
    """Evaluate a version on the data sets that are present. Others are listed, and so are files of other releases.

    Each data set is a domain; its prompts are those of the definition. The oracle chooses by the calibration split of
    the data sets that have one. The project's own trust is neither read nor changed.

    Raises:
        KdkitError: an unknown suite or data set; no data set is present; see
            :func:`~kdkit.core.evaluation.evaluate.evaluate_version`.
    """
    reporter = reporter or Silent()
    suite = load_suite(choice.name, project.catalogue)
    placed = locate(chosen(suite, choice.datasets), choice.folder)
    for line in missing_lines(placed):
        reporter.say(str(line))
    readable = _readable(project, placed, reporter)
    if not readable:
        raise KdkitError(
            "KD-EVAL-253",
            f"no data set of the suite '{choice.name}' is present",
            where=str(choice.folder),
            fix=f"place at least one there; 'kdkit suites show {choice.name}' says how",
            code=ExitCode.MISSING,
        )
    derived = with_datasets(project, readable, teachers=choice.teachers)
    if choice.teachers and derived.registry.teachers:
        extract_held_out(derived, load_index(derived, reporter), device=device, reporter=reporter)
    report = evaluate_version(
        derived,
        version,
        task=task,
        split=split,
        ancestors=ancestors,
        by=by,
        device=device,
        suite=choice.name,
        reporter=reporter,
    )
    known = {model.name for model in report.evaluation.of_role("teacher")}
    notes = {
        OTHER_RELEASE: [item.name for item in readable if item.problems],
        OVERLAP: {item.name: {t: x for t, x in item.dataset.overlap.items() if t in known} for item in readable},
    }
    return replace(report, evaluation=replace(report.evaluation, settings={**report.evaluation.settings, **notes}))


def with_datasets(project: Project, placed: Sequence[Placed], *, teachers: bool = True) -> Project:
    """The project with these data sets instead of its data, and their prompts."""
    prompts = {}
    for item in placed:
        known = _labels(load_index(_with(project, [item]), Silent()), item)
        prompts[item.name] = {label: texts for label, texts in item.dataset.prompts().items() if label in known}
    registry = _with(project, placed).registry.model_copy(update={"prompts": prompts})
    return project.with_registry(registry if teachers else registry.model_copy(update={"teachers": {}}))


def _with(project: Project, placed: Sequence[Placed]) -> Project:
    entries = [_entry(item) for item in placed]
    return project.with_registry(project.registry.model_copy(update={"data": entries, "prompts": {}}))


def _entry(item: Placed) -> DataEntry:
    data = item.dataset.data
    options = {"domain": item.name, "id_prefix": f"{item.name}/", **data.options}
    return DataEntry(source=data.source, path=str(item.path), options=options)


def _readable(project: Project, placed: Sequence[Placed], reporter: Reporter) -> list[Placed]:
    """The data sets that can be read; warns about others, and about labels that the definition does not have."""
    found = []
    for item in placed:
        if item.path is None:
            continue
        try:
            index = load_index(_with(project, [item]), reporter)
        except KdkitError as error:
            fix = f" ({error.fix})" if error.fix else ""
            reporter.warn(f"{item.name} is not evaluated: {_described(error)}{fix}")
            continue
        labels = _labels(index, item)
        if unknown := sorted(labels - set(item.dataset.classes)):
            reporter.warn(
                f"{item.name} is not evaluated: it has labels that the definition lacks ({', '.join(unknown[:3])}); "
                "is it another release?"
            )
            continue
        if absent := sorted(set(item.dataset.classes) - labels):
            reporter.warn(f"{item.name}: no sample of {', '.join(absent)}; these classes are no candidates")
        found.append(item)
    return found


def _labels(index: SampleIndex, item: Placed) -> set[str]:
    """Classes and findings of a data set."""
    return {*index.classes.get(item.name, ()), *index.findings.get(item.name, ())}


def _described(error: KdkitError) -> str:
    """What and why, without a line of registry.yaml: the entry is not in it."""
    return f"{error.what}: {error.why}" if error.why else error.what
