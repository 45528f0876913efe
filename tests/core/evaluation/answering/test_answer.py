"""Best-of-n answers in a project: a student, and a teacher behind an endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdkit.core.contracts import Decoding
from kdkit.core.data import load_index
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.answering.answer import AnswerRequest, answer_form, answer_samples
from kdkit.core.evaluation.answering.candidates import BATCH
from kdkit.core.evaluation.answers import StudentAnswers
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.teachers.add import add_teacher
from tests.core.distill.pseudo_labels import project as example
from tests.errors import raises_error
from tests.journeys.test_generating_student import add_vlm, generating_project, reopened
from tests.local_endpoint import Reply, local_endpoint
from tests.toy_project import train_teacher


def test_the_answer_nearest_to_the_image_is_chosen(tmp_path: Path) -> None:
    """A re-ranker that knows the classes finds the right captions among wrong ones."""
    root = tmp_path / "p"
    texts = [f"a ct image of {label}." for label in ("mass", "cyst", "clear")]
    oracle = example.Oracle()
    with local_endpoint(oracle) as endpoint:
        example.make(root, endpoint, oracle, extracted=False)
        train_teacher(("ct",), width=8, seed=0).save(root / "models" / "clip")
        add_teacher(reopened(root), "clip", {"from": "local:models/clip", "loader": "toy", "license": "mit"})
        endpoint.answer = lambda _: [(text, []) for text in texts]
        wanted = AnswerRequest(teacher="remote", rerank="clip", domains=("ct",), choose="nearest")
        found = answer_samples(reopened(root), wanted, Decoding(samples=3))
        assert len(found) == 12
        right = [one.text == one.reference for one in found]
        assert sum(right) / len(right) > 0.9
        assert sum(one.answers[0].text == one.reference for one in found) == 4
        to = root / "log.jsonl"
        answer_samples(reopened(root), wanted, Decoding(samples=3), to=to, form="lmms-eval")
        rows = [json.loads(line) for line in to.read_text(encoding="utf-8").splitlines()]
        assert [(row["id"], *row["filtered_resps"]) for row in rows] == [(one.id, one.text) for one in found]
        index = load_index(reopened(root))
        whole = [index.ids[row] for row in index.select(split="test")]
        assert [whole[row["doc_id"]] for row in rows] == [one.id for one in found]  # places in the whole split
        with raises_error("KD-EVAL-570"):
            answer_samples(reopened(root), wanted, Decoding(), attention=root / "a.png")
        with raises_error("KD-EVAL-571", mentions=("lmms-eval",)):
            answer_form("lmms")

        with raises_error("KD-EVAL-006", mentions=("'remote'",)):
            answer_samples(reopened(root), AnswerRequest(teacher="clip", rerank="remote"), Decoding())
        with raises_error("KD-TEACH-005", mentions=("'clip'",)):
            answer_samples(reopened(root), AnswerRequest(teacher="clip"), Decoding())
        with raises_error("KD-PROJ-009"):
            answer_samples(reopened(root), AnswerRequest(), Decoding())
        with raises_error("KD-EVAL-002"):
            AnswerRequest(version="v1", teacher="remote")


def test_answers_resume_after_a_failure(tmp_path: Path) -> None:
    """The second batch fails: the first is not answered again, and the result equals an uninterrupted run."""
    root, oracle, wanted = (
        tmp_path / "p",
        example.Oracle(),
        AnswerRequest(teacher="remote", split="train", domains=("ct",)),
    )
    with local_endpoint(oracle) as endpoint:
        example.make(root, endpoint, oracle, extracted=False)
        reply: Reply = [("mass", [-0.3]), ("cyst", [-0.7])]
        endpoint.answer = lambda _: reply
        whole = answer_samples(reopened(root), wanted, Decoding(samples=2, scored=True))
        each = len(endpoint.requests) - 1
        assert each == len(whole) > 2 * BATCH

        def fail(_: Mapping[str, Any]) -> Reply:
            endpoint.faults.extend([400] * (len(endpoint.requests) > 1 + each + BATCH))
            return reply

        endpoint.answer = fail
        with raises_error("KD-LOAD-006", mentions=("status 400",)):
            answer_samples(reopened(root), wanted, Decoding(samples=2, scored=True))
        (kept,) = (root / ".kdkit" / "answers").iterdir()
        with open(kept, "ab") as file:
            file.write(b'{"id": "x", "value": {"answ')  # a kill
        endpoint.settle()
        endpoint.answer, before = lambda _: reply, len(endpoint.requests)
        endpoint.faults.clear()
        to = root / "answers.jsonl"
        assert answer_samples(reopened(root), wanted, Decoding(samples=2, scored=True), to=to) == whole
        assert len(endpoint.requests) - before == each - BATCH
        lines = [json.dumps(one.to_json(), ensure_ascii=False) for one in whole]
        assert to.read_text(encoding="utf-8").splitlines() == lines
        assert not kept.exists()


def test_answers_of_a_version_equal_those_of_its_evaluation(tmp_path: Path) -> None:
    root = tmp_path / "p"
    generating_project(root)
    recipe = "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: all}\n"
    (root / "toy.yaml").write_text(recipe + "optimizer: {lr: 0.01, batch_size: 16, steps: 4}\n", encoding="utf-8")
    add_vlm(root, "first", seed=0)
    distill(reopened(root), Options(cpu=True))
    found = answer_samples(reopened(root), AnswerRequest(version="v1", split="calibration", limit=4), Decoding())
    student: Any = load_student(Versions(reopened(root)).get(), reopened(root).catalogue)
    table = load_index(reopened(root))
    chosen = [table.samples[row] for row in table.select(split="calibration")[:4]]
    assert [(one.id, one.reference) for one in found] == [(sample.id, sample.text) for sample in chosen]
    assert [one.text for one in found] == StudentAnswers("v1", student).answer(chosen)
    with raises_error("KD-BASE-031"):
        answer_samples(reopened(root), AnswerRequest(version="v1"), Decoding(), to=root / "registry.yaml")
    with raises_error("KD-EVAL-003", where="limit"):
        AnswerRequest(limit=0)


def test_bad_choices_are_errors(tmp_path: Path) -> None:
    with raises_error("KD-EVAL-581", where="choose"):
        AnswerRequest(choose="nearst", rerank="clip")
    with raises_error("KD-EVAL-582", where="choose"):
        AnswerRequest(choose="nearest")
    assert AnswerRequest(rerank="clip").how == "gated"
    assert AnswerRequest().how == "first"
    root = tmp_path / "p"
    oracle = example.Oracle()
    with local_endpoint(oracle) as endpoint:
        example.make(root, endpoint, oracle, extracted=False)
        with raises_error("KD-EVAL-580", mentions=("--rerank",)):  # the toy task does not compare answers
            answer_samples(reopened(root), AnswerRequest(teacher="remote", choose="gated"), Decoding(samples=2))
