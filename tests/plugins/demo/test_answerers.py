"""The demo's teachers that answer: shipped, small, and much better than chance on what they were asked about."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PIL import Image

from kdkit.core.contracts import Decoding
from kdkit.plugins.answers.task import Answers
from kdkit.plugins.demo.answer_training import TrainingPlan, sample_of, train_answerer
from kdkit.plugins.demo.answerers import ANSWERERS, TASKS, Answerer, create_answerer
from kdkit.plugins.demo.questions import draw_questions
from kdkit.plugins.loaders.generating import load_generating


class Given:
    """Answers that are there already."""

    name = "given"

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def answer(self, samples: object) -> list[str]:  # noqa: ARG002  # one domain at a time, in order
        return self._texts


@pytest.mark.parametrize("answerer", ANSWERERS, ids=lambda answerer: answerer.name)
def test_a_shipped_teacher_beats_chance(answerer: Answerer) -> None:
    """Chance: the right answers to other questions of the same task and modality."""
    teacher = load_generating(answerer.folder)
    for modality in answerer.modalities:
        pictures, asked = draw_questions(modality, "calibration", seed=77, count=36)
        samples = [sample_of(one, modality) for one in asked]
        images = [Image.fromarray(pictures[one.picture]) for one in asked]
        said = [found[0].text for found in teacher.answer(images, samples, Decoding(max_new=16, batch_size=72))]
        draw, judge = random.Random(0), Answers(resamples=2)
        for task in TASKS:
            own = [place for place, one in enumerate(asked) if one.task == task]
            part = [samples[place] for place in own]
            guessed = draw.sample([sample.text for sample in part], len(part))
            score, chance = (
                judge.evaluate(Given(texts), part)[0].metrics["accuracy"]
                for texts in ([said[place] for place in own], guessed)
            )
            assert (score - chance) / (1 - chance) > 0.4, (modality, task, score, chance)


def test_the_shipped_teachers_are_small() -> None:
    for answerer in ANSWERERS:
        assert sum(path.stat().st_size for path in answerer.folder.iterdir()) < 2e6


def test_training_leaves_a_folder_that_loads(tmp_path: Path) -> None:
    mini = Answerer("mini", ("endoscopy",), 1, 2)
    train_answerer(mini, tmp_path / "mini", TrainingPlan(pictures=3, batch=4))
    teacher = load_generating(tmp_path / "mini")
    assert {signal.name for signal in teacher.signals} == {"tokens", "topk_ids", "topk", "tail"}
    assert teacher.identity()["tokenizer"] == create_answerer().identity()["tokenizer"]


def test_the_student_takes_what_clinkd_takes() -> None:
    student = create_answerer(rope="mcg-rope", max_answer=20)
    again = create_answerer(**student.config)
    assert again.identity() == student.identity()
    assert "mcg-rope" in student.identity()["rope"]
