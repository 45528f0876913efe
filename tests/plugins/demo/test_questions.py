"""The demo's questions: boxes are where the findings are, answers say what was drawn, slips are as often as said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdkit.plugins.answers.boxes.codec import BoxCodec
from kdkit.plugins.demo.answerers import TASKS
from kdkit.plugins.demo.images import DOMAINS, FINDINGS, PLACED, SIZE, render, render_placed
from kdkit.plugins.demo.questions import MODALITIES, NO_SLIPS, draw_questions, question_words, write_box
from kdkit.plugins.demo.source import read_questions
from tests.errors import raises_error

PAIRS = [(modality, finding) for modality in MODALITIES for finding in PLACED[modality]]
BRIGHTNESS = {
    "ct": 61.1,
    "mri": 61.17,
    "xray": 158.6,
    "ultrasound": 78.64,
    "fundus": 81.09,
    "dermoscopy": 158.61,
    "histology": 192.88,
    "endoscopy": 121.22,
    "oct": 57.9,
}


def test_the_pictures_are_those_of_before_boxes_were_known() -> None:
    """Mean levels (0 to 255) of 40 pictures of every finding, as they were; random draws in another order show."""
    for domain in DOMAINS:
        levels = [render(domain, finding, np.random.default_rng(11), 40).mean() for finding in FINDINGS[domain]]
        assert np.mean(levels) == pytest.approx(BRIGHTNESS[domain], abs=0.01)


@pytest.mark.parametrize(("modality", "finding"), PAIRS)
def test_a_box_comes_with_the_same_picture(modality: str, finding: str) -> None:
    pictures, boxes = render_placed(modality, finding, np.random.default_rng(3), 6)
    assert np.array_equal(pictures, render(modality, finding, np.random.default_rng(3), 6))
    assert boxes.shape == (6, 4)
    assert ((boxes >= 0) & (boxes <= 1)).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 2 / SIZE).all()


@pytest.mark.parametrize(
    ("modality", "finding", "channel", "sign"),
    [
        ("mri", "brain tumor", 0, 1),
        ("mri", "ischemic stroke", 0, 1),
        ("ultrasound", "simple cyst", 0, -1),
        ("ultrasound", "gallstone", 0, 1),
        ("dermoscopy", "benign nevus", 1, -1),
        ("dermoscopy", "basal cell carcinoma", 1, -1),
        ("endoscopy", "polyp", 1, 1),
        ("endoscopy", "bleeding", 1, -1),
        ("fundus", "retinal hemorrhage", 1, -1),
        ("fundus", "glaucoma", 2, 1),
        ("ct", "pulmonary nodule", 0, 1),
    ],
)
def test_the_finding_is_in_its_box(modality: str, finding: str, channel: int, sign: int) -> None:
    """The middle of the box is brighter (or darker) than a frame around the box, in nearly all pictures."""
    pictures, boxes = render_placed(modality, finding, np.random.default_rng(5), 100)
    right = 0
    for picture, box in zip(pictures[..., channel].astype(float), np.rint(boxes * SIZE).astype(int), strict=True):
        x1, y1, x2, y2 = box
        w, h = (x2 - x1) // 4, (y2 - y1) // 4
        middle = picture[y1 + h : y2 - h, x1 + w : x2 - w]
        wide = np.zeros_like(picture, dtype=bool)
        wide[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3] = True
        wide[y1:y2, x1:x2] = False
        right += sign * (middle.mean() - picture[wide].mean()) > 0
    assert right >= 85


def test_a_finding_without_a_place_has_no_box() -> None:
    with pytest.raises(ValueError, match="no finding 'emphysema' with a place"):
        render_placed("ct", "emphysema", np.random.default_rng(0), 1)


def test_four_questions_about_each_picture_and_the_same_again() -> None:
    pictures, asked = draw_questions("mri", "test", seed=4, count=6)
    again, asked_again = draw_questions("mri", "test", seed=4, count=6)
    assert np.array_equal(pictures, again)
    assert asked == asked_again
    assert [one.task for one in asked] == list(TASKS) * 6
    first = {one.task: one for one in asked[:4]}
    box = first["vg"].answer
    assert len(BoxCodec("qwen2-vl").parse(box)) == 1
    assert box in first["roc"].question
    assert box in first["rc"].question
    assert first["roc"].answer == first["vg"].finding == "brain tumor"
    assert first["rc"].answer.startswith("a ")
    assert "brain tumor in the" in first["mia"].answer
    other, _ = draw_questions("mri", "train", seed=4, count=6)
    assert not {p.tobytes() for p in pictures} & {p.tobytes() for p in other}


def test_labels_of_the_training_split_slip_as_often_as_said() -> None:
    _, hurried = draw_questions("xray", "train", seed=1, count=600)
    _, careful = draw_questions("xray", "train", seed=1, count=600, slips=NO_SLIPS)
    wrong = [a.answer != b.answer for a, b in zip(hurried, careful, strict=True) if a.task == "roc"]
    assert 0.11 < np.mean(wrong) < 0.19
    moved = [a.answer != b.answer for a, b in zip(hurried, careful, strict=True) if a.task == "vg"]
    assert 0.22 < np.mean(moved) < 0.34
    assert all(a.question == b.question for a, b in zip(hurried, careful, strict=True))


def test_boxes_are_written_to_a_twentieth_and_never_without_area() -> None:
    assert write_box((0.0, 0.26, 0.51, 1.2)) == "<|box_start|>(0,250),(500,1000)<|box_end|>"
    assert write_box((0.99, 0.3, 1.0, 0.3)) == "<|box_start|>(950,300),(1000,350)<|box_end|>"


def test_every_word_is_one_token() -> None:
    from kdkit.plugins.demo.answerers import create_answerer

    tokens = create_answerer().preparation.tokens
    assert [word for word in question_words() if len(tokens.encode(word)) > 1] == []
    assert len(tokens.encode("<|box_start|>(100,250),(500,750)<|box_end|>")) == 11


def test_the_source_draws_once_and_refuses_other_options(tmp_path: Path) -> None:
    sizes = {"seed": 3, "train": 4, "calibration": 3, "test": 2}
    samples = list(read_questions(tmp_path / "data", domains=["endoscopy"], **sizes))
    assert len(samples) == 4 * (4 + 3 + 2)
    assert {sample.domain for sample in samples} == {f"{task}/endoscopy" for task in TASKS}
    assert all(sample.image.is_file() for sample in samples)
    assert samples[0].extra["box_family"] == "qwen2-vl"
    assert [s.id for s in read_questions(tmp_path / "data", domains=["endoscopy"], **sizes)] == [s.id for s in samples]
    with raises_error("KD-DEMO-003"):
        read_questions(tmp_path / "data", domains=["endoscopy"], **{**sizes, "seed": 4})
    with raises_error("KD-DEMO-001", where="source 'procedural-questions'", mentions=("'histology'",)):
        read_questions(tmp_path / "other", domains=["histology"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    (tmp_path / "mine").mkdir()
    with raises_error("KD-DEMO-002") as caught:
        read_questions(tmp_path / "mine", domains=["endoscopy"], **sizes)
    assert "delete" not in caught.value.fix
