"""Adapters in other towers than the language tower, and implementations of attention."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from kdkit.plugins.students.clinkd.create import load_student
from kdkit.plugins.students.clinkd.families.known import FAMILIES
from tests.errors import raises_error
from tests.plugins.students.clinkd.stock import (
    PROCESSED,
    create,
    folder_of,
    qwen_inputs,
    samples,
    stock_inputs,
    student_of,
)
from tests.plugins.students.clinkd.tiny import answer_logits, stacked

ALL = {"r": 2, "towers": ["language", "vision", "projector"]}


@pytest.mark.parametrize("family", ["qwen3_vl", "internvl", "mllama"])
def test_adapters_in_all_towers_are_pefts(family: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    student, spec = create(family, lora=ALL), FAMILIES[family]
    adapted = [name for name, p in student.named_parameters() if p.requires_grad]
    assert all("lora_" in name for name in adapted)
    vision = [name for name in adapted if f"model.{spec.vision}." in name]
    merger = [name for name in vision if any(f".{part}" in name for part in spec.trained)]
    others = [name for name in adapted if f".{spec.language}." not in name and name not in vision]
    assert len(vision) > len(merger)
    assert merger or others, "the projector"
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    student.save(tmp_path)
    one = samples()[0]
    inputs = stacked(student, [one])
    found = answer_logits(student, inputs)
    assert float((found - answer_logits(student_of(family), inputs)).abs().max()) > 1e-3
    assert torch.equal(answer_logits(load_student(tmp_path), inputs), found)
    given = stock_inputs(family, 0, one, one.text) if family in PROCESSED else qwen_inputs(family, 0, one)
    fresh = transformers.AutoModelForImageTextToText.from_pretrained(folder_of(family))
    theirs: Any = peft.PeftModel.from_pretrained(fresh, tmp_path).eval()
    with torch.no_grad():
        first = theirs(**given).logits[0, int(inputs["start"][0]) - 1]
    assert float((first - found[0, 0]).abs().max()) <= 1e-6


def test_towers_that_cannot_take_adapters() -> None:
    with raises_error("KD-STUD-434", mentions=("projector", "gemma3")):
        create("gemma3", lora=ALL)
    with raises_error("KD-STUD-436", mentions=("'eyes'",)):
        create("gemma3", lora={"towers": ["eyes"]})
    with raises_error("KD-STUD-042"):
        create("gemma3", lora={"towers": []})


def test_implementations_of_attention() -> None:
    eager = create("internvl", attn_implementation="eager")
    assert eager.base.config._attn_implementation == "eager"
    inputs = stacked(eager, samples())
    assert torch.allclose(answer_logits(eager, inputs), answer_logits(student_of("internvl"), inputs), atol=1e-4)
    with raises_error("KD-STUD-435", mentions=("'fast'",)):
        create("internvl", attn_implementation="fast")


@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is not None, reason="flash_attn is installed")
def test_an_implementation_that_is_not_installed() -> None:
    with raises_error("KD-STUD-433", mentions=("FlashAttention",)):
        create("internvl", attn_implementation="flash_attention_2")
