"""``eval/results.json``: a version's figures with their intervals and counts, without a single sample."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.evaluation.report import EvaluationReport
from kdkit.core.evaluation.scores import METHOD, PRIVATE, SUITE, Evaluation, ModelScores
from kdkit.core.project.versions import EVALUATION, Version
from kdkit.core.project.versions import RESULTS as PUBLISHED
from kdkit.core.sharing.release.redact import without_paths

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

FORMAT = 1
NOTES = {
    "test": "The test split took no part in training, trust or promotion.",
    "calibration": "The calibration split also decided trust and promotion: these figures flatter the student. "
    "The version was not evaluated on a test split.",
}


def results_of(project: Project, version: Version) -> dict[str, Any]:
    """What goes into ``eval/results.json``: the figures of the student's own task, and ``tasks``, those of every other
    task that ``kdkit evaluate --task`` has run on the test split.

    Raises:
        KdkitError: the figures belong to other weights or to another version.
    """
    others = _other_tasks(project, version)
    return {**_own_results(project, version), **({"tasks": others} if others else {})}


def _own_results(project: Project, version: Version) -> dict[str, Any]:
    """Those of the test split if ``kdkit evaluate`` has run, else of calibration.

    A pulled version without an evaluation of this project keeps its published figures.

    Models: the version (under its own name), its ancestors, every teacher, the oracles. All metrics are in [0, 1]; what
    was not measured is null. A student without image and text features has no figures: ``models`` is empty.

    Raises:
        KdkitError: the figures belong to other weights or to another version.
    """
    report = project.reports / f"evaluation-{version.name}-test.json"
    weights = version.manifest.student_digest
    if report.is_file():
        found = _load(report, version)
        continual = None if found.continual is None else found.continual.to_json()
        return _results(version.name, weights, found.evaluation, continual=continual)
    if EVALUATION in version.manifest.files:
        return _results(version.name, weights, Evaluation.load(version.file(EVALUATION)), continual=None)
    if PUBLISHED in version.manifest.files:
        published: dict[str, Any] = json.loads(version.file(PUBLISHED).read_bytes())
        return published
    return _results(version.name, weights, Evaluation("none", (), ()), continual=None)


def _load(report: Path, version: Version) -> EvaluationReport:
    found, weights = EvaluationReport.load(report), version.manifest.student_digest
    if found.version != version.name or found.weights.get(version.name) != weights:
        task = "" if found.own_task else f" --task {found.evaluation.settings.get('task')}"
        raise KdkitError(
            "KD-REL-027",
            f"this report is not about the {version.name} that the project holds",
            where=str(report),
            why=f"digest of the evaluated student: {found.weights.get(version.name)}; now: {weights}",
            fix=f"run 'kdkit evaluate {version.name}{task}' again, or delete the report",
            code=ExitCode.FOUND,
        )
    return found


def _other_tasks(project: Project, version: Version) -> list[dict[str, Any]]:
    """Results of the other tasks that were evaluated on the test split, in the order of their names.

    Reports of suites are left out: they are about other data, and the card says nothing of its overlap with training.
    """
    paths = sorted(project.reports.glob(f"evaluation-{version.name}-test-*.json"))
    own = [path for path in paths if SUITE not in EvaluationReport.load(path).evaluation.settings]
    weights = version.manifest.student_digest
    return [_results(version.name, weights, _load(path, version).evaluation, continual=None) for path in own]


def warn_of_split(results: Mapping[str, Any], reporter: Reporter) -> None:
    """Warn before publishing that the version was not evaluated on the test split."""
    if results["split"] == "calibration":
        reporter.warn(
            f"{results['version']} was never evaluated on the test split, so its card has the figures of the "
            f"calibration split, which flatter it; 'kdkit evaluate {results['version']}' first"
        )


def write_results(folder: Path, name: str, results: Mapping[str, Any]) -> None:
    """Write ``folder/name``."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _results(version: str, weights: str, evaluation: Evaluation, *, continual: Any) -> dict[str, Any]:
    students = [model.name for model in evaluation.of_role("student")]
    # The evaluation inside a version knows one student and calls it so.
    names = {students[0]: version} if len(students) == 1 else {}
    return {
        "format": FORMAT,
        "version": version,
        "weights": weights,
        "split": evaluation.split,
        "note": NOTES.get(evaluation.split, ""),
        "settings": _public_settings(evaluation.settings),
        "metrics": list(evaluation.metrics),
        "domains": list(evaluation.domains),
        "skipped": dict(evaluation.skipped),
        "models": [_model(model, names.get(model.name, model.name)) for model in evaluation.models],
        "ratios": {names.get(name, name): dict(ratio) for name, ratio in evaluation.ratios.items()},
        "continual": continual,
    }


def _public_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Without paths, and without facts that stay on this machine."""
    public: dict[str, Any] = without_paths({key: value for key, value in settings.items() if key != PRIVATE})
    if METHOD in settings:
        private = settings.get(PRIVATE, ())
        public[METHOD] = {name: text for name, text in settings[METHOD].items() if name not in private}
    return public


def _model(model: ModelScores, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "role": model.role,
        "chosen": dict(model.chosen),
        "mean": _figures(model.means, model.intervals),
        "domains": {
            domain: {
                "count": score.count,
                "level": score.level,
                "metrics": _figures(score.metrics, score.intervals),
                "notes": list(score.notes),
            }
            for domain, score in model.domains.items()
        },
    }


def _figures(values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Metric -> value, low, high."""
    unknown = (math.nan, math.nan)
    return {
        metric: dict(zip(("value", "low", "high"), map(_number, (value, *intervals.get(metric, unknown))), strict=True))
        for metric, value in values.items()
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
