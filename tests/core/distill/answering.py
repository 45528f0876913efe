"""A project with a tiny Qwen2-VL-shaped student: v1 answers about two domains; a third one can be added."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdkit.core.distill.options import Options
from kdkit.core.distill.promotion import Outcome
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project
from tests.toy_project import make_project, open_project, write_images

STUDENT = {
    "family": "clinkd",
    "config": {
        "sizes": {"hidden": 32, "heads": 2, "kv_heads": 1, "layers": 1, "vision_layers": 1},
        **{"max_tokens": 64, "max_answer": 28, "max_pixels": 56 * 56, "system": ""},
    },
}
RECIPE = """\
name: answering
summary: quick
losses: [{name: answer-ce}]
trust: {policy: all}
optimizer: {lr: 0.01, batch_size: 12, steps: 60}
increment: {replay: 0.5, steps: 0.25}
"""
QUESTION = "<image>What?"


def make_answering_project(root: Path, domains: Sequence[str] = ("ct", "mri")) -> Project:
    """The project with v1, which learned its answers without a teacher."""
    make_project(root, teachers={}, domains=domains, train=6, held_out=4)
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8").replace("{family: toy, config: {width: 12}}", json.dumps(STUDENT))
    registry.write_text(text.replace("tolerance: 10", "tolerance: 100"), encoding="utf-8")
    manifest = root / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    manifest.write_text("".join(map(_line, rows)), encoding="utf-8")
    write_recipe(root)
    increment(root, incremental=False)
    return open_project(root)


def add_domain(root: Path, domain: str = "xray") -> None:
    """Samples of a domain that v1 has not seen."""
    rows = write_images(root / "images", (domain,), train=6, held_out=4, seed=1)
    with open(root / "images" / "samples.jsonl", "a", encoding="utf-8") as manifest:
        manifest.writelines(map(_line, rows))


def write_recipe(root: Path, **increment: Any) -> None:
    """The recipe, with a changed ``increment``."""
    own = json.dumps({"replay": 0.5, "steps": 0.25, **increment})
    text = RECIPE.replace("{replay: 0.5, steps: 0.25}", own)
    (root / "toy.yaml").write_text(text, encoding="utf-8")


def increment(root: Path, *, incremental: bool = True, reporter: Any = None, **options: Any) -> Outcome:
    outcome = distill(open_project(root), Options(cpu=True, incremental=incremental, **options), reporter=reporter)
    assert outcome is not None
    return outcome


def _line(row: dict[str, Any]) -> str:
    extra = {"task": "vqa", "messages": [{"role": "user", "content": QUESTION}]}
    return json.dumps({**row, "text": f"{row['domain']}: {row['label']}", "extra": extra}) + "\n"
