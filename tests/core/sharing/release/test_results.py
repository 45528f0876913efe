"""``eval/results.json`` holds figures, and says which."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.base.json_record import with_checksum
from kdkit.core.contracts import DomainScore
from kdkit.core.evaluation.continual import ContinualMetrics
from kdkit.core.evaluation.report import EvaluationReport
from kdkit.core.evaluation.scores import Evaluation, ModelScores
from kdkit.core.project.manifest import write_manifest
from kdkit.core.project.project import Project
from kdkit.core.project.versions import EVALUATION, Version
from kdkit.core.sharing.release.layout import RESULTS
from kdkit.core.sharing.release.results import results_of, warn_of_split, write_results
from tests.core.teachers.stub import Notes
from tests.errors import raises_error


def evaluation(split: str, student: str, accuracy: float = 0.5) -> Evaluation:
    score = DomainScore(
        "ct",
        2,
        {"accuracy": accuracy, "auc": math.nan},
        {"accuracy": (0.25, 0.75), "auc": (math.nan, math.nan)},
        ids=("patient-1", "patient-2"),
        outcomes={"accuracy": np.array([0.0, 1.0])},
        notes=("few images",),
    )
    means = {"accuracy": accuracy}
    intervals = {"accuracy": (0.25, 0.75)}
    models = (
        ModelScores(student, "student", {"ct": score}, means, intervals),
        ModelScores("radio", "teacher", {"ct": score}, means, intervals),
    )
    return Evaluation(split, ("ct",), models, {"task": "zero-shot"}, {"mri": "one class"}, {student: {"accuracy": 0.9}})


@pytest.fixture
def version(tmp_path: Path) -> Version:
    folder = tmp_path / "versions" / "v3"
    folder.mkdir(parents=True)
    evaluation("calibration", "student", 0.25).save(folder / EVALUATION)
    write_manifest(folder)
    return Version("v3", folder)


def test_calibration_figures_until_the_version_is_evaluated(version: Version, tmp_path: Path) -> None:
    project = Project(tmp_path)
    results, notes = results_of(project, version), Notes()
    warn_of_split(results, notes)
    assert (results["split"], "flatter" in results["note"]) == ("calibration", True)
    assert ["'kdkit evaluate v3'" in said for said in notes.warnings] == [True]
    assert [(m["name"], m["role"]) for m in results["models"]] == [("v3", "student"), ("radio", "teacher")]
    assert results["ratios"] == {"v3": {"accuracy": 0.9}}
    report = project.reports / "evaluation-v3-test.json"
    report.parent.mkdir()
    continual = ContinualMetrics(0.5, 0.5, math.nan, 0.0, 0.0)
    content = EvaluationReport("v3", ("v2", "v3"), evaluation("test", "v3"), None, continual, {}, weights(version))
    report.write_text(json.dumps(with_checksum(content.to_json())))
    results = results_of(project, version)
    warn_of_split(results, notes)
    assert len(notes.warnings) == 1
    assert (results["split"], results["continual"]) == ("test", continual.to_json())
    assert results["models"][0]["domains"]["ct"] == {
        "count": 2,
        "level": 0.95,
        "metrics": {
            "accuracy": {"value": 0.5, "low": 0.25, "high": 0.75},
            "auc": {"value": None, "low": None, "high": None},
        },
        "notes": ["few images"],
    }
    write_results(tmp_path, RESULTS, results)
    text = (tmp_path / RESULTS).read_text()
    assert json.loads(text) == results
    assert "patient" not in text


def test_every_other_task_is_there(version: Version, tmp_path: Path) -> None:
    project = Project(tmp_path)
    assert "tasks" not in results_of(project, version)
    report = project.reports / "evaluation-v3-test-retrieval.json"
    report.parent.mkdir()
    stated = {"method": {"judge": "big", "host": "10.0.0.7"}, "method_private": ["host"], "corenlp": "/home/x/nlp"}
    settings = {"task": "retrieval", "headline": "accuracy", **stated}
    found = replace(evaluation("test", "v3"), settings=settings)
    content = EvaluationReport("v3", ("v3",), found, None, None, {}, weights(version), own_task=False)
    report.write_text(json.dumps(with_checksum(content.to_json())))
    (other,) = results_of(project, version)["tasks"]
    assert (other["split"], other["settings"]["task"], other["models"][0]["name"]) == ("test", "retrieval", "v3")
    assert other["settings"]["method"] == {"judge": "big"}
    assert "10.0.0.7" not in json.dumps(other)
    assert "/home" not in json.dumps(other)
    content = replace(content, weights={"v3": "other weights"})
    suite = replace(content, evaluation=replace(found, settings={**found.settings, "suite": "mmkd"}))
    of_suite = report.with_name("evaluation-v3-test-suite-mmkd.json")
    of_suite.write_text(json.dumps(with_checksum(suite.to_json())))
    assert len(results_of(project, version)["tasks"]) == 1  # not the suite's, though its weights are old
    report.write_text(json.dumps(with_checksum(content.to_json())))
    with raises_error("KD-REL-027", where=str(report)):
        results_of(project, version)


def weights(version: Version) -> dict[str, str]:
    return {version.name: version.manifest.student_digest}


@pytest.mark.parametrize("others", [False, True])
def test_a_report_of_another_version_is_not_taken(others: bool, version: Version, tmp_path: Path) -> None:
    """Of another name, or of other weights under the same name."""
    report = tmp_path / "reports" / "evaluation-v3-test.json"
    report.parent.mkdir()
    name, digests = ("v3", {"v3": "of other weights"}) if others else ("v2", weights(version))
    content = EvaluationReport(name, (name,), evaluation("test", name), None, None, {}, digests)
    report.write_text(json.dumps(with_checksum(content.to_json())))
    with raises_error("KD-REL-027", where=str(report)):
        results_of(Project(tmp_path), version)


def test_without_any_evaluation(tmp_path: Path) -> None:
    write_manifest(tmp_path)
    results = results_of(Project(tmp_path), Version("v1", tmp_path))
    assert (results["models"], results["split"], results["domains"]) == ([], "none", [])
