"""The demo's questions and answers, and the noise in the answers of the training split."""

from __future__ import annotations

import numpy as np

from kdkit.plugins.answers.boxes.codec import BoxCodec
from kdkit.plugins.demo.questions import NO_NOISE, draw_questions, write_box
from kdkit.plugins.demo.teachers import TASKS


def test_four_reproducible_questions_about_each_picture() -> None:
    pictures, questions = draw_questions("mri", "test", seed=4, count=6)
    again, questions_again = draw_questions("mri", "test", seed=4, count=6)
    assert np.array_equal(pictures, again)
    assert questions == questions_again
    assert [one.task for one in questions] == list(TASKS) * 6
    first = {one.task: one for one in questions[:4]}
    box = first["vg"].answer
    assert len(BoxCodec("qwen2-vl").parse(box)) == 1
    assert box in first["roc"].question
    assert box in first["rc"].question
    assert first["roc"].answer == first["vg"].finding == "brain tumor"
    assert first["rc"].answer.startswith("a ")
    assert first["vg"].finding in first["mia"].answer
    other, _ = draw_questions("mri", "train", seed=4, count=6)
    assert not {p.tobytes() for p in pictures} & {p.tobytes() for p in other}


def test_training_answers_have_the_declared_noise() -> None:
    _, noisy = draw_questions("xray", "train", seed=1, count=600)
    _, correct = draw_questions("xray", "train", seed=1, count=600, noise=NO_NOISE)
    wrong = [a.answer != b.answer for a, b in zip(noisy, correct, strict=True) if a.task == "roc"]
    assert 0.11 < np.mean(wrong) < 0.19
    moved = [a.answer != b.answer for a, b in zip(noisy, correct, strict=True) if a.task == "vg"]
    assert 0.22 < np.mean(moved) < 0.34
    assert all(a.question == b.question for a, b in zip(noisy, correct, strict=True))


def test_boxes_are_rounded_to_a_twentieth_and_keep_an_area() -> None:
    assert write_box((0.0, 0.26, 0.51, 1.2)) == "<|box_start|>(0,250),(500,1000)<|box_end|>"
    assert write_box((0.99, 0.3, 1.0, 0.3)) == "<|box_start|>(950,300),(1000,350)<|box_end|>"
