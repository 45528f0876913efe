"""A project of conversations, whose turns come together: padded and packed, with the same result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kdkit.core.base.tensors import read_tensors
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.plugins.students.clinkd.packing import Packing
from tests.errors import raises_error
from tests.recorder import Recorder
from tests.toy_project import open_project

WORDS = ["left", "right", "top", "Where", "is", "it"]
STUDENT = {
    "family": "clinkd",
    "config": {
        "sizes": {"hidden": 32, "heads": 2, "kv_heads": 1, "words": WORDS},
        **{"max_tokens": 160, "max_answer": 16, "max_pixels": 3136, "system": ""},
    },
}
REGISTRY: dict[str, Any] = {
    "version": 1,
    "teachers": {},
    "data": [
        {
            "source": "sharegpt",
            "path": "data/dataset_info.json",
            "options": {"task": "vqa", "modality": "ct", "columns": {"split": "split"}},
        }
    ],
    "recipe": "toy.yaml",
    "guard": {"tolerance": 100},
}
RECIPE = """\
name: talks
summary: quick
losses: [{name: answer-ce}]
trust: {policy: all, options: {unmeasured: true}}
sampling: {conversations: together}
optimizer: {lr: 0.005, batch_size: 6, steps: 4}
"""


def make(root: Path) -> None:
    (root / "data").mkdir(parents=True)
    records = []
    for number, split in enumerate(["train"] * 4 + ["calibration", "test"]):
        Image.new("RGB", (56, 56), (40 * number, 0, 20)).save(root / "data" / f"{number}.png")
        said = ("<image>Where is it?", WORDS[number % 3], "Is it?", "it is " * (1 + number), "top?", "left")
        roles = ("user", "assistant") * 3
        messages = [{"role": role, "content": text.strip()} for role, text in zip(roles, said, strict=True)]
        records.append({"messages": messages, "images": [f"{number}.png"], "split": split})
    (root / "data" / "data.json").write_text(json.dumps(records), encoding="utf-8")
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    entry = {"file_name": "data.json", "formatting": "sharegpt", "columns": columns, "tags": tags}
    (root / "data" / "dataset_info.json").write_text(json.dumps({"talks": entry}), encoding="utf-8")
    (root / "toy.yaml").write_text(RECIPE, encoding="utf-8")


def trained(
    root: Path, optimizer: Mapping[str, int], student: Mapping[str, Any] = STUDENT, reporter: Recorder | None = None
) -> dict[str, torch.Tensor]:
    """The weights of a new version."""
    registry = {**REGISTRY, "student": dict(student), "optimizer": dict(optimizer)}
    (root / "registry.yaml").write_text(json.dumps(registry), encoding="utf-8")
    outcome = distill(open_project(root), Options(cpu=True, restart=True), reporter=reporter)
    assert outcome is not None
    return read_tensors(outcome.version.student_folder / "model.safetensors")


def test_packed_the_student_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path)
    said = Recorder()
    plain = trained(tmp_path, {}, reporter=said)
    assert "12 training samples are turns of 4 conversations" in said.lines
    sequences: list[int] = []
    own = Packing.rows

    def noted(self: Packing, network: Any, lengths: Sequence[int], *given: Any) -> Any:
        sequences.append(len(lengths))
        return own(self, network, lengths, *given)

    monkeypatch.setattr(Packing, "rows", noted)
    found = trained(tmp_path, {"pack_tokens": 512})
    # AdamW divides by the size of gradients, so rounding grows; its steps add up to 0.02.
    assert max(float((found[name] - x).abs().max()) for name, x in plain.items()) < 1e-4
    # Tried when it is planned and when it is built; then each batch of six samples has two conversations.
    assert sequences[:6] == [3, 3, 2, 2, 2, 2]


def test_a_student_that_cannot_pack_is_refused_before_it_is_trained(tmp_path: Path) -> None:
    make(tmp_path)
    with raises_error("KD-DIST-550"):
        trained(tmp_path, {"pack_tokens": 512}, {"family": "toy", "config": {"width": 12}})
