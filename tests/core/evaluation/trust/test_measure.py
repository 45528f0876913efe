"""Trust measured on a real store, against the same arithmetic in plain loops."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import TrustBasis
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.prompts import prompt_sets
from kdkit.core.evaluation.evaluator import AnswerEvaluator, make_evaluator
from kdkit.core.evaluation.trust.measure import choose_basis, measure_trust, read_sample_scores
from kdkit.core.evaluation.trust.measurements import (
    SCORES,
    TeacherMeasurement,
    load_measurements,
    save_measurement,
    trust_file,
)
from kdkit.core.features import FeatureStore
from kdkit.core.project.project import Project
from tests.core.evaluation.trust.synthetic import (
    CLASSES,
    Warned,
    add_teacher,
    make_project,
    make_table,
    measure,
    table_of,
    without,
)
from tests.errors import raises_error


class Said(Warned):
    """Records lines of information too."""

    def __init__(self, warnings: list[str]) -> None:
        super().__init__(warnings)
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


RADIO = {"ct": 1.5, "oct": 3.0, "skin": 100.0}


@pytest.fixture
def table() -> SampleIndex:
    return make_table()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


def store_of(project: Project) -> FeatureStore:
    return FeatureStore(project.features)


def test_accuracy_and_scores_equal_plain_loops(project: Project, table: SampleIndex) -> None:
    column = add_teacher(project, table, "radio", noise=RADIO)
    found = measure(project, table, ["radio"])
    places, scores = column.locate(table), column.scores(SCORES["label"])
    hits: dict[str, list[bool]] = {domain: [] for domain in table.domains}
    sets = prompt_sets(project.registry, table)
    for number, sample in enumerate(table.samples):
        image = column.gather("image", places[number : number + 1])[0].astype(np.float64)
        logits = {}
        for label, prompts in sets[sample.domain].items():
            unit = [t / np.linalg.norm(t) for t in column.text_features(prompts).astype(np.float64)]
            mean = np.mean(unit, axis=0)
            logits[label] = 100 * image @ mean / np.linalg.norm(image) / np.linalg.norm(mean)
        odds = {label: np.exp(value - max(logits.values())) for label, value in logits.items()}
        true = odds[str(sample.label)] / sum(odds.values())
        assert scores[places[number]] == pytest.approx(true, abs=2e-5)
        if sample.split == "calibration":
            hits[sample.domain].append(max(logits, key=logits.__getitem__) == sample.label)
    assert found.domains == ("ct", "oct", "skin")
    assert found.accuracy[0] == pytest.approx([np.mean(hits[d]) for d in found.domains])
    assert found.count.tolist() == [60, 40, 40]
    assert found.chance == pytest.approx([1 / 3, 1 / 2, 1 / 2])
    assert (found.lower <= found.accuracy).all()
    assert (found.accuracy <= found.upper).all()
    assert found.accuracy[0, 0] > 0.7 > found.accuracy[0, 2]


def test_saved_scores_are_reused(project: Project, table: SampleIndex) -> None:
    add_teacher(project, table, "radio", noise=RADIO)
    first = measure(project, table, ["radio"])
    column = store_of(project).column("radio")
    column.put_scores(SCORES["label"], column.locate(table), np.zeros(len(table), dtype=np.float32))
    again = measure(project, table, ["radio"])
    assert (again.accuracy == first.accuracy).all()
    assert (store_of(project).column("radio").scores(SCORES["label"]) == 0).all()  # nothing was computed again


def test_entries_of_other_commands_stay(project: Project, table: SampleIndex) -> None:
    """Two commands measure different teachers at the same time."""
    file, radio = trust_file(project.features), TeacherMeasurement("a", {})
    add_teacher(project, table, "other", noise=RADIO)
    real = load_measurements

    def written_meanwhile(path: Path, by: TrustBasis) -> dict[str, TeacherMeasurement]:
        found = real(path, by)
        if not found:
            save_measurement(file, "radio", radio, logit_scale=1.0)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kdkit.core.evaluation.trust.measure.load_measurements", written_meanwhile)
        measure(project, table, ["other"])
    assert set(load_measurements(file)) == {"radio", "other"}
    assert not file.with_suffix(".busy").exists()


@pytest.mark.parametrize("change", ["features", "labels", "prompts"])
def test_changed_inputs_are_measured_again(tmp_path: Path, table: SampleIndex, change: str) -> None:
    project = make_project(tmp_path)
    add_teacher(project, table, "radio", noise=RADIO)
    measure(project, table, ["radio"])
    before = json.loads(trust_file(project.features).read_text())["teachers"]["radio"]["fingerprint"]
    if change == "features":
        add_teacher(project, table, "radio", noise={"oct": 0.1, "skin": 0.1})
    elif change == "labels":
        table = without(table, split="calibration", label="stone")
    else:
        project = make_project(tmp_path, "version: 1\nprompts: {default: ['{label}']}\n")
        add_teacher(project, table, "radio", noise=RADIO, seed=0)
    found = measure(project, table, ["radio"])
    assert json.loads(trust_file(project.features).read_text())["teachers"]["radio"]["fingerprint"] != before
    if change == "features":
        assert found.accuracy[0, 2] == 1.0
    if change == "labels":
        assert found.count.tolist() == [40, 40, 40]


def test_scores_outlive_their_teacher(project: Project, table: SampleIndex) -> None:
    add_teacher(project, table, "radio", noise=RADIO)
    first = measure(project, table, ["radio"])
    shutil.rmtree(project.features / "radio")
    add_teacher(project, table, "skin-expert", noise={"skin": 0.2})
    reporter = Warned([])
    found = measure(project, table, ["radio", "skin-expert"], reporter=reporter)
    assert (found.accuracy[0] == first.accuracy[0]).all()
    assert found.accuracy[1, 2] == 1.0
    assert any("'radio'" in warning for warning in reporter.warnings)


def test_a_teacher_is_not_trusted_in_a_domain_without_its_features(project: Project) -> None:
    old = make_table(classes={"ct": CLASSES["ct"]})
    add_teacher(project, old, "radio", noise=RADIO)
    reporter, grown = Warned([]), make_table()
    found = measure(project, grown, ["radio"], reporter=reporter)
    assert not np.isnan(found.accuracy[0, 0])
    assert np.isnan(found.accuracy[0, 1:]).all()
    assert sum("'radio'" in w for w in reporter.warnings) == 2


def test_calibration_samples_without_features_are_reported(project: Project) -> None:
    table = make_table()
    add_teacher(project, table, "radio", noise=RADIO, rows=np.arange(0, len(table), 2))
    reporter = Warned([])
    found = measure(project, table, ["radio"], reporter=reporter)
    assert found.count.tolist() == [30, 20, 20]
    assert all(word in reporter.warnings[0] for word in ("30 of 60", "'ct'"))


def test_a_domain_without_calibration_samples_is_nan_and_reported(project: Project) -> None:
    table = without(make_table(), split="calibration", domain="oct")
    add_teacher(project, table, "radio", noise=RADIO)
    reporter = Warned([])
    found = measure(project, table, ["radio"], reporter=reporter)
    assert np.isnan(found.accuracy[0, 1])
    assert np.isnan([found.lower[0, 1], found.upper[0, 1], found.chance[1]]).all()
    assert found.count[1] == 0
    assert "'oct'" in reporter.warnings[0]


def test_a_class_without_calibration_samples_is_reported(project: Project) -> None:
    table = without(make_table(), split="calibration", label="stone")
    add_teacher(project, table, "radio", noise=RADIO)
    reporter = Warned([])
    found = measure(project, table, ["radio"], reporter=reporter)
    (warning,) = reporter.warnings
    assert all(word in warning for word in ("'ct'", "stone"))
    assert found.chance[0] == pytest.approx(1 / 2)  # naming one of the two others is right half the time


def test_a_domain_of_one_class_is_not_measured(project: Project) -> None:
    table = table_of([s for s in make_table().samples if s.label != "healthy"])
    add_teacher(project, table, "radio", noise=RADIO)
    reporter = Warned([])
    found = measure(project, table, ["radio"], reporter=reporter)
    assert np.isnan(found.accuracy[0, 1])
    assert all(word in reporter.warnings[0] for word in ("'oct'", "'drusen'"))


def test_features_without_a_direction_are_refused(project: Project, table: SampleIndex) -> None:
    column = add_teacher(project, table, "radio", noise=RADIO)
    store = store_of(project)
    bad = next(iter(column.texts))
    store.put_texts("radio", column.fingerprint, {bad: np.full(16, np.nan)})
    with raises_error("KD-EVAL-013", where="teacher 'radio', domain 'ct'", mentions=("'radio'", "'ct'", "1", "9")):
        measure(project, table, ["radio"])
    assert not trust_file(project.features).exists()


def test_a_teacher_without_features_or_scores_is_an_error(project: Project, table: SampleIndex) -> None:
    with raises_error("KD-FEAT-015", mentions=("'nobody'",)):
        measure(project, table, ["nobody"])


def test_a_damaged_file_is_refused(project: Project, table: SampleIndex) -> None:
    add_teacher(project, table, "radio", noise=RADIO)
    trust_file(project.features).write_text('{"format": 1, "teachers": {"radio": 3}}')
    with raises_error("KD-TRUST-002", where=str(trust_file(project.features))):
        measure(project, table, ["radio"])


def test_captions_are_the_basis_only_where_no_domain_has_labels(project: Project, table: SampleIndex) -> None:
    heard = Said([])

    def basis(index: SampleIndex, wanted: TrustBasis | None = None) -> TrustBasis:
        return choose_basis(wanted, make_evaluator(project.registry, project.catalogue, index), heard)

    without_labels = table_of([replace(sample, label=None) for sample in table.samples])
    without_texts = table_of([replace(sample, text="") for sample in without_labels.samples])
    one_domain = table_of([s if s.domain == "ct" else replace(s, label=None) for s in table.samples])
    assert [basis(index) for index in (table, one_domain, without_texts)] == ["label"] * 3
    assert (basis(without_labels, "label"), basis(table, "list"), heard.said) == ("label", "list", [])
    assert basis(without_labels) == "caption"
    assert len(heard.said) == 1


def test_answers_have_no_captions_to_find(project: Project, table: SampleIndex) -> None:
    evaluator = AnswerEvaluator(table, project.catalogue.make_task("answers"), {"task": "answers"})
    assert choose_basis(None, evaluator, Said([])) == "label"
    with raises_error("KD-TRUST-004", where="trust.by"):
        choose_basis("caption", evaluator, Said([]))
    add_teacher(project, table, "radio", noise=RADIO)
    found, store, lock = measure(project, table, ["radio"]), store_of(project), project.lock
    with raises_error("KD-TRUST-005", where="trust.per"):
        read_sample_scores(evaluator, store, lock, found, Said([]))


def test_scores_of_every_sample_are_read(project: Project, table: SampleIndex) -> None:
    column = add_teacher(project, table, "radio", noise=RADIO)
    add_teacher(project, table, "held-out", noise=RADIO, rows=table.select(split="calibration"))
    evaluator, heard = make_evaluator(project.registry, project.catalogue, table), Said([])
    found = measure_trust(evaluator, store_of(project), project.lock, ["radio", "held-out"])
    scores = read_sample_scores(evaluator, store_of(project), project.lock, found, heard)
    assert np.array_equal(scores.values[0], column.scores(SCORES["label"])[column.locate(table)])
    assert np.isnan(scores.values[1]).sum() == len(table) - len(table.select(split="calibration"))
    assert ["'held-out'" in warning for warning in heard.warnings] == [True]  # live, for example
