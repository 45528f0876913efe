"""Train the demo's two teachers that answer questions again, and print how good they are. Minutes of one core each.

python benchmarks/train_demo_answerers.py [NAME ...] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from kdkit.core.contracts import Decoding, Sample
from kdkit.plugins.answers.task import Answers
from kdkit.plugins.demo.answer_training import sample_of, train_answerer
from kdkit.plugins.demo.answerers import ANSWERERS, TASKS
from kdkit.plugins.demo.questions import draw_questions
from kdkit.plugins.demo.teachers import WEIGHTS
from kdkit.plugins.loaders.generating import GeneratingTeacher, load_generating

EXAM_SEED, EXAM_PICTURES = 7_000, 60


class Said:
    """Answers as a view for the task."""

    name = "teacher"

    def __init__(self, answers: dict[str, str]) -> None:
        self._answers = answers

    def answer(self, samples: Sequence[Sample]) -> list[str]:
        return [self._answers[sample.id] for sample in samples]


def main() -> None:
    """Train the named teachers (all by default), then examine them on pictures that they have not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="teachers to train (default: all)")
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="where to write them (default: the package data)")
    parser.add_argument("--examine", action="store_true", help="only examine those that are there")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'teacher':8} {'cpu_s':>6} {'modality':>12} " + " ".join(f"{task:>6}" for task in TASKS))
    for answerer in ANSWERERS:
        if given.names and answerer.name not in given.names:
            continue
        started = time.process_time()
        if not given.examine:
            train_answerer(answerer, given.folder / answerer.name)
        spent = time.process_time() - started
        teacher = load_generating(given.folder / answerer.name)
        for modality in dict.fromkeys(modality for one in ANSWERERS for modality in one.modalities):
            scores = examine(teacher, modality)
            print(f"{answerer.name:8} {spent:6.0f} {modality:>12} " + " ".join(f"{s:6.3f}" for s in scores), flush=True)


def examine(teacher: GeneratingTeacher, modality: str) -> list[float]:
    """``accuracy`` of each task on fresh pictures of one modality."""
    drawn, asked = draw_questions(modality, "calibration", seed=EXAM_SEED, count=EXAM_PICTURES)
    samples = [sample_of(one, modality) for one in asked]
    images = [Image.fromarray(drawn[one.picture]) for one in asked]
    said = teacher.answer(images, samples, Decoding(max_new=16, batch_size=60))
    view = Said({sample.id: answers[0].text for sample, answers in zip(samples, said, strict=True)})
    return [score.metrics["accuracy"] for score in Answers(resamples=2).evaluate(view, samples)]


if __name__ == "__main__":
    main()
