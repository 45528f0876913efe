"""A generating model as a teacher: what it gives is what its logits say."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kdkit.core.contracts import Answering, LossInput, SignalSource, TeacherView
from kdkit.core.contracts.token_signals import compress
from kdkit.core.plugin_system.discovery import load_catalogue
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


def test_wrong_options(folder: Path, tmp_path: Path) -> None:
    with raises_error("KD-LOAD-019", where="options.k", mentions=("1",)):
        load_generating(folder, k=0)
    with raises_error("KD-STUD-025"):
        load_generating(tmp_path)
