"""Tiny students of both families, samples with one and two images, and what stock transformers makes of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from kdkit.core.contracts import Sample
from kdkit.plugins.students.clinkd.create import create_student
from kdkit.plugins.students.clinkd.student import ClinkdStudent

FAMILIES = ("qwen2_vl", "qwen2_5_vl")
ROPES = ("rope-1d", "rope-2d", "mrope", "mrope-interleaved", "videorope", "mcg-rope", "clinkd-repo")
WORDS = ["lung", "nodule", "Where", "is", "the", "box"]
SIZES = {"hidden": 32, "heads": 2, "kv_heads": 1, "words": WORDS}
SMALL = {"max_tokens": 96, "max_answer": 20, "max_images": 2, "max_pixels": 2 * 56 * 56, "system": ""}


def make(family: str = "qwen2_vl", *, seed: int = 0, **config: Any) -> ClinkdStudent:
    """A student in eval mode, far enough from its first weights that positions matter."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sizes = {} if "init" in config else {"sizes": {**SIZES, "family": family}}
        student = create_student(**{**SMALL, **sizes, **config})
        if "init" not in config:
            enlarge(student.base)
    return student.eval()


def enlarge(network: Any) -> None:
    """Weights as large as those of a trained network; the first ones make attention blind to positions."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                parameter.mul_(20 if "embed_tokens" in name else 6)


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    noise = random.Random(seed)
    return Image.frombytes("RGB", (width, height), noise.randbytes(width * height * 3))


def sample(text: str, question: str = "<image>Where is the lung?", **extra: Any) -> Sample:
    messages = [{"role": "user", "content": question}]
    return Sample(id=f"s-{text}", image=Path("x.png"), text=text, domain="vg/ct", extra={"messages": messages, **extra})


PICTURES = [picture(112, 56), picture(56, 84, 1), picture(30, 30, 2)]


def samples(folder: Path) -> list[Sample]:
    """Prompts of different lengths; the second one has two images and a conversation."""
    picture(84, 28, 3).save(folder / "second.png")
    conversation = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<image> and <image>"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Where is the box?"},
    ]
    return [
        sample("(12,30),(70,88)"),
        sample("the lung", messages=conversation, images=[folder / "second.png"]),
        sample("nodule", "Zebra! <image>"),
    ]


def stacked(student: ClinkdStudent, chosen: Sequence[Sample]) -> dict[str, Tensor]:
    rows = [student.prepare(image, s) for image, s in zip(PICTURES, chosen, strict=False)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def answer_logits(student: ClinkdStudent, inputs: dict[str, Tensor]) -> Tensor:
    """(B, A, V)."""
    with torch.no_grad():
        outputs = student(inputs)
        logits: Tensor = outputs["answer_hidden"] @ outputs["output_embedding"].T
    return logits


def stock_arguments(student: ClinkdStudent, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch as stock transformers takes it, without position ids."""
    from kdkit.plugins.students.clinkd.prepare import network_images

    size = int(inputs["length"].max())
    ids = inputs["tokens"][:, :size]
    mask = (torch.arange(size) < inputs["length"][:, None]).long()
    kinds = (ids == student.base.config.image_token_id).int()
    images = network_images(student.preparation.images, inputs)
    return {"input_ids": ids, "attention_mask": mask, "mm_token_type_ids": kinds, **images}
