"""Aligners fitted on a real store."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.distill.alignment.compare import compare_aligners
from kdkit.core.project.project import Project
from tests.core.distill.alignment.project import make_project
from tests.errors import raises_error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"))


def test_all_aligners_are_judged_on_samples_that_did_not_fit_them(folder: Project) -> None:
    reports = {report.aligner: report for report in compare_aligners(folder, "narrow", dim=8)}
    assert set(reports) == {"autoencoder", "linear", "pca", "procrustes"}
    for report in reports.values():
        assert report.samples == 12  # a fifth of the 60 training samples; calibration rows are NaN
        assert np.isfinite([value for value in asdict(report).values() if isinstance(value, float)]).all()
    assert reports["procrustes"].ranking == pytest.approx(1, abs=1e-6)  # 6 dimensions turned within 8
    assert reports["procrustes"].top1 == 1
    assert reports["procrustes"].gap is not None
    assert reports["autoencoder"].gap is not None
    assert reports["procrustes"].gap > 0.8 > abs(reports["autoencoder"].gap)


def test_the_best_ranking_comes_first_and_names_select(folder: Project) -> None:
    reports = compare_aligners(folder, "wide", ["linear", "procrustes"], dim=4)
    rankings = [report.ranking or 0 for report in reports]
    assert len(reports) == 2
    assert rankings == sorted(rankings, reverse=True)
    assert max(rankings) < 1  # 10 dimensions do not fit into 4


def test_who_cannot_be_judged(folder: Project, tmp_path: Path) -> None:
    with raises_error("KD-DIST-001", mentions=("'narow'",)) as caught:
        compare_aligners(folder, "narow", dim=8)
    assert caught.value.fix == "did you mean 'narrow'?"
    with raises_error("KD-FEAT-015", mentions=("'unread'",)) as caught:
        compare_aligners(folder, "unread", dim=8)
    assert caught.value.code == ExitCode.MISSING
    with raises_error("KD-PLUG-003", mentions=("'procrustus'",)):
        compare_aligners(folder, "narrow", ["procrustus"], dim=8)
    with raises_error("KD-DIST-004", mentions=("19",)):
        compare_aligners(make_project(tmp_path, samples=19), "narrow", dim=8)


def test_a_live_teacher_is_not_judged_and_does_not_take_part(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    text = project.registry_path.read_text(encoding="utf-8")
    project.registry_path.write_text(text.replace('"local:wide",', '"local:wide", signals: live,'), encoding="utf-8")
    with raises_error("KD-DIST-002", mentions=("'wide'",)):
        compare_aligners(Project(tmp_path), "wide", dim=8)
    (report,) = compare_aligners(Project(tmp_path), "narrow", ["procrustes"], dim=8)
    assert report.gap is None, "there is nobody to compare with"
