"""A project of a tiny student that answers, is corrected while it is trained, and has a teacher behind a server."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from kdkit.cli.console import Lines
from kdkit.core.artifacts.admit import add_teacher
from kdkit.core.distill.run import Options, distill
from kdkit.core.workspace import Workspace
from tests.plugins.students.clinkd.tiny import make

WORDS = ["left", "right", "top", "Where", "is", "it", "It"]
SIZES = {"hidden": 32, "heads": 2, "kv_heads": 1, "words": WORDS}
BOX = "<box>(0,0),(250,250)</box>"
STUDENT = {"sizes": SIZES, "max_tokens": 112, "max_answer": 48, "max_pixels": 3136, "system": ""}
REGISTRY = f"""\
version: 1
student: {{family: clinkd, config: {json.dumps(STUDENT)}}}
teachers: {{}}
data:
  - {{source: jsonl, path: data/samples.jsonl}}
recipe: ./corrected.yaml
"""
RECIPE = """\
name: corrected
summary: quick
losses: [{name: answer-ce}, {name: token-kd}]
trust: {policy: all, options: {unmeasured: true}}
optimiser: {lr: 0.003, batch_size: 4, steps: %d}
"""


def make_project(root: Path, correction: Mapping[str, Any] | None, *, steps: int = 14, train: int = 24) -> Workspace:
    """``train`` training samples, every fourth one about a box; its teacher ``first`` is another tiny model."""
    (root / "data").mkdir(parents=True)
    rows = [_row(root / "data", number, "train") for number in range(train)]
    rows += [_row(root / "data", train + number, "calibration") for number in range(4)]
    (root / "data" / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    set_correction(root, correction, steps=steps)
    make(seed=1, sizes=SIZES, max_tokens=112, max_answer=48, system="").save(root / "models" / "first")
    add_teacher(Workspace(root), "first", {"from": "local:models/first", "loader": "qwen2-vl", "license": "mit"})
    return Workspace(root)


def set_correction(root: Path, correction: Mapping[str, Any] | None, *, steps: int = 14) -> None:
    part = "" if correction is None else f"correction: {json.dumps(correction)}\n"
    (root / "corrected.yaml").write_text(RECIPE % steps + part, encoding="utf-8")


def add_server(root: Path, url: str, **settings: Any) -> None:
    """The teacher ``remote``, which only answers."""
    folder = root / "models" / "remote"
    folder.mkdir(parents=True)
    content = {"endpoint": url, "model": "big", "tries": 2, **settings}
    (folder / "endpoint.json").write_text(json.dumps(content), encoding="utf-8")
    add_teacher(Workspace(root), "remote", {"from": "local:models/remote", "license": "mit"})


def reference_of(body: Mapping[str, Any]) -> str:
    """The right answer, out of a request to a corrector; empty out of the question that adding a teacher asks."""
    text = str(body["messages"][-1]["content"])
    return text.partition("right answer is: ")[2].partition("\n")[0]


def number_of(body: Mapping[str, Any]) -> int:
    """Of the sample, out of a request to a corrector."""
    return int(str(body["messages"][0]["content"][-1]["text"]).rpartition(" ")[2])


def _row(folder: Path, number: int, split: str) -> dict[str, Any]:
    name = f"{number}.png"
    Image.new("RGB", (56, 56), (8 * number, 255 - 8 * number, 99)).save(folder / name)
    task, text = ("vg", BOX) if number % 4 == 3 else ("vqa", WORDS[number % 3])
    extra = {"task": task, "messages": [{"role": "user", "content": f"<image>Where is it {number}"}]}
    return {"id": f"s{number:02}", "image": name, "text": text, "domain": f"{task}/ct", "split": split, "extra": extra}


def main() -> None:
    """``python -m tests.core.distill.corrected FOLDER``: distil the project in a process of its own."""
    distill(Workspace(Path(sys.argv[1])), Options(cpu=True), reporter=Lines(every=0.0))


if __name__ == "__main__":
    main()
