"""Comparison of aligners on a real store, and the measures."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from kdkit.core.base.errors import ExitCode
from kdkit.core.contracts import StudentSpec
from kdkit.core.distill.alignment.compare import (
    compare_aligners,
    compare_rankings,
    measure_aligner,
    same_minus_different,
    student_width,
)
from kdkit.core.plugin_system.catalogue import Entry
from kdkit.core.project.project import Project
from tests.core.distill.alignment.project import make_project
from tests.errors import raises_error


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("project"))


def test_all_aligners_are_measured_on_held_out_samples(folder: Project) -> None:
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


def test_the_best_ranking_comes_first_and_names_select_aligners(folder: Project) -> None:
    reports = compare_aligners(folder, "wide", ["linear", "procrustes"], dim=4)
    rankings = [report.ranking or 0 for report in reports]
    assert len(reports) == 2
    assert rankings == sorted(rankings, reverse=True)
    assert max(rankings) < 1  # 10 dimensions do not fit into 4


def test_teachers_and_aligners_that_cannot_be_measured(folder: Project, tmp_path: Path) -> None:
    with raises_error("KD-DIST-001", mentions=("'narow'",)) as caught:
        compare_aligners(folder, "narow", dim=8)
    assert "'narrow'" in caught.value.fix
    with raises_error("KD-FEAT-015", mentions=("'unread'",)) as caught:
        compare_aligners(folder, "unread", dim=8)
    assert caught.value.code == ExitCode.MISSING
    with raises_error("KD-PLUG-003", mentions=("'procrustus'",)):
        compare_aligners(folder, "narrow", ["procrustus"], dim=8)
    with raises_error("KD-DIST-004", mentions=("19",)) as caught:
        compare_aligners(make_project(tmp_path, samples=19), "narrow", dim=8)
    assert "kdkit features extract narrow" in caught.value.fix


def test_live_teachers_take_no_part(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    text = project.registry_path.read_text(encoding="utf-8")
    project.registry_path.write_text(text.replace('"local:wide",', '"local:wide", signals: live,'), encoding="utf-8")
    with raises_error("KD-DIST-002", mentions=("'wide'",)):
        compare_aligners(Project(tmp_path), "wide", dim=8)
    (report,) = compare_aligners(Project(tmp_path), "narrow", ["procrustes"], dim=8)
    assert report.gap is None


def rows(count: int, width: int, seed: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {name: torch.randn(count, width, generator=g) for name in ("image", "text")}


def test_ranking_is_scipys_spearman_over_distinct_texts() -> None:
    before, after = rows(20, 6, 0), rows(20, 4, 1)
    for space in (before, after):
        space["text"][7] = space["text"][3]  # a caption that occurs twice
    distinct = [i for i in range(20) if i != 7]
    unit = nn.functional.normalize
    first, second = (unit(s["image"]) @ unit(s["text"][distinct]).T for s in (before, after))
    wanted = [spearmanr(a, b).statistic for a, b in zip(first.numpy(), second.numpy(), strict=True)]
    ranking, top1 = compare_rankings(before, after)
    assert ranking == pytest.approx(float(np.mean(wanted)), abs=1e-6)
    assert top1 == pytest.approx(float((first.argmax(1) == second.argmax(1)).float().mean()))


def test_gap_equals_that_of_plain_loops() -> None:
    a, b = rows(9, 5, 2)["image"], rows(9, 5, 3)["image"]
    cosine = [[float(nn.functional.cosine_similarity(x, y, dim=0)) for y in b] for x in a]
    same = np.mean([cosine[i][i] for i in range(9)])
    different = np.mean([cosine[i][j] for i in range(9) for j in range(9) if i != j])
    assert same_minus_different(a, b) == pytest.approx(float(same - different), abs=1e-6)


class Identity(nn.Module):
    """``shuffle`` permutes the dimensions of the text codes, which loses no information."""

    def __init__(self, shuffle: Tensor | None = None) -> None:
        super().__init__()
        self.shuffle = shuffle

    def encode(self, name: str, x: Tensor) -> Tensor:
        return x if self.shuffle is None or name == "image" else x[:, self.shuffle]

    def decode(self, name: str, z: Tensor) -> Tensor:
        return z if self.shuffle is None or name == "image" else z[:, self.shuffle.argsort()]


def test_perfect_reconstruction_can_lose_every_ranking() -> None:
    features = rows(200, 16, 4)
    keeps = measure_aligner(Identity(), features, [features], name="keeps", teacher="t")
    loses = measure_aligner(Identity(torch.arange(16).roll(5)), features)
    assert keeps.reconstruction == pytest.approx(1)
    assert loses.reconstruction == pytest.approx(1)
    assert keeps.ranking == pytest.approx(1)
    assert keeps.top1 == 1
    assert keeps.gap is not None
    assert keeps.gap > 0.9
    assert loses.ranking is not None
    assert abs(loses.ranking) < 0.2
    assert loses.gap is None


def test_teachers_without_text_have_no_ranking() -> None:
    report = measure_aligner(Identity(), {"image": rows(9, 4, 0)["image"]})
    assert report.ranking is None
    assert report.top1 is None


def student_of_folder(init: str) -> SimpleNamespace:
    """A student whose width is the number in the file that ``init`` names."""
    return SimpleNamespace(outputs={"image": int(Path(init).read_text())})


def test_student_width_resolves_paths_of_the_project(tmp_path: Path) -> None:
    (tmp_path / "width").write_text("24")
    (tmp_path / "registry.yaml").write_text("version: 1\nstudent: {family: sized, config: {init: ./width}}\n")
    project = Project(tmp_path)
    spec = StudentSpec(name="sized", summary="", factory=f"{__name__}:student_of_folder", loader="")
    contents = {**project.catalogue.contents, "student": (Entry(spec, "kdkit-sized", "1.0"),)}
    assert student_width(project.with_catalogue(replace(project.catalogue, contents=contents))) == 24
