"""A project whose teacher is behind an endpoint: it knows the answers of ``ct`` and none of ``mri``."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from kdkit.core.data import load_index
from kdkit.core.features.extract.missing import extract_missing
from kdkit.core.project.project import Project
from kdkit.core.teachers.add import add_teacher
from tests.journeys.test_generating_student import generating_project, reopened
from tests.local_endpoint import LocalEndpoint, Reply
from tests.toy_project import write_images
from tests.toy_vlm import answer_tokens, caption_of

QUESTION = "<image>What is it?"
UNSURE = 0.3
"""Probability of each token of every third answer; 0.9 of the others."""


class Oracle:
    """Answers by the pixels of the picture. ``open`` counts requests with the open question."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[str, float]] = {}
        self.open = 0

    def learn(self, folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        for number, row in enumerate(rows):
            text = caption_of(answer_tokens(row["caption"])) if row["domain"] == "ct" else "no idea"
            sure = UNSURE if number % 3 == 0 else 0.9
            self.known[_digest((folder / row["image"]).read_bytes())] = (text, sure)

    def __call__(self, body: Mapping[str, Any]) -> Reply:
        from math import log

        parts = body["messages"][-1]["content"]
        content = base64.b64decode(parts[0]["image_url"]["url"].partition(",")[2])
        self.open += parts[-1]["text"] == "What is it?"
        text, sure = self.known.get(_digest(content), ("nothing", 0.5))
        return [(text, [log(sure)] * len(text.split()))]


def _digest(content: bytes) -> str:
    with Image.open(io.BytesIO(content)) as image:
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


def make(root: Path, endpoint: LocalEndpoint, oracle: Oracle, *, extracted: bool = True) -> Project:
    """The toy project with open questions of both domains, 9 each."""
    generating_project(root, ("ct", "mri"), held_out=4)
    images = root / "images"
    lines = [json.loads(line) for line in (images / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
    oracle.learn(images, [{**row, "caption": row["text"]} for row in lines])
    new = write_images(images, ("ct", "mri"), train=3, held_out=0, seed=7)
    oracle.learn(images, [{**row, "caption": row["text"]} for row in new])
    extra = {"task": "vqa", "messages": [{"role": "user", "content": QUESTION}]}
    questions = [{**{k: v for k, v in row.items() if k not in ("text", "label")}, "extra": extra} for row in new]
    (images / "open.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions), encoding="utf-8")
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    entry = "  - {source: jsonl, path: images/samples.jsonl}\n"
    assert entry in text
    text = text.replace(entry, entry + "  - {source: jsonl, path: images/open.jsonl}\n")
    text += "trust: {policy: threshold, options: {value: 0.8}}\n"
    registry.write_text(text, encoding="utf-8")
    folder = root / "models" / "remote"
    folder.mkdir(parents=True)
    content = {"endpoint": endpoint.url, "model": "big"}
    (folder / "endpoint.json").write_text(json.dumps(content), encoding="utf-8")
    add_teacher(reopened(root), "remote", {"from": "local:models/remote", "license": "mit"})
    if extracted:
        extract_missing(reopened(root), load_index(reopened(root)))
    return reopened(root)
