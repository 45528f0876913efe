"""A teacher without text: added, trusted where it is good, taught by the losses that can read it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.plan.compatibility import compare_with_student
from kdkit.core.distill.prepare import prepare
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.trust.probe import probe_hits
from kdkit.core.evaluation.trust.report import report_trust
from kdkit.core.evaluation.zero_shot import unit_rows
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.toy_runs import ALL, Heard, recipe, run
from tests.errors import raises_error
from tests.toy_project import make_project, open_project, vision_teacher

ENTRY = {"from": "local:models/xr", "loader": "toy-vision", "license": "mit"}
CAPTIONS = ("  - {name: crd, weight: 1.0}\n", "  - {name: crd, weight: 1.0}\n  - {name: clip, weight: 0.3}\n")


class Told(Heard):
    """Keeps the lines of information too."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """``radio`` is a dual encoder that knows CT and MRI; ``xr`` gives image features and knows X-rays."""
    at = tmp_path / "project"
    make_project(at, teachers={"radio": ["ct", "mri"]}, domains=ALL, train=12)
    vision_teacher("xray", ["ct", "mri"]).save(at / "models" / "xr")
    return at


def add(root: Path) -> Told:
    told = Told()
    add_teacher(open_project(root), "xr", ENTRY, reporter=told)
    compare_with_student(open_project(root), "xr", told)
    return told


def test_it_is_added_measured_and_taught(root: Path) -> None:
    recipe(root, CAPTIONS)
    add(root)
    project = open_project(root)
    assert set(project.lock.teacher("xr").signals) == {"image"}
    report = report_trust(project, device="cpu")
    assert report.table.probed == {"xr": "image"}
    kinds = {teacher["teacher"]: teacher["kind"] for teacher in report.to_json()["teachers"]}
    assert kinds == {"radio": "zero-shot", "xr": "probe"}
    shown = "\n".join(str(section) for section in report.sections())
    assert "xr (probe)" in shown
    assert "probe: xr without text features" in shown
    assert "k-nn" in shown
    weights = dict(zip(report.table.domains, report.chosen.weights.teachers[1], strict=True))
    assert weights == {"ct": 0, "mri": 0, "xray": 1}

    told = Told()
    plan = prepare(project, Options(), told).plan
    assert {t.name: t.skipping_losses for t in plan.teachers} == {"radio": (), "xr": ("crd",)}
    assert any("'xray'" in line and "xr teaches images alone; captions" in line for line in told.said)
    assert list(plan.to_json()["teachers"][1]["skipping_losses"]) == ["crd"]

    outcome = distill(project, Options(cpu=True), reporter=told)
    assert outcome is not None
    scores = outcome.evaluation
    assert [model.name for model in scores.of_role("teacher")] == ["radio"]
    assert any(line.startswith("xr: no text features") for line in told.said)
    assert {t.name: sorted(t.domains) for t in outcome.version.lineage.teachers}["xr"] == ["xray"]
    evaluated = evaluate_version(open_project(root), reporter=told)
    assert any("not compared, no text features: xr" in str(section) for section in evaluated.sections())
    assert not any("'xr' lacks" in line for line in told.warnings)


def image_accuracy(project: Project) -> float:
    """How well few labels separate the student's own features of test X-rays."""
    from kdkit.core.data.load import load_index
    from kdkit.core.evaluation.features import StudentFeatures

    index = load_index(project, Silent())
    rows = index.select(split="test", domains=["xray"])
    student = load_student(Versions(project).get(), project.catalogue)
    features = StudentFeatures("v", student).image([index.samples[row] for row in rows])  # type: ignore[arg-type]
    features = unit_rows(features, what="features").astype(np.float64)
    return float(probe_hits(features, index.label_index[rows], np.arange(len(rows)), 3).mean())


def test_the_student_learns_from_it(root: Path) -> None:
    """Without captions, X-rays have no other teacher: only the run with it separates their classes."""
    run(open_project(root), seed=100)
    before = image_accuracy(open_project(root))
    add(root)
    told = Told()
    assert distill(open_project(root), Options(cpu=True, seed=100), reporter=told)
    assert any("'xray'" in line and "nothing teaches which text matches" in line for line in told.warnings)
    assert image_accuracy(open_project(root)) > before + 0.1


def test_it_joins_an_increment(root: Path) -> None:
    recipe(root, CAPTIONS)
    run(open_project(root))
    add(root)
    outcome = run(open_project(root), incremental=True)
    assert {t.name: t.since for t in outcome.version.lineage.teachers} == {"radio": "v1", "xr": "v2"}
    assert outcome.retention is not None
    assert "xr" not in outcome.retention.teachers


def test_losses_that_need_texts_cannot_use_it(root: Path) -> None:
    recipe(root, ("  - {name: fd, weight: 1.0}\n", ""))
    told = add(root)
    assert any("'xr'" in line and "crd needs each of image, text" in line for line in told.warnings)
    with raises_error("KD-DIST-019", mentions=("'xr'", "image", "crd", "fd")):
        prepare(open_project(root), Options(), Silent())


def test_one_without_domains_teaches_nothing_and_hinders_no_run(root: Path) -> None:
    recipe(root, ("  - {name: fd, weight: 1.0}\n", ""))
    told = Told()
    add_teacher(open_project(root), "xr", {**ENTRY, "domains": []}, reporter=told)
    compare_with_student(open_project(root), "xr", told)
    assert not told.warnings
    assert [teacher.name for teacher in prepare(open_project(root), Options(), told).plan.teachers] == ["radio"]
    assert "xr: 'domains: []' in registry.yaml; teaches nothing" in told.said


def test_adding_it_says_what_it_is(root: Path) -> None:
    told = add(root)
    assert any("xr has no text features: a probe measures trust in it; the losses crd skip it" in s for s in told.said)
