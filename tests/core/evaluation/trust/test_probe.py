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
from kdkit.core.evaluation.trust.probe import PROBES, REPEATS, SHOTS, ProbeTrust, joined, probe_hits
from kdkit.core.evaluation.trust.weights import domains_of_one_signal, policy_weights
from kdkit.core.features import FeatureStore
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
    assert found.probed == {"derm": "image"}
    assert dict(zip(found.domains, found.accuracy[0] > 0.9, strict=True)) == {"ct": False, "oct": False, "skin": True}
    assert (found.lower[0] > found.chance).tolist() == [False, False, True]
    assert found.count.tolist() == [60, 40, 40]
    assert found.chance.tolist() == pytest.approx([1 / 3, 1 / 2, 1 / 2])
    assert policy_weights(found, Soft()).teachers.tolist() == [[0, 0, 1]]
    assert not heard.warnings
    parts = found.parts["derm"]
    assert [sorted(parts[domain]) for domain in found.domains] == [["k-nn", "linear"]] * 3
    assert found.accuracy[0].tolist() == pytest.approx([np.mean(list(parts[name].values())) for name in found.domains])
    scores, calibration = column.scores(SCORES["label"]), table.select(split="calibration")
    assert scores[calibration][table.domain_index[calibration] == 2].mean() == pytest.approx(found.accuracy[0, 2])
    assert np.isnan(scores[table.select(split="train")]).all()


def test_the_probes_are_those_of_plain_loops() -> None:
    """Against votes counted one by one and a ridge regression with an explicit weight matrix, on the same divisions."""
    rng = np.random.default_rng(100)
    labels, groups = np.arange(30) % 3, np.arange(30) // 2
    features = np.eye(3, 8)[labels] + 0.6 * rng.normal(size=(30, 8))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    right = np.zeros((30, 2))
    for fit, judged in probe._divisions(labels, groups):
        assert not set(groups[fit]) & set(groups[judged])
        assert max(np.bincount(labels[fit])) <= SHOTS
        x, y = features[fit], np.eye(3)[labels[fit]]
        centered = x - x.mean(0)
        penalty = (centered**2).sum(1).mean()
        matrix = np.linalg.inv(centered.T @ centered + penalty * np.eye(8)) @ centered.T @ (y - y.mean(0))
        predicted = (features[judged] - x.mean(0)) @ matrix + y.mean(0)
        right[judged, 1] += predicted.argmax(1) == labels[judged]
        for row in judged:
            distance = np.sqrt(((x - features[row]) ** 2).sum(1))
            votes = np.zeros(3)
            for near in np.argsort(distance)[:4]:
                votes[labels[fit][near]] += 1 / distance[near]
            right[row, 0] += votes.argmax() == labels[row]
    assert PROBES == ("k-nn", "linear")
    assert (probe_hits(features, labels, groups, 3) == right / REPEATS).all()
    assert (right.mean(0) / REPEATS > 0.5).all()
    assert (right.mean(0) / REPEATS < 1).all()


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
    assert load_measurements(trust_file(project.features))["derm"].probe == "image"
    monkeypatch.setattr(ProbeTrust, "measure", None)
    assert (measure(project, table, ["derm"]).accuracy == first.accuracy).all()


def test_a_teacher_of_texts_alone_is_measured_by_its_texts(project: Project) -> None:
    """Its features name the class in one domain; the images, which it has none of, do not matter."""
    classes = {"ct": ("cyst", "nodule"), "oct": ("drusen", "healthy")}
    samples = [
        replace(s, text=f"{s.label if s.domain == 'ct' else 'picture'} {number}")
        for number, s in enumerate(make_table(classes=classes).samples)
    ]
    table = table_of(samples)
    add_teacher(project, table, "words", noise={}, texts_alone=True)
    found = measure(project, table, ["words"])
    assert found.probed == {"words": "text"}
    assert found.accuracy[0, 0] > 0.95
    assert found.accuracy[0, 1] < 0.65
    assert (found.lower[0] > found.chance).tolist() == [True, False]
    shown = [replace(s, text="") if s.id.endswith(("0", "1")) else s for s in samples]
    less = ProbeTrust(table_of(shown), {"ct": {"cyst": [], "nodule": []}}, Silent(), "text")
    assert less.measure(FeatureStore(project.features).column("words"), "")["ct"].count == 32  # 8 have no text


def test_one_text_is_not_on_both_sides(project: Project) -> None:
    """Features that know the text and nothing else are at chance, although equal texts have equal labels."""
    samples = [
        Sample(f"{label} {n}", Path("x.png"), f"{label[0]} {n % 3}", "oct", label, "calibration")
        for label in ("drusen", "healthy")
        for n in range(36)
    ]
    samples += [replace(s, id=f"other {s.id}", text=f"{s.text} {s.id}") for s in samples]
    heard = Warned([])
    domains: dict[str, dict[str, list[str]]] = {"oct": {"drusen": [], "healthy": []}}

    def probed(samples: list[Sample]) -> dict[str, float]:
        index = table_of(samples)
        column = add_teacher(project, index, "words", noise={}, texts_alone=True, seed=len(samples))
        counts = ProbeTrust(index, domains, heard, "text").measure(column, "")
        return {domain: count.correct / count.count for domain, count in counts.items()}

    assert probed(samples[:72])["oct"] < 0.6
    assert not heard.warnings
    assert not probed([replace(s, text=s.label or "") for s in samples[:72]])
    assert any("with different texts" in line for line in heard.warnings)


def test_groups_are_joined_as_by_hand() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 12, 30), rng.integers(0, 12, 30)
    wanted = np.arange(30)
    for _ in range(30):
        for groups in (first, second):
            wanted = np.array([wanted[groups == group].min() for group in groups])
    found = joined(first, second)
    assert ((found[:, None] == found) == (wanted[:, None] == wanted)).all()
    assert joined(first[:0], second[:0]).tolist() == []


def table_with(accuracy: list[float], probed: dict[str, str]) -> TrustTable:
    column = np.array(accuracy)[:, None]
    names = ("clip", "vit", CAPTIONS)[: len(accuracy)]
    return TrustTable(
        names, ("ct",), column, column - 0.1, column + 0.1, np.array([100]), np.array([0.5]), 0.95, probed
    )


def test_a_teacher_without_text_lowers_no_other() -> None:
    """It cannot replace what dual encoders and captions teach about texts."""
    alone = policy_weights(table_with([0.8], {}), Evidence(), weighs_captions=True)
    both = policy_weights(table_with([0.8, 0.95], {"vit": "image"}), Evidence(), weighs_captions=True)
    assert both.teachers[0] == alone.teachers[0] == 1
    assert both.teachers[1] > 0.99
    worse = policy_weights(table_with([0.95, 0.8], {"vit": "image"}), TopK())
    assert worse.teachers.ravel().tolist() == [1, 0]  # but it is weighed beside them
    captions = policy_weights(table_with([0.8, 0.95, 0.7], {"vit": "image"}), Evidence(), weighs_captions=True)
    without = policy_weights(table_with([0.8, np.nan, 0.7], {"vit": "image"}), Evidence(), weighs_captions=True)
    assert captions.captions == without.captions
    assert 0 < captions.captions < 1


def test_a_teacher_of_texts_does_not_compete_with_one_of_images() -> None:
    table = table_with([0.9, 0.8], {"clip": "text", "vit": "image"})
    assert policy_weights(table, TopK()).teachers.ravel().tolist() == [1, 1]
    three = replace(
        table_with([0.7, 0.9, 0.8], {"vit": "text", CAPTIONS: "image"}), teachers=("clip", "words", "vit"),
        probed={"words": "text", "vit": "image"},
    )  # fmt: skip
    assert policy_weights(three, TopK()).teachers.ravel().tolist() == [1, 1, 1]


def test_domains_that_only_such_teachers_teach_are_named() -> None:
    table = table_with([0.8, 0.95], {"vit": "image"})
    assert domains_of_one_signal(table, np.array([[0.0], [0.4]])) == {"ct": {"image": ("vit",)}}
    assert domains_of_one_signal(table, np.array([[0.1], [0.4]])) == {}
    assert domains_of_one_signal(table, np.zeros((2, 1))) == {}
    both = table_with([0.8, 0.95], {"clip": "text", "vit": "image"})
    assert domains_of_one_signal(both, np.ones((2, 1))) == {"ct": {"text": ("clip",), "image": ("vit",)}}
