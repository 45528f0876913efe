"""The report of a real evaluation of made-up models: JSON, text, and the picture's content."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdkit.core.base.cells import Shade
from kdkit.core.base.json_record import without_checksum
from kdkit.core.base.result import Table, to_html
from kdkit.core.contracts import DomainScore, ModelFeatures, Sample, TrustTable
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.evaluate import _continual
from kdkit.core.evaluation.report import EvaluationReport, write_report
from kdkit.core.evaluation.report.labels import spread_apart
from kdkit.core.evaluation.report.picture import _figure, draw
from kdkit.core.evaluation.report.tables import _domains, retention_sections
from kdkit.core.evaluation.retention import measure_retention
from kdkit.core.evaluation.scores import Evaluation, ModelScores
from kdkit.core.project.project import Project
from tests.core.evaluation.test_compare import Named
from tests.errors import raises_error

COUNT = 200
DOMAINS = ("ct", "oct", "skin")
RIGHT = {
    "v1": {"ct": 0.90, "oct": 0.30, "skin": 0.80},
    "v2": {"ct": 0.80, "oct": 0.95, "skin": 0.81},
    "radio": {"ct": 0.95, "oct": 0.25, "skin": 0.30},
    "eye": {"ct": 0.20, "oct": 0.96, "skin": 0.85},
}


class Fixed:
    """A task that knows what every model gets right."""

    def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        scores = []
        for domain in DOMAINS:
            value = RIGHT[view.name][domain]
            bounds = {"accuracy": (value - 0.04, value + 0.03), "auc": (value, 1.0)}
            ids = tuple(sample.id for sample in samples if sample.domain == domain)
            right = {"accuracy": np.arange(COUNT) < round(value * COUNT)}
            metrics = {"accuracy": value, "auc": (1 + value) / 2}
            note = ("only 200 samples",) if domain == "ct" else ()
            scores.append(DomainScore(domain, COUNT, metrics, bounds, 0.95, ids, right, note))
        return scores


def make(
    history: tuple[str, ...],
    teachers: tuple[str, ...] = ("radio", "eye"),
    task: Fixed | None = None,
    settings: Mapping[str, Any] | None = None,
) -> EvaluationReport:
    samples = [Sample(f"{d}{n}", Path("/x"), "", d, "ab"[n % 2], "test") for d in DOMAINS for n in range(COUNT)]
    accuracy = np.array([[RIGHT[t][d] for d in DOMAINS] for t in teachers]).reshape(len(teachers), 3)
    counts, chance = np.full(3, COUNT), np.full(3, 0.5)
    evaluation = compare_models(
        task or Fixed(),
        [Named(name) for name in reversed(history)],
        [Named(name) for name in teachers],
        samples,
        trust=TrustTable(teachers, DOMAINS, accuracy, accuracy, accuracy, counts, chance),
        settings=settings or {"logit_scale": 100.0},
    )
    learned = {"ct": "v1", "oct": history[-1], "skin": "v1"}
    kept = None
    if len(history) > 1:
        trusted = {"radio": ["ct"], "eye": ["oct", "skin"]}
        kept = measure_retention(
            evaluation, evaluation, student=(history[-2], history[-1]), trusted=trusted, domains=["ct", "skin"]
        )
    continual = _continual(evaluation, history, learned)
    return EvaluationReport(
        history[-1], history, evaluation, kept, continual, learned, {name: f"digest of {name}" for name in history}
    )


@pytest.fixture(scope="module")
def report() -> EvaluationReport:
    return make(("v1", "v2"))


def test_the_report_file_holds_the_evaluation_and_more(tmp_path: Path, report: EvaluationReport) -> None:
    reports = Project(tmp_path).reports
    made = write_report(reports, report)
    assert made.file == Path("reports/evaluation-v2-test.json")
    assert sorted(path.name for path in reports.iterdir()) == ["evaluation-v2-test.json", "evaluation-v2-test.png"]
    written = without_checksum(json.loads((tmp_path / made.file).read_text()))
    assert written == json.loads(json.dumps(made.to_json()))
    assert written["retention"]["over_tolerance"] == ["ct"]
    assert written["continual"]["transfer"] == pytest.approx(0.3)
    assert written["learned"] == {"ct": "v1", "oct": "v2", "skin": "v1"}
    assert Evaluation.load(tmp_path / made.file).to_json() == report.evaluation.to_json()
    assert EvaluationReport.load(tmp_path / made.file).to_json() == report.to_json()


def test_a_full_disk_costs_the_files_alone(
    tmp_path: Path, report: EvaluationReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(UserWarning, match="No space"):
        made = write_report(Project(tmp_path).reports, report)
    assert made.report is report
    assert made.to_json()["file"] is None


def test_a_changed_figure_is_noticed(tmp_path: Path, report: EvaluationReport) -> None:
    file = tmp_path / write_report(Project(tmp_path).reports, report).file
    text = file.read_text()
    assert f'"count": {COUNT}' in text
    file.write_text(text.replace(f'"count": {COUNT}', f'"count": {COUNT + 1}', 1))
    with raises_error("KD-EVAL-009", where=str(file)):
        EvaluationReport.load(file)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"format": 2}'])
def test_a_damaged_report_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with raises_error("KD-EVAL-009", where=str(path)):
        EvaluationReport.load(path)


def test_a_notebook_shows_the_tables(report: EvaluationReport) -> None:
    html = report._repr_html_()
    assert html.count("<table>") == 4
    assert 'right">-10.0</td>' in html
    assert "&lt;b&gt;" in to_html(["<b>", Table(["<b>"], [["<b>"]])])
    assert "<b>" not in to_html(["<b>", Table(["<b>"], [["<b>"]])])


def test_the_alternative_text_describes_the_picture(tmp_path: Path, report: EvaluationReport) -> None:
    assert write_report(tmp_path / "reports", report).alt == (
        "Accuracy of v2 on 3 domains of the test split: ct 80 %, oct 95 %, skin 81 %; mean 85.3 %. "
        "The best single teacher, eye, has a mean of 67.0 %. The student reaches 92.8 % of the oracle's mean "
        "accuracy. Against v1, domains that are not new changed by -4.5 points on average, ct by -10.0 at worst."
    )


@pytest.mark.parametrize(
    ("history", "teachers"), [(("v1",), ("radio", "eye")), (("v1", "v2"), ("radio", "eye")), (("v1",), ())]
)
def test_the_picture_is_drawn(tmp_path: Path, history: tuple[str, ...], teachers: tuple[str, ...]) -> None:
    draw(make(history, teachers), tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    student = (np.abs(pixels.astype(int) - (0xD5, 0x5E, 0x00)).sum(axis=2) < 12).sum()
    assert student > 500  # the student's own color, on every panel
    assert pixels.shape[1] > 1500
    margin = np.concatenate([pixels[:, :4].ravel(), pixels[:, -4:].ravel(), pixels[-4:].ravel()])
    assert (margin == 255).all()  # nothing is cut off


def test_labels_move_apart_and_no_further() -> None:
    assert spread_apart([0.0, 1.0, 5.0], 0.5) == [0.0, 1.0, 5.0]
    assert spread_apart([1.0, 1.0], 0.5) == [0.75, 1.25]
    places = spread_apart([0.0, 0.1, 0.2, 0.9, 3.0], 0.5)
    assert (np.diff(places) >= 0.5 - 1e-12).all()
    assert np.mean(places[:4]) == pytest.approx(np.mean([0.0, 0.1, 0.2, 0.9]))
    assert places[4] == 3.0


def test_the_text_shows_the_figures(report: EvaluationReport) -> None:
    text = str(report)
    for piece in (
        "ct 80.0 90.0 95.0 20.0 95.0 200",
        "ct 90.0 80.0 -10.0 -1",
        "LOST",
        "new in v2: oct 30.0 -> 95.0",
        "oracle: the best teacher per domain on the calibration split: ct radio, oct eye, skin eye",
        "v2 against the oracle: 92.8 % of its accuracy",
        "Transfer 30.0, backward transfer -4.5, forgetting +4.5",
        "note: ct: only 200 samples",
        "logit scale 100",
    ):
        assert piece in " ".join(text.split())


def test_a_first_version_has_no_change(tmp_path: Path) -> None:
    first = make(("v1",))
    assert "Change since" not in str(first)
    content = write_report(tmp_path / "reports", first).to_json()
    assert (content["retention"], content["continual"]) == (None, None)


def test_a_retention_without_domains_has_no_figures(report: EvaluationReport) -> None:
    kept = measure_retention(report.evaluation, report.evaluation, student=("v1", "v2"), domains=())
    assert len(retention_sections(kept)) == 1
    assert len(_figure(report).axes) == 4
    assert len(_figure(replace(report, retention=kept)).axes) == 2


def test_many_metrics_have_a_row_each() -> None:
    class Answers(Fixed):
        def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
            return [replace(score, **self.more(score), notes=("rough",)) for score in super().evaluate(view, samples)]

        def more(self, score: DomainScore) -> dict[str, Any]:
            value, bounds = score.metrics["accuracy"], score.intervals["accuracy"]
            names = ["accuracy", "similarity", "recall", "closed", *(["boxes"] if score.domain == "ct" else [])]
            return {"metrics": dict.fromkeys(names, value), "intervals": dict.fromkeys(names, bounds)}

    made = make(("v1",), task=Answers(), settings={"task": "answers"})
    lines = str(made).splitlines()
    assert "'answers'" in lines[0]
    assert "test" in lines[0].split()
    rows = {line.split()[0]: line.split() for line in lines if line.startswith(("metric", "similarity", "boxes"))}
    assert rows["metric"] == ["metric", "v1", "radio", "eye", "oracle", "oracle-on-test", "domains"]
    assert rows["similarity"][-1] == "3"
    assert rows["boxes"][-1] == "1"
    notes = [re.findall(r"\w+", line) for line in lines if line.startswith("note")]
    assert notes == [["note", "ct", "oct", "skin", "rough"]]
    figure = _figure(made)
    by_domain, mean = (axes.get_title() for axes in figure.axes)
    assert "'answers'" in by_domain
    assert mean.startswith("Mean ")
    assert not any("AUC" in text.get_text() for axes in figure.axes for text in axes.texts)


@pytest.mark.parametrize("first", [math.nan, 0.2])
def test_the_best_teacher_is_bold_beside_one_without_a_figure(report: EvaluationReport, first: float) -> None:
    models: list[ModelScores] = []
    for model in report.evaluation.models:
        if model.role == "teacher":
            score = model.domains["ct"]
            value = first if not any(m.role == "teacher" for m in models) else 0.5
            own = replace(score, metrics={**score.metrics, "accuracy": value})
            model = replace(model, domains={**model.domains, "ct": own})
        models.append(model)
    table = _domains(replace(report.evaluation, models=tuple(models)))
    (row,) = [row for row in table.rows if row[0] == "ct"]
    assert [cell.strong for cell in row if isinstance(cell, Shade)].count(True) == 1


class Undefined(Fixed):
    """Accuracy has no value on ``ct``."""

    def evaluate(self, view: ModelFeatures, samples: Sequence[Sample]) -> Sequence[DomainScore]:
        scores = super().evaluate(view, samples)
        return [replace(s, metrics={}, intervals={}, outcomes={}) if s.domain == "ct" else s for s in scores]


def test_a_domain_without_the_headline_leaves_a_report(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    report = make(("v1",), task=Undefined())
    text = draw(report, path)
    assert Image.open(path).size[0] > 500
    assert re.findall(r"(\w+) (\d+) %", text)[:2] == [("oct", "30"), ("skin", "80")]
    assert "skin" in str(write_report(Project(tmp_path).reports, report))
