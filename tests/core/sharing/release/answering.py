"""Projects whose student answers: pictures with a white square, and where it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project
from kdkit.core.project.versions import Version, Versions, load_student
from tests.plugins.students.clinkd.tiny import make, picture
from tests.plugins.students.clinkd.tiny import sample as question
from tests.toy_project import open_project

WORDS = ["left", "right", "top", "Where", "is", "it"]
PLACES = {"left": (0, 14), "right": (42, 14), "top": (14, 0)}
SMALL = {"max_tokens": 160, "max_answer": 16, "max_pixels": 3136, "max_images": 2, "system": "Be brief."}
LORA = {"r": 4, "alpha": 8, "targets": ["q_proj", "v_proj"]}
REPO, LICENSE = "vendor/Tiny-VL", "---\nlicense: cc-by-nc-4.0\n---\n"
REGISTRY = """\
version: 1
student: STUDENT
teachers: {}
data:
  - source: sharegpt
    path: data/dataset_info.json
    options: {task: vqa, columns: {modality: modality, split: split}}
recipe: sft
trust: {policy: all, options: {unmeasured: true}}
optimizer: {lr: 0.01, batch_size: 4, steps: 3}
guard: {tolerance: 100}
"""


def write_questions(folder: Path, modality: str) -> None:
    """Where the square is, on pictures of one modality."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, split in enumerate(["train"] * 2 + ["calibration"] * 2 + ["test"]):
        for word, corner in PLACES.items():
            name = f"{modality}-{number}-{word}.png"
            image = Image.new("RGB", (56, 56), (8 * number, 0, 20 * len(modality)))
            image.paste((255, 255, 255), (*corner, corner[0] + 14, corner[1] + 14))
            image.save(folder / name)
            messages = [{"role": "user", "content": "<image>Where is it?"}, {"role": "assistant", "content": word}]
            records.append({"messages": messages, "images": [name], "modality": modality, "split": split})
    (folder / "data.json").write_text(json.dumps(records), encoding="utf-8")
    columns = {"messages": "messages", "images": "images"}
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {"file_name": "data.json", "formatting": "sharegpt", "columns": columns, "tags": tags}
    (folder / "dataset_info.json").write_text(json.dumps({"places": entry}), encoding="utf-8")


def make_base(folder: Path) -> Path:
    """A model as its vendor publishes it: stock files and a card."""
    sizes = {"hidden": 32, "heads": 2, "kv_heads": 1, "words": WORDS}
    make(sizes=sizes, max_tokens=2048, system="").save(folder)
    (folder / "clinkd.json").unlink()
    (folder / "README.md").write_text(LICENSE, encoding="utf-8")
    return folder


def snapshot_in(cache: Path, base: Path, commit: str) -> Path:
    """``base`` as the Hub's client has it after a download."""
    folder = cache / f"models--{REPO.replace('/', '--')}" / "snapshots" / commit
    shutil.copytree(base, folder)
    return folder


def make_answering(root: Path, **config: Any) -> Project:
    """A project with one version of a student, trained on its texts for a few steps."""
    write_questions(root / "data", "ct")
    student = json.dumps({"family": "clinkd", "config": {**SMALL, **config}})
    (root / "registry.yaml").write_text(REGISTRY.replace("STUDENT", student), encoding="utf-8")
    teach(root)
    return open_project(root)


def teach(root: Path, *, incremental: bool = False) -> Version:
    outcome = distill(open_project(root), Options(cpu=True, incremental=incremental))
    assert outcome is not None
    return outcome.version


def logits(project: Project, version: str | None = None) -> torch.Tensor:
    """(A, V): the distributions along an answer about a picture, by the version's student."""
    student: Any = load_student(Versions(project).get(version), project.catalogue)
    inputs = student.prepare(picture(70, 50), question("left right", "<image>Where is it?"))
    with torch.no_grad():
        outputs = student({name: value[None] for name, value in inputs.items()})
    found: torch.Tensor = outputs["answer_hidden"][0] @ outputs["output_embedding"].T
    return found
