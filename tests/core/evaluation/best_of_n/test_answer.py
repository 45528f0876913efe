"""Selective generation with real models: a tiny student, a tiny CLIP, and a teacher behind an endpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from kdkit.core.contracts import Decoding, DualEncoder, Sample
from kdkit.core.data import load_index
from kdkit.core.distill.run import Options, distill
from kdkit.core.evaluation.answers import StudentAnswers
from kdkit.core.evaluation.best_of_n.answer import BATCH, Asked, answer_samples, select
from kdkit.core.evaluation.best_of_n.rerank import Reranker
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.versions import Versions, load_student
from kdkit.core.teachers.add import add_teacher
from kdkit.testing.endpoint import Reply, local_endpoint
from tests.core.distill.pseudo_labels import project as example
from tests.core.distill.test_generating import add_vlm, generating_project, reopened
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import PICTURES, make, samples
from tests.tiny_models import make_transformers_clip_folder
from tests.toy_project import train_teacher


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> DualEncoder:
    folder = make_transformers_clip_folder(tmp_path_factory.mktemp("clip") / "model")
    model = load_catalogue().make("loader", "transformers", folder=folder)
    assert isinstance(model, DualEncoder)
    return model


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    folder = tmp_path_factory.mktemp("pictures")
    for number, picture in enumerate(PICTURES):
        picture.save(folder / f"{number}.png")
    return [replace(s, image=folder / f"{n}.png") for n, s in enumerate(samples(folder))]


def test_scores_are_those_of_the_dual_encoder(clip: DualEncoder, asked: list[Sample]) -> None:
    found = select(make(), asked, Decoding(samples=3, seed=1, max_new=8), Reranker("clip", clip))
    assert [one.id for one in found] == [sample.id for sample in asked]
    for one, picture in zip(found, PICTURES, strict=True):
        image = F.normalize(clip.encode_image(clip.preprocess(picture)[None]).float())
        text = F.normalize(clip.encode_text([choice.text for choice in one.answers]).float())
        wanted = (text @ image[0]).tolist()
        assert [choice.score for choice in one.answers] == pytest.approx(wanted, abs=1e-5)
        assert one.chosen == max(range(3), key=wanted.__getitem__)
        assert one.text == one.answers[one.chosen].text


def test_one_answer_is_plain_answering(clip: DualEncoder, asked: list[Sample]) -> None:
    student = make()
    plain = StudentAnswers("student", student).answer(asked)
    for reranker in (None, Reranker("clip", clip)):
        found = select(student, asked, Decoding(scored=True), reranker)
        assert [one.text for one in found] == plain
        assert [len(one.answers) for one in found] == [1, 1, 1]
        assert all(one.answers[0].confidence is not None for one in found)


def test_the_seed_decides(clip: DualEncoder, asked: list[Sample]) -> None:
    def drawn(seed: int) -> list[object]:
        return list(select(make(), asked, Decoding(samples=2, seed=seed, max_new=6), Reranker("clip", clip)))

    assert drawn(3) == drawn(3)
    assert drawn(3) != drawn(4)
    beams = select(make(), asked, Decoding(beams=3, max_new=6))
    assert [(one.chosen, len(one.answers), one.answers[0].score) for one in beams] == [(0, 3, None)] * 3


def test_texts_beyond_the_context_are_known(clip: DualEncoder) -> None:
    reranker = Reranker("clip", clip)
    long = " ".join(["lung"] * 40)
    reranker.scores(PICTURES[:1], [["a lung", long, "nodule", long + " nodule"]])
    assert reranker.unread == {long, long + " nodule"}
    with torch.inference_mode():
        assert torch.equal(clip.encode_text([long]), clip.encode_text([long + " nodule"]))


def test_a_project_is_asked_and_the_best_answer_is_near_its_image(tmp_path: Path) -> None:
    """A re-ranker that knows the classes finds the right captions among wrong ones."""
    root = tmp_path / "p"
    texts = [f"a ct image of {label}." for label in ("mass", "cyst", "clear")]
    oracle = example.Oracle()
    with local_endpoint(oracle) as endpoint:
        example.make(root, endpoint, oracle, extracted=False)
        train_teacher(("ct",), width=8, seed=0).save(root / "models" / "clip")
        add_teacher(reopened(root), "clip", {"from": "local:models/clip", "loader": "toy", "license": "mit"})
        endpoint.answer = lambda _: [(text, []) for text in texts]
        wanted = Asked(teacher="remote", rerank="clip", domains=("ct",))
        found = answer_samples(reopened(root), wanted, Decoding(samples=3))
        assert len(found) == 12
        right = [one.text == one.reference for one in found]
        assert sum(right) / len(right) > 0.9
        assert sum(one.answers[0].text == one.reference for one in found) == 4

        with raises_error("KD-EVAL-006", mentions=("'remote'",)):
            answer_samples(reopened(root), Asked(teacher="clip", rerank="remote"), Decoding())
        with raises_error("KD-TEACH-005", mentions=("'clip'",)):
            answer_samples(reopened(root), Asked(teacher="clip"), Decoding())
        with raises_error("KD-PROJ-009"):
            answer_samples(reopened(root), Asked(), Decoding())
        with raises_error("KD-EVAL-002"):
            Asked(version="v1", teacher="remote")


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    """The second group fails: the first is kept, and the end is as if nothing had happened."""
    root, oracle, wanted = tmp_path / "p", example.Oracle(), Asked(teacher="remote", split="train", domains=("ct",))
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
            file.write(b'{"found": [{"id"')  # a kill
        endpoint.settle()
        endpoint.answer, before = lambda _: reply, len(endpoint.requests)
        endpoint.faults.clear()
        to = root / "answers.jsonl"
        assert answer_samples(reopened(root), wanted, Decoding(samples=2, scored=True), to=to) == whole
        assert len(endpoint.requests) - before == each - BATCH
        lines = [json.dumps(one.to_json(), ensure_ascii=False) for one in whole]
        assert to.read_text(encoding="utf-8").splitlines() == lines
        assert not kept.exists()


def test_a_version_of_the_student_answers_as_it_is_judged(tmp_path: Path) -> None:
    root = tmp_path / "p"
    generating_project(root)
    recipe = "name: toy\nsummary: toy\nlosses: [{name: answers}]\ntrust: {policy: all}\n"
    (root / "toy.yaml").write_text(recipe + "optimizer: {lr: 0.01, batch_size: 16, steps: 4}\n", encoding="utf-8")
    add_vlm(root, "first", seed=0)
    distill(reopened(root), Options(cpu=True))
    found = answer_samples(reopened(root), Asked(version="v1", split="calibration", limit=4), Decoding())
    student: Any = load_student(Versions(reopened(root)).get(), reopened(root).catalogue)
    table = load_index(reopened(root))
    chosen = [table.samples[row] for row in table.select(split="calibration")[:4]]
    assert [(one.id, one.reference) for one in found] == [(sample.id, sample.text) for sample in chosen]
    assert [one.text for one in found] == StudentAnswers("v1", student).answer(chosen)
    with raises_error("KD-LABEL-012"):
        answer_samples(reopened(root), Asked(version="v1"), Decoding(), to=root / "registry.yaml")
    with raises_error("KD-EVAL-003", where="limit"):
        Asked(limit=0)
