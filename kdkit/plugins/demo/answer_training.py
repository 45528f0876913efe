"""Train a tiny teacher to answer questions about made-up pictures and save it as a Qwen2-VL folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from kdkit.core.contracts import Sample
from kdkit.plugins.demo.answerers import INPUTS, Answerer, model_sizes
from kdkit.plugins.demo.questions import NO_SLIPS, Asked, draw_questions
from kdkit.plugins.demo.teachers import WEIGHTS
from kdkit.plugins.students.clinkd.create import create_student
from kdkit.plugins.students.clinkd.network import read_network
from kdkit.plugins.students.clinkd.student import ClinkdStudent

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
    """Of each of its modalities; their answers are without slips."""
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
        drawn, asked = draw_questions(modality, "train", seed=answerer.seed, count=pictures, slips=NO_SLIPS)
        images = [Image.fromarray(picture) for picture in drawn]
        items += [model.prepare(images[one.picture], sample_of(one, modality)) for one in asked]
    return {name: torch.stack([item[name] for item in items]) for name in items[0]}


def sample_of(asked: Asked, modality: str) -> Sample:
    """A question as the source ``procedural-questions`` gives it, without a file."""
    messages: Sequence[Any] = [{"role": "user", "content": f"<image>{asked.question}"}]
    extra = {"task": asked.task, "messages": messages, "box_family": "qwen2-vl"}
    return Sample(asked.id, Path(), asked.answer, f"{asked.task}/{modality}", asked.finding, extra=extra)


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
