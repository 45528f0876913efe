"""Trust of teachers without text features: the probe on a real store, and what policies make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import CAPTIONS, Sample, Silent, TrustTable
from kdkit.core.data.index import SampleIndex
from kdkit.core.evaluation.trust import probe
from kdkit.core.evaluation.trust.measurements import SCORES, load_measurements, trust_file
from kdkit.core.evaluation.trust.probe import REPEATS, SHOTS, ProbeTrust, probe_hits
from kdkit.core.evaluation.trust.weights import domains_of_images_alone, policy_weights
from kdkit.core.project.project import Project
from kdkit.plugins.policies.policies import Evidence, Soft, TopK
from tests.core.evaluation.trust.synthetic import (
    WIDTH,
    Warned,
    add_teacher,
    make_project,
    make_table,
    measure,
    table_of,
)

SKIN = {"ct": 100.0, "oct": 100.0, "skin": 0.7}


@pytest.fixture
def table() -> SampleIndex:
    return make_table()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


def test_a_specialist_without_text_is_trusted_in_its_domain_alone(project: Project, table: SampleIndex) -> None:
    column, heard = add_teacher(project, table, "derm", noise=SKIN, images_alone=True), Warned([])
    found = measure(project, table, ["derm"], reporter=heard)
    assert found.probed == ("derm",)
    assert dict(zip(found.domains, found.accuracy[0] > 0.9, strict=True)) == {"ct": False, "oct": False, "skin": True}
    assert (found.lower[0] > found.chance).tolist() == [False, False, True]
    assert found.count.tolist() == [60, 40, 40]
    assert found.chance.tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 2])
    assert policy_weights(found, Soft()).teachers.tolist() == [[0, 0, 1]]
    assert not heard.warnings
    scores, calibration = column.scores(SCORES["label"]), table.select(split="calibration")
    assert scores[calibration][table.domain_index[calibration] == 2].mean() == pytest.approx(found.accuracy[0, 2])
    assert np.isnan(scores[table.select(split="train")]).all()


def test_the_probe_is_that_of_plain_loops() -> None:
    """Against a ridge regression with an explicit weight matrix, on the divisions that the probe made."""
    rng = np.random.default_rng(100)
    labels, groups = np.arange(30) % 3, np.arange(30) // 2
    features = np.eye(3, 8)[labels] + 0.6 * rng.normal(size=(30, 8))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    right = np.zeros(30)
    for fit, judged in probe._divisions(labels, groups):
        assert not set(groups[fit]) & set(groups[judged])
        assert max(np.bincount(labels[fit])) <= SHOTS
        x, y = features[fit], np.eye(3)[labels[fit]]
        centered = x - x.mean(0)
        penalty = (centered**2).sum(1).mean()
        matrix = np.linalg.inv(centered.T @ centered + penalty * np.eye(8)) @ centered.T @ (y - y.mean(0))
        predicted = (features[judged] - x.mean(0)) @ matrix + y.mean(0)
        right[judged] += predicted.argmax(1) == labels[judged]
    assert (probe_hits(features, labels, groups, 3) == right / REPEATS).all()
    assert 0.5 < right.mean() / REPEATS < 1


def test_one_patient_is_not_on_both_sides(project: Project) -> None:
    """Features that know the patient and nothing else are at chance, although each patient has one label."""
    samples = [
        Sample(f"{label} {n}", Path("x.png"), "", "oct", label, "calibration", extra={"group": f"{label} {n % 3}"})
        for label in ("drusen", "healthy")
        for n in range(36)
    ]
    patients = np.random.default_rng(100).normal(size=(6, WIDTH))
    rows = np.repeat([0, 3], 36) + np.tile(np.arange(3), 24)

    def probed(samples: list[Sample]) -> float:
        index = table_of(samples)
        column = add_teacher(project, index, "derm", noise={}, images_alone=True, image=patients[rows])
        counts = ProbeTrust(index, {"oct": {"drusen": [], "healthy": []}}, Silent()).measure(column, "")
        return counts["oct"].correct / counts["oct"].count

    assert probed(samples) < 0.6
    assert probed([replace(sample, extra={}) for sample in samples]) > 0.8


def test_few_labels_are_the_handicap() -> None:
    """With many features of little use, all labels of the other half would say much more than a few."""
    rng = np.random.default_rng(101)
    labels = np.arange(400) % 2
    features = 0.2 * np.eye(2, 64)[labels] + rng.normal(size=(400, 64)) / 8
    accuracy = probe_hits(features, labels, np.arange(400), 2).mean()
    assert 0.55 < accuracy < 0.8


def test_too_few_samples_or_features_are_reported(project: Project, table: SampleIndex) -> None:
    kept = [s for s in table.samples if s.domain != "oct" or s.split == "train" or s.label == "drusen"]
    kept += [s for s in table.samples if s.id == "oct-healthy-calibration-0"]
    index, heard = table_of(kept), Warned([])
    rows = np.array([row for row, s in enumerate(index.samples) if s.domain != "ct"], dtype=np.int64)
    add_teacher(project, index, "derm", noise=SKIN, images_alone=True, rows=rows)
    found = measure(project, index, ["derm"], reporter=heard)
    assert np.isnan(found.accuracy[0]).tolist() == [True, True, False]
    assert any("'ct'" in line and "calibration samples" in line for line in heard.warnings)
    assert any("'oct'" in line and "two groups" in line for line in heard.warnings)


def test_a_probe_is_measured_once(project: Project, table: SampleIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    add_teacher(project, table, "derm", noise=SKIN, images_alone=True)
    first = measure(project, table, ["derm"])
    assert load_measurements(trust_file(project.features))["derm"].probe
    monkeypatch.setattr(ProbeTrust, "measure", None)
    assert (measure(project, table, ["derm"]).accuracy == first.accuracy).all()


def table_with(accuracy: list[float], probed: tuple[str, ...]) -> TrustTable:
    column = np.array(accuracy)[:, None]
    names = ("clip", "vit", CAPTIONS)[: len(accuracy)]
    return TrustTable(
        names, ("ct",), column, column - 0.1, column + 0.1, np.array([100]), np.array([0.5]), 0.95, probed
    )


def test_a_teacher_without_text_lowers_no_other() -> None:
    """It cannot replace what dual encoders and captions teach about texts."""
    alone = policy_weights(table_with([0.8], ()), Evidence(), weighs_captions=True)
    both = policy_weights(table_with([0.8, 0.95], ("vit",)), Evidence(), weighs_captions=True)
    assert both.teachers[0] == alone.teachers[0] == 1
    assert both.teachers[1] > 0.99
    worse = policy_weights(table_with([0.95, 0.8], ("vit",)), TopK())
    assert worse.teachers.ravel().tolist() == [1, 0]  # but it is weighed beside them
    captions = policy_weights(table_with([0.8, 0.95, 0.7], ("vit",)), Evidence(), weighs_captions=True)
    without = policy_weights(table_with([0.8, np.nan, 0.7], ("vit",)), Evidence(), weighs_captions=True)
    assert captions.captions == without.captions
    assert 0 < captions.captions < 1


def test_domains_that_only_such_teachers_teach_are_named() -> None:
    table = table_with([0.8, 0.95], ("vit",))
    assert domains_of_images_alone(table, np.array([[0.0], [0.4]])) == {"ct": ("vit",)}
    assert domains_of_images_alone(table, np.array([[0.1], [0.4]])) == {}
    assert domains_of_images_alone(table, np.zeros((2, 1))) == {}
