"""A generating model as a teacher: what it gives is what its logits say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdkit.core.contracts import Answering, LossInput, SignalSource, TeacherView
from kdkit.core.contracts.token_signals import compress
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.teachers.open import fingerprint_of
from kdkit.core.teachers.probe import probe
from kdkit.plugins.loaders.generating import GeneratingTeacher, load_generating
from kdkit.plugins.losses.tokens.losses import TokenDistillation
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import PICTURES, SMALL, answer_logits, make, samples, stacked


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("teacher")
    make().save(place)
    return place


def load(folder: Path, **options: object) -> GeneratingTeacher:
    made = load_catalogue().make("loader", "image-text-to-text", folder=folder, **{**SMALL, **options})
    assert isinstance(made, GeneratingTeacher)
    return made


def test_signals_are_the_compressed_logits(folder: Path, tmp_path: Path) -> None:
    teacher, student, chosen = load(folder, k=7), make(), samples(tmp_path)
    assert isinstance(teacher, SignalSource)
    signals = teacher.compute([teacher.prepare(image, s) for image, s in zip(PICTURES, chosen, strict=True)])
    inputs = stacked(student, chosen)
    logits, ids = answer_logits(student, inputs), inputs["answer_ids"]
    assert torch.equal(signals["tokens"].long(), ids)
    expected = compress(logits[ids >= 0], 7)
    for name, wanted in zip(("topk_ids", "topk", "tail"), expected, strict=True):
        torch.testing.assert_close(signals[name][ids >= 0], wanted, rtol=1e-4, atol=1e-4)
    assert bool((signals["topk_ids"][ids < 0] == -100).all())
    for spec in teacher.signals:
        assert signals[spec.name].shape == (3, *spec.shape)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn(folder: Path, tmp_path: Path) -> None:
    teacher, chosen = load(folder, k=7), samples(tmp_path)
    signals = teacher.compute([teacher.prepare(image, s) for image, s in zip(PICTURES, chosen, strict=True)])
    view = TeacherView("same", torch.ones(3), signals, {})
    for student, least, most in ((make(), 0.0, 1e-5), (make(seed=1), 0.1, 100.0)):
        outputs = student(stacked(student, chosen))
        found = float(TokenDistillation()(LossInput(outputs, (view,), torch.zeros(3, dtype=torch.long))).detach())
        assert least <= found + 1e-6 <= most


def test_it_answers_as_the_model_does(folder: Path, tmp_path: Path) -> None:
    teacher, chosen = load(folder), samples(tmp_path)
    assert isinstance(teacher, Answering)
    assert teacher.answer(PICTURES, chosen) == make().answer(PICTURES, chosen)


def test_it_can_be_added(folder: Path) -> None:
    facts = probe(load(folder, k=5), "teacher").signals
    assert facts["topk"].shape == (20, 5)
    assert facts["tokens"].dtype == "int32"


def test_bytes_of_a_token(folder: Path) -> None:
    width = {"int32": 4, "float16": 2}
    size = sum(width[spec.dtype] * torch.Size(spec.shape).numel() for spec in load(folder, k=64).signals)
    assert size / SMALL["max_answer"] == 408  # type: ignore[operator]


def test_bfloat16_is_the_stock_models_and_has_a_fingerprint_of_its_own(folder: Path, tmp_path: Path) -> None:
    half, chosen = load(folder, k=7, dtype="bfloat16"), samples(tmp_path)
    items = [half.prepare(image, s) for image, s in zip(PICTURES, chosen, strict=True)]
    signals, inputs = half.compute(items), stacked(make(), chosen)
    ids = inputs["answer_ids"]
    with torch.no_grad():
        outputs = half.model(inputs)
    assert outputs["output_embedding"].dtype == torch.bfloat16
    logits = outputs["answer_hidden"][ids >= 0].bfloat16() @ outputs["output_embedding"].T
    expected = compress(logits.float(), 7)
    for name, wanted in zip(("topk_ids", "topk", "tail"), expected, strict=True):
        assert torch.equal(signals[name][ids >= 0], wanted), name
    full = load(folder, k=7)
    prints = [
        fingerprint_of({}, "image-text-to-text", options, model.identity())
        for model, options in ((full, {"k": 7}), (half, {"k": 7, "dtype": "bfloat16"}))
    ]
    assert prints[0] != prints[1]


@pytest.mark.parametrize("padded", ["teacher", "student"])
def test_rows_that_only_one_model_has_are_among_the_others(padded: str, tmp_path: Path) -> None:
    """As with 152,064 and 151,936 rows for one tokenizer: the exact divergence over the named tokens and the rest."""
    wide = make(seed=1)
    wide.base.resize_token_embeddings(len(wide.head.weight) + 9, mean_resizing=False)
    wide.save(tmp_path / "wide")
    make(seed=2).save(tmp_path / "narrow")
    folders = {"teacher": tmp_path / "narrow", "student": tmp_path / "narrow", padded: tmp_path / "wide"}
    teacher = load(folders["teacher"], k=12)
    student = load(folders["student"]).model
    assert teacher.identity()["tokenizer"] == student.identity()["tokenizer"]
    chosen = samples(tmp_path)
    signals = teacher.compute([teacher.prepare(image, s) for image, s in zip(PICTURES, chosen, strict=True)])
    inputs = stacked(student, chosen)
    known = inputs["answer_ids"] >= 0
    with torch.no_grad():
        found = TokenDistillation()(
            LossInput(student(inputs), (TeacherView("t", torch.ones(3), signals, {}),), torch.zeros(3).long())
        )
    p, q = (answer_logits(model, inputs)[known].double().softmax(-1) for model in (teacher.model, student))
    assert p.shape[1] != q.shape[1]
    values = []
    for row_p, row_q in zip(p, q, strict=True):
        named = row_p.topk(12).indices
        named = named[named < min(len(row_p), len(row_q))]
        classes = [torch.cat([row[named], 1 - row[named].sum(0, keepdim=True)]) for row in (row_p, row_q)]
        values.append(float((classes[0] * (classes[0] / classes[1]).log()).sum()))
    assert float(found) == pytest.approx(sum(values) / len(values), rel=1e-4)


def test_wrong_options(folder: Path, tmp_path: Path) -> None:
    with raises_error("KD-LOAD-019", where="options.k", mentions=("1",)):
        load_generating(folder, k=0)
    with raises_error("KD-STUD-044", where="options"):  # not the student's config
        load_generating(folder, max_tokens=10**9)
    with raises_error("KD-STUD-025"):
        load_generating(tmp_path)
