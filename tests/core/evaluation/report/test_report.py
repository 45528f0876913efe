"""The report of a real evaluation of made-up models: JSON, text, and the picture's content."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kdkit.cli import console
from kdkit.core.contracts import DomainScore, FeatureView, Sample, TrustTable
from kdkit.core.evaluation import Evaluation, evaluate_views, retention
from kdkit.core.evaluation.project import Findings, _continual
from kdkit.core.evaluation.report import write_report
from kdkit.core.evaluation.report.picture import _apart, _figure, draw
from kdkit.core.evaluation.report.text import findings_text, retention_text
from kdkit.core.project.project import Project
from tests.core.evaluation.test_compare import Named

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

    def evaluate(self, view: FeatureView, samples: Sequence[Sample]) -> Sequence[DomainScore]:
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
) -> Findings:
    samples = [Sample(f"{d}{n}", Path("/x"), "", d, "ab"[n % 2], "test") for d in DOMAINS for n in range(COUNT)]
    accuracy = np.array([[RIGHT[t][d] for d in DOMAINS] for t in teachers]).reshape(len(teachers), 3)
    counts, chance = np.full(3, COUNT), np.full(3, 0.5)
    evaluation = evaluate_views(
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
        kept = retention(
            evaluation, evaluation, student=(history[-2], history[-1]), trusted=trusted, domains=["ct", "skin"]
        )
    return Findings(history[-1], history, evaluation, kept, _continual(evaluation, history, learned), learned)


@pytest.fixture(scope="module")
def findings() -> Findings:
    return make(("v1", "v2"))


def test_the_report_is_an_evaluation_with_more(tmp_path: Path, findings: Findings) -> None:
    project = Project(tmp_path)
    content = write_report(project, findings)
    assert content["file"] == "reports/evaluation-v2-test.json"
    assert sorted(path.name for path in project.reports.iterdir()) == [
        "evaluation-v2-test.json",
        "evaluation-v2-test.png",
    ]
    written = json.loads((tmp_path / content["file"]).read_text())
    assert written == json.loads(json.dumps(content))
    assert written["retention"]["broken"] == ["ct"]
    assert written["continual"]["transfer"] == pytest.approx(0.3)
    assert written["learned"] == {"ct": "v1", "oct": "v2", "skin": "v1"}
    back = Evaluation.load(tmp_path / content["file"])
    assert back.model("v2").means == findings.evaluation.model("v2").means


def test_the_alternative_text_tells_what_the_picture_shows(tmp_path: Path, findings: Findings) -> None:
    content = write_report(Project(tmp_path), findings)
    assert content["picture"]["alt"] == (
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
    assert _apart([0.0, 1.0, 5.0], 0.5) == [0.0, 1.0, 5.0]
    assert _apart([1.0, 1.0], 0.5) == [0.75, 1.25]
    places = _apart([0.0, 0.1, 0.2, 0.9, 3.0], 0.5)
    assert (np.diff(places) >= 0.5 - 1e-12).all()
    assert np.mean(places[:4]) == pytest.approx(np.mean([0.0, 0.1, 0.2, 0.9]))
    assert places[4] == 3.0


def test_the_text_has_what_matters(findings: Findings) -> None:
    text = findings_text(findings, console.table)
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
    assert "Change since" not in findings_text(first, console.table)
    content = write_report(Project(tmp_path), first)
    assert (content["retention"], content["continual"]) == (None, None)


def test_a_change_that_nothing_can_tell_of_has_no_figures(findings: Findings) -> None:
    kept = retention(findings.evaluation, findings.evaluation, student=("v1", "v2"), domains=())
    told = retention_text(kept, console.table)
    assert told == "no domain of before can be compared here"
    assert len(_figure(findings).axes) == 4
    assert len(_figure(replace(findings, retention=kept)).axes) == 2


def test_an_evaluation_of_many_metrics_is_told_by_metric_and_calls_nothing_zero_shot() -> None:
    class Answers(Fixed):
        def evaluate(self, view: FeatureView, samples: Sequence[Sample]) -> Sequence[DomainScore]:
            return [replace(score, **self.more(score), notes=("rough",)) for score in super().evaluate(view, samples)]

        def more(self, score: DomainScore) -> dict[str, Any]:
            value, bounds = score.metrics["accuracy"], score.intervals["accuracy"]
            names = ["accuracy", "similarity", "recall", "closed", *(["boxes"] if score.domain == "ct" else [])]
            return {"metrics": dict.fromkeys(names, value), "intervals": dict.fromkeys(names, bounds)}

    made = make(("v1",), task=Answers(), settings={"task": "answers"})
    lines = findings_text(made, console.table).splitlines()
    assert lines[0] == "Accuracy (task 'answers') in %, test split"
    rows = {line.split()[0]: line.split() for line in lines if line.startswith(("metric", "similarity", "boxes"))}
    assert rows["metric"] == ["metric", "v1", "radio", "eye", "oracle", "oracle-on-test", "domains"]
    assert rows["similarity"][-1] == "3"
    assert rows["boxes"][-1] == "1"
    assert [line for line in lines if line.startswith("note")] == ["note: ct, oct, skin: rough"]
    figure = _figure(made)
    assert [axes.get_title() for axes in figure.axes] == [
        "Accuracy (task 'answers') on each domain",
        "Mean over domains",
    ]
    assert not any("AUC" in text.get_text() for axes in figure.axes for text in axes.texts)
