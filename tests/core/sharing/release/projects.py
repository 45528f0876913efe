"""Projects with something to publish: one that was really distilled, and ones that are only laid out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from kdkit.core.project.project import Project
from tests.lineages import lineage, write_version
from tests.tiny_models import open_clip_config
from tests.toy_project import CLASSES, make_project, open_project, train_teacher

WORDS = ("a", "image", "of", *CLASSES, *(label for labels in CLASSES.values() for label in labels))


def make_distilled(root: Path) -> Project:
    """Two versions of an open_clip student: of ``radio`` (MIT), then of ``chest`` (CC BY-NC) too, both evaluated."""
    from kdkit.core.distill.options import Options
    from kdkit.core.distill.run import distill
    from kdkit.core.evaluation.evaluate import evaluate_version
    from kdkit.core.evaluation.report import write_report
    from kdkit.core.teachers.add import add_teacher

    make_project(root, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri", "xray"))
    publishable(root)
    distill(open_project(root), Options(cpu=True))
    train_teacher(("xray",), width=10, seed=5).save(root / "models" / "chest")
    chest = {"from": "local:models/chest", "loader": "toy", "license": "cc-by-nc-4.0"}
    add_teacher(open_project(root), "chest", chest)
    distill(open_project(root), Options(cpu=True, incremental=True))
    write_report(open_project(root).reports, evaluate_version(open_project(root)))
    return open_project(root)


def publishable(root: Path) -> None:
    """Give a toy project an open_clip student."""
    model = open_clip_config(words=WORDS)
    del model["text_cfg"]["hf_tokenizer_name"]
    student = {"family": "open_clip", "config": {"model_cfg": model, "tokenizer": {"words": list(WORDS)}}}
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("{family: toy, config: {width: 12}}", json.dumps(student)), encoding="utf-8")


def lay_out(root: Path, make_student: Callable[[Path], object], name: str = "v1", **more: Any) -> Project:
    """A project without teachers and data whose one version holds the student that ``make_student`` writes.

    ``more`` goes into its lineage.
    """
    version = root / "versions" / name
    version.mkdir(parents=True)
    make_student(version / "student")
    save_file({"terms.weight": torch.ones(1)}, version / "task.safetensors")
    save_arrays({"digests": np.arange(7, dtype=np.int64)}, version / "samples.safetensors")
    write_version(version, lineage(name, **more))
    (root / "versions" / "current").write_text(f"{name}\n", encoding="utf-8")
    (root / "registry.yaml").write_text("version: 1\n", encoding="utf-8")
    return Project(root)
