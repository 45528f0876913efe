"""Tiny models of every family, their students here, and the inputs that stock transformers makes of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from torch import Tensor

from kdkit.core.contracts import Sample
from kdkit.plugins.students.clinkd.create import create_student
from kdkit.plugins.students.clinkd.families.known import FAMILIES
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from tests.plugins.students.clinkd.hub import BLANKS, SPECIAL, TEMPLATES, write_model
from tests.plugins.students.clinkd.tiny import PICTURES, picture, sample

NAMES = tuple(SPECIAL)
DISTINCT = tuple(name for name in NAMES if name != "idefics3")
"""Idefics3 is SmolVLM's spec under another type."""
PROCESSED = tuple(TEMPLATES)
LIMITS: dict[str, Any] = {"max_tokens": 160, "max_answer": 20, "max_images": 2}


@cache
def folder_of(family: str) -> Path:
    if family == "smolvlm":
        pytest.importorskip("num2words")
    return write_model(family, Path(mkdtemp()) / family)


def create(family: str, folder: Path | None = None, **config: Any) -> ClinkdStudent:
    pixels = {"max_pixels": 2 * 56 * 56} if FAMILIES[family].reader == "chatml" else {}
    return create_student(init=str(folder or folder_of(family)), **{**LIMITS, **pixels, **config}).eval()


@cache
def student_of(family: str) -> ClinkdStudent:
    return create(family)


@cache
def stock_of(family: str) -> Any:
    return transformers.AutoModelForImageTextToText.from_pretrained(folder_of(family)).eval()


def samples() -> list[Sample]:
    """One and two images, a conversation, prompts of different lengths."""
    second = Path(mkdtemp()) / "second.png"
    picture(84, 28, 3).save(second)
    conversation = [
        {"role": "user", "content": "<image> and <image>"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Where is the box?"},
    ]
    return [
        sample("(12,30)", "<image>Where is the lung?"),
        sample("the lung", messages=conversation, images=[second]),
        sample("nodule", "<image>\nZebra!"),
    ]


def images_of(number: int, one: Sample) -> list[Image.Image]:
    return [PICTURES[number], *(Image.open(path) for path in one.extra.get("images", ()))]


def stock_inputs(family: str, number: int, one: Sample, answer: str, folder: Path | None = None) -> dict[str, Tensor]:
    """The sample as the folder's own processor makes it, with its answer if there is one."""
    processor = transformers.AutoProcessor.from_pretrained(folder or folder_of(family))
    messages = []
    for message in one.extra["messages"]:
        content: list[dict[str, Any]] = []
        for place, text in enumerate(message["content"].split("<image>")):
            content += [{"type": "image"}] * (place > 0)
            content += [{"type": "text", "text": text}] if text else []
        messages.append({"role": message["role"], "content": content})
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    bos = processor.tokenizer.bos_token
    plain = {"add_special_tokens": False} if bos and text.startswith(bos) else {}
    pictures = [image.convert("RGB") for image in images_of(number, one)]
    text += BLANKS.get(family, "") + answer if answer else ""
    found = processor(text=[text], images=[pictures], return_tensors="pt", **plain)
    return {name: x for name, x in found.items() if name not in ("rows", "cols")}


def qwen_inputs(family: str, number: int, one: Sample) -> dict[str, Tensor]:
    """Of the family without a processor here: its inputs, without positions."""
    student = student_of(family)
    row = {name: x[None] for name, x in student.prepare(PICTURES[number], one).items()}
    size = int(row["length"])
    ids = row["tokens"][:, :size]
    given = student.preparation.arguments(row, size)
    del given["position_ids"]
    kinds = (ids == student.base.config.image_token_id).int()
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": kinds, **given}


def positions_in(network: Any, family: str, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Logits, and the position ids that the language tower turned by."""
    seen: list[Tensor] = []
    language = getattr(network.model, FAMILIES[family].language)

    def note(_: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["position_ids"] if "position_ids" in kwargs else args[1])

    hook = language.rotary_emb.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            return network(**inputs, use_cache=False).logits, seen[0]
    finally:
        hook.remove()


def qwen_prompt(family: str, number: int, one: Sample) -> dict[str, Tensor]:
    whole = qwen_inputs(family, number, one)
    start = int(student_of(family).prepare(PICTURES[number], one)["start"])
    cut = ("input_ids", "attention_mask", "mm_token_type_ids")
    return {name: x[:, :start] if name in cut else x for name, x in whole.items()}


def lengthened(given: dict[str, Tensor], ids: Tensor) -> dict[str, Tensor]:
    """A prompt with an answer behind it."""
    made = dict(given)
    made["input_ids"] = torch.cat([given["input_ids"], ids], dim=1)
    made["attention_mask"] = torch.ones_like(made["input_ids"])
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in given:
            made[name] = torch.cat([given[name], torch.zeros_like(ids)], dim=1)
    if "cross_attention_mask" in given:
        mask = given["cross_attention_mask"]
        made["cross_attention_mask"] = torch.cat([mask, mask[:, -1:].expand(-1, ids.shape[1], -1, -1)], dim=1)
    return made
