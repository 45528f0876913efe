"""Train the demo's two teachers that answer questions again, and print how good they are. Minutes of one core each.

python benchmarks/train_demo_answerers.py [NAME ...] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from kdkit.core.contracts import Decoding, Sample
from kdkit.plugins.answers.task import Answers
from kdkit.plugins.demo.questions import NO_NOISE, Question, draw_questions
from kdkit.plugins.demo.student import INPUTS, model_sizes
from kdkit.plugins.demo.teachers import ANSWERERS, TASKS, WEIGHTS, Answerer
from kdkit.plugins.loaders.generating import GeneratingTeacher, load_generating
from kdkit.plugins.students.clinkd.create import create_student
from kdkit.plugins.students.clinkd.network import read_network
from kdkit.plugins.students.clinkd.student import ClinkdStudent

EXAM_SEED, EXAM_PICTURES = 7_000, 60
CARD = """\
---
license: apache-2.0
---
A stand-in for a specialist that answers questions, of Qwen2-VL's architecture with 0.55 million parameters, made by
kdkit's benchmarks/train_demo_answerers.py from pictures that a program draws. It knows nothing about real images.
"""
WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How a teacher is trained; one that goes on from another's weights learns at half the ``rate``."""

    pictures: int = 1500
    """Of each of its modalities; with correct answers."""
    steps: int | None = None
    """Batches seen; by default as many as the teacher asks for."""
    batch: int = 48
    rate: float = 3e-3
    warm: int = 100


def train_answerer(answerer: Answerer, folder: Path, plan: TrainingPlan | None = None) -> None:
    """Train one teacher and leave it in ``folder``, with weights in half precision."""
    plan = plan or TrainingPlan()
    torch.manual_seed(answerer.seed)
    sizes = model_sizes(hidden=96, layers=3, vision_hidden=64)
    model = create_student(sizes=sizes, freeze_vision=False, **INPUTS)
    if answerer.start:
        model.base.load_state_dict(read_network(WEIGHTS / answerer.start, "float32").state_dict())
    inputs = own_inputs(model, answerer, plan.pictures)
    rate = plan.rate / 2 if answerer.start else plan.rate
    _fit(model, inputs, steps=plan.steps or answerer.steps, batch=plan.batch, rate=rate, warm=plan.warm)
    model.eval().save(folder)
    halves = {name: value.half().contiguous() for name, value in load_file(folder / WEIGHTS_FILE).items()}
    save_file(halves, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    (folder / "README.md").write_text(CARD, encoding="utf-8")


def own_inputs(model: ClinkdStudent, answerer: Answerer, pictures: int) -> dict[str, Tensor]:
    """The prepared questions of the teacher's own training data, stacked."""
    items = []
    for modality in answerer.modalities:
        drawn, asked = draw_questions(modality, "train", seed=answerer.seed, count=pictures, noise=NO_NOISE)
        images = [Image.fromarray(picture) for picture in drawn]
        items += [model.prepare(images[one.picture], sample_of(one, modality)) for one in asked]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def sample_of(question: Question, modality: str) -> Sample:
    """A question as the source ``procedural-questions`` gives it, without a file."""
    messages = [{"role": "user", "content": f"<image>{question.question}"}]
    extra = {"task": question.task, "messages": messages, "box_family": "qwen2-vl"}
    return Sample(question.id, Path(), question.answer, f"{question.task}/{modality}", question.finding, extra=extra)


def _fit(model: ClinkdStudent, inputs: dict[str, Tensor], *, steps: int, batch: int, rate: float, warm: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.02)
    model.train()
    for step in range(steps):
        now = rate * min(1.0, (step + 1) / warm) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = now
        chosen = torch.randint(len(inputs["tokens"]), (batch,))
        made = model({name: values[chosen] for name, values in inputs.items()})
        known = made["answer_ids"] >= 0
        loss = F.cross_entropy(made["answer_hidden"][known] @ made["output_embedding"].T, made["answer_ids"][known])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


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
