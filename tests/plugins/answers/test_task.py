"""The task ``answers``: per-sample outcomes, metrics and intervals of every task, per domain."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.contracts import DomainScore, EvaluationTask, Sample
from kdkit.core.evaluation.compare import compare_models
from kdkit.core.evaluation.retention import measure_retention
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.plugins.answers import TASKS
from kdkit.plugins.answers.grading import grade_descriptions
from kdkit.plugins.answers.replies import Reply, Tools
from kdkit.plugins.answers.summary import summarize
from kdkit.plugins.answers.task import Answers
from tests.errors import raises_error

BOX = "<box>(0,0),(100,100)</box>"


class Said:
    """A model that answers by a table of sample ids."""

    def __init__(self, answers: Mapping[str, str], name: str = "said") -> None:
        self.answers, self._name = answers, name

    @property
    def name(self) -> str:
        return self._name

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        return [self.answers.get(sample.id, sample.text) for sample in samples]


def question(id_: str, text: str, domain: str, **extra: Any) -> Sample:
    return Sample(id_, Path(f"{id_}.png"), text, domain, None, "test", extra=extra)


def score(answers: Mapping[str, str], samples: Sequence[Sample], **options: Any) -> list[DomainScore]:
    return list(Answers(resamples=100, **options).evaluate(Said(answers), samples))


def test_the_catalogue_makes_it() -> None:
    task: EvaluationTask = load_catalogue().make("task", "answers", resamples=10)
    assert isinstance(task, Answers)
    assert task.how.resamples == 10
    assert task.evaluate(Said({}), []) == []


def test_grounding() -> None:
    """Two boxes of which one is found, one box that is not, one reference without a box."""
    two = BOX + "<box>(500,500),(900,900)</box>"
    samples = [question("a", two, "vg/ct"), question("b", BOX, "vg/ct"), question("c", "nowhere", "vg/ct")]
    (found,) = score({"a": f"here: {BOX}", "b": "no lesion"}, samples)
    assert (found.count, found.ids) == (2, ("a", "b"))
    assert found.outcomes["accuracy"].tolist() == [0.5, 0.0]
    assert found.metrics == {
        "accuracy": 0.25,
        "accuracy_published": 0.25,
        "recall": pytest.approx(1 / 3),
        "recall_strict": pytest.approx(1 / 3),
        "precision_strict": 1.0,
        "mean_iou": pytest.approx(1 / 3),
        "similarity": 0.25,
    }
    assert found.outcomes["similarity"].tolist() == [0.5, 0.0]
    (none,) = score({"a": "no lesion", "b": "no lesion"}, samples)
    assert set(none.metrics.values()) == {0.0}
    (both,) = score({"a": BOX + BOX, "b": BOX}, samples)
    assert both.metrics["precision_strict"] == pytest.approx(2 / 3)
    (wide,) = score({"a": "<box>(0,0),(100,80)</box>", "b": BOX}, samples, overlap=0.9)
    assert wide.outcomes["accuracy"].tolist() == [0.0, 1.0]
    assert wide.outcomes["similarity"].tolist() == pytest.approx([0.4, 1.0])


def test_json_boxes_survive_the_cleaning() -> None:
    json_box = '[\n{"bbox_2d": [0, 0, 100, 100]}\n]'
    (found,) = score({"a": f"```json\n{json_box}\n```"}, [question("a", json_box, "vg/ct")])
    assert found.metrics["accuracy"] == 1.0


def test_class_names() -> None:
    samples = [question(n, "left lung", "roc/ct") for n in "abc"]
    (found,) = score({"a": "It is the left lung.", "b": "lung, left prolungation", "c": "liver"}, samples)
    assert found.outcomes["accuracy"].tolist() == [1, 0, 0]
    assert found.metrics["recall"] == found.metrics["accuracy_published"] == pytest.approx(2 / 3)
    assert found.metrics["recall_strict"] == found.metrics["accuracy"] == pytest.approx(1 / 3)


def test_notes_name_the_accuracy_metric_of_captions_and_descriptions() -> None:
    texts = ["a small cyst in the upper pole of the left kidney", "no evidence of pneumonia is seen", "normal"]
    samples = [question(f"{t}{n}", text, f"{t}/ct") for t in ("rc", "mia") for n, text in enumerate(texts)]
    rc, mia = score({"rc1": "no pneumonia", "mia1": "no pneumonia"}, samples)
    assert rc.metrics["accuracy"] == rc.metrics["rouge_l"]
    assert any("ROUGE-L" in note for note in rc.notes)
    assert any("SPICE" in note and "corenlp" in note for note in rc.notes)
    assert "spice" not in rc.metrics
    assert any("meteor-lite" in note for note in mia.notes)
    parts = [mia.metrics[name] for name in ("bleu_1", "bleu_2", "bleu_3", "bleu_4", "meteor_lite", "rouge_l")]
    assert mia.metrics["mbmr_lite"] == pytest.approx(np.mean(parts))
    assert "mbmr" not in mia.metrics
    assert 0 < mia.outcomes["accuracy"][1] < mia.outcomes["accuracy"][0] <= 1
    assert mia.metrics["accuracy"] == pytest.approx(mia.outcomes["accuracy"].mean())


class Constant:
    """A METEOR that is always the same."""

    name = "meteor-1.5"

    def counts(self, answers: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> Any:
        return np.full((len(answers), 1), 1 / len(references))

    def score(self, counts: Any) -> Any:
        return np.full(len(counts), 0.25)


def test_another_meteor_has_another_name() -> None:
    replies = [Reply.of("normal", "normal"), Reply.of("no mass", "a mass")]
    graded = grade_descriptions(replies, Tools(meteor=Constant()))
    assert {"mbmr", "meteor"} < set(graded.others)
    assert not {"mbmr_lite", "meteor_lite"} & set(graded.others)
    assert "meteor-1.5" in graded.notes[0]
    once = np.ones((2, 1))
    assert graded.others["meteor"](once) == [0.25]
    parts = [graded.others[f"bleu_{n}"](once)[0] for n in range(1, 5)]
    assert graded.others["mbmr"](once)[0] == pytest.approx((sum(parts) + 0.25 + graded.outcomes["rouge_l"].mean()) / 6)


def test_spice_that_cannot_run_is_an_error(tmp_path: Path) -> None:
    with raises_error("KD-ANS-018"):
        Answers(corenlp=str(tmp_path))


def test_questions() -> None:
    samples = [
        question("a", "yes", "vqa/ct", answer_type="CLOSED"),
        question("b", "no", "vqa/ct", answer_type="CLOSED"),
        question("c", "yes", "vqa/ct", answer_type="CLOSED"),
        question("d", "left lung", "vqa/ct", answer_type="OPEN"),
        question("e", "yes", "vqa/mr"),
    ]
    ct, mr = score({"a": "Yes.", "b": "unclear", "c": "no", "d": "the lung"}, samples)
    assert ct.outcomes["accuracy"].tolist() == [1, 0, 0, 0.5]
    assert ct.metrics["closed_accuracy"] == pytest.approx(1 / 3)
    assert ct.metrics["closed_accuracy_legacy"] == 0.5
    assert (ct.metrics["open_recall"], ct.metrics["open_exact"]) == (0.5, 0.0)
    assert ct.metrics["open_f1"] == pytest.approx(2 / 3)
    assert not any(name.startswith("open") for name in mr.metrics)


def many() -> list[Sample]:
    texts = {
        "vg": [BOX, "<box>(5,5),(900,900)</box>"],
        "roc": ["lung", "left kidney"],
        "rc": ["a small cyst in the kidney", "a mass"],
        "mia": ["no evidence of pneumonia is seen here", "an enlarged liver with a cyst"],
        "vqa": ["yes", "left lung"],
    }
    assert set(texts) == set(TASKS)
    return [
        question(f"{task}-{modality}-{n}", texts[task][n % 2], f"{task}/{modality}")
        for task in texts
        for modality in ("ct", "mr")
        for n in range(20)
    ]


def test_every_metric_has_a_fraction_and_an_interval_around_it() -> None:
    samples = many()
    wrong = {sample.id: "lung" for number, sample in enumerate(samples) if number % 3 == 0}
    scores = score(wrong, samples)
    assert [s.domain for s in scores] == list(dict.fromkeys(sample.domain for sample in samples))
    for found in scores:
        assert next(iter(found.metrics)) == "accuracy"
        assert found.count == 20
        for name, value in found.metrics.items():
            low, high = found.intervals[name]
            assert 0 <= low <= value <= high <= 1, (found.domain, name)
        for name, outcomes in found.outcomes.items():
            assert outcomes.mean() == pytest.approx(found.metrics[name], abs=1e-9)
        low, high = found.intervals["accuracy"]
        assert low < found.metrics["accuracy"] < high
    assert all(s.metrics["accuracy"] > 0.99 for s in score({}, samples) if not s.domain.startswith("mia"))


def test_macro_and_micro() -> None:
    samples = [question(f"a{n}", "lung", "roc/ct") for n in range(3)] + [question("b", "lung", "roc/mr")]
    scores = score({"b": "liver"}, samples) + score({}, [question("c", "yes", "vqa/mr")])
    roc, vqa = summarize(scores)
    assert (roc.task, list(roc.modalities)) == ("roc", ["ct", "mr"])
    assert (roc.macro["accuracy"], roc.micro["accuracy"]) == (0.5, 0.75)
    assert (vqa.macro["closed_accuracy"], "closed_accuracy" in vqa.micro) == (1.0, False)


def test_evaluation_and_retention_work_unchanged() -> None:
    """Tasks differ in metrics, all have ``accuracy``: what the guard and trust look at."""
    samples = many()
    forgot = {sample.id: "lung" for sample in samples if sample.domain == "vg/ct"}
    task = load_catalogue().make("task", "answers", resamples=50)
    found = compare_models(task, [Said({}, "v1"), Said(forgot, "v2")], [], samples)
    kept = measure_retention(found, found, student=("v1", "v2"))
    assert kept.over_tolerance == ("vg/ct",)
    assert kept.domains["vg/ct"].points == -100
    assert kept.domains["mia/ct"].points == 0
    assert found.model("v1").means["recall"] == 1.0  # of the domains that have it
    assert not any(math.isnan(value) for model in found.models for value in model.means.values())


class Silent:
    name = "clip"


def test_invalid_input_is_refused() -> None:
    with raises_error("KD-ANS-013"):
        Answers().evaluate(Silent(), [question("a", "lung", "roc/ct")])  # type: ignore[arg-type]
    with raises_error("KD-ANS-012"):
        score({}, [question("a", "x", "ct", task="roc"), question("b", "x", "ct", task="mia")])
    unknown = [question("a", "x", "ct"), question("b", "", "roc/ct")]
    assert score({}, unknown) == []
