"""Projects with something to publish: one that was really distilled, and ones that are only laid out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from kdkit.core.project.project import Project
from tests.tiny_models import open_clip_config
from tests.toy_project import CLASSES, make_project, open_project, train_teacher

WORDS = ("a", "image", "of", *CLASSES, *(label for labels in CLASSES.values() for label in labels))


def make_distilled(root: Path) -> Project:
    """Two versions of an open_clip student: of ``radio`` (MIT), then of ``chest`` (CC BY-NC) too, both evaluated."""
    from kdkit.core.distill.run import Options, distill
    from kdkit.core.evaluation.evaluate import evaluate_version
    from kdkit.core.evaluation.report import write_report
    from kdkit.core.teachers.add import add_teacher

    make_project(root, teachers={"radio": ("ct", "mri")}, domains=("ct", "mri", "xray"))
    model = open_clip_config(words=WORDS)
    del model["text_cfg"]["hf_tokenizer_name"]
    student = {"family": "open_clip", "config": {"model_cfg": model, "tokenizer": {"words": list(WORDS)}}}
    registry = root / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("{family: toy, config: {width: 12}}", json.dumps(student)), encoding="utf-8")
    distill(open_project(root), Options(cpu=True))
    train_teacher(("xray",), width=10, seed=5).save(root / "models" / "chest")
    chest = {"from": "local:models/chest", "loader": "toy", "license": "cc-by-nc-4.0"}
    add_teacher(open_project(root), "chest", chest)
    distill(open_project(root), Options(cpu=True, incremental=True))
    write_report(open_project(root).reports, evaluate_version(open_project(root)))
    return open_project(root)


def lay_out(root: Path, make_student: Callable[[Path], object], name: str = "v1", **more: Any) -> Project:
    """A project without teachers and data whose one version holds the student that ``make_student`` writes.

    ``more`` goes into its lineage.
    """
    version = root / "versions" / name
    version.mkdir(parents=True)
    make_student(version / "student")
    save_file({"terms.weight": torch.ones(1)}, version / "task.safetensors")
    save_arrays({"digests": np.arange(7, dtype=np.int64)}, version / "samples.safetensors")
    (version / "lineage.json").write_text(json.dumps(lineage(name, **more)), encoding="utf-8")
    (root / "versions" / "current").write_text(f"{name}\n", encoding="utf-8")
    (root / "registry.yaml").write_text("version: 1\n", encoding="utf-8")
    return Project(root)


def lineage(name: str = "v1", parent: str | None = None, **more: Any) -> dict[str, Any]:
    """All that ``kdkit distill`` writes down, made up."""
    losses = [{"name": "fd", "weight": 1.0, "options": {}}, {"name": "crd", "weight": 0.5, "options": {}}]
    return {
        "format": 1,
        "version": name,
        "parent": parent,
        "created": "2026-03-01T12:00:00+00:00",
        "student": {"family": "open_clip", "registry": {"family": "open_clip", "config": {}}, "identity": {}},
        "teachers": [],
        "recipe": {
            "name": "mine",
            "summary": "short",
            "source": "",
            "space": "heads",
            "losses": losses,
            "trust": {"policy": "threshold", "options": {"value": 0.5}},
            "optimizer": {"lr": 1e-3},
        },
        "data": {"samples": {"ct": 36}, "known": ["ct"], "fresh": 36, "replayed": 0, "uncovered": []},
        "training": {
            "steps": 40,
            "batch_size": 24,
            "lr": 1e-3,
            "seed": 0,
            "previous": None,
            "seconds": 12.3,
            "device": "cpu",
            "digest": name,
        },
        "environment": {"kdkit": "0.1.0", "python": "3.11.7", "torch": "2.15.0", "plugins": {"kdkit": "0.1.0"}},
        "scores": {"mean": {}},
        "retention": None,
        **more,
    }


def teacher(name: str, source: str, domains: Mapping[str, float], **more: Any) -> dict[str, Any]:
    """A lineage's teacher, trusted with 0.9 wherever it teaches."""
    trust = {domain: {"accuracy": 0.9, "lower": 0.85, "upper": 0.94} for domain in domains}
    return {
        "name": name,
        "source": source,
        "commit": "abcdef0123456789" if source.startswith("hf:") else None,
        "license": "mit",
        "domains": dict(domains),
        "trust": trust,
        "since": "v1",
        "inherited": False,
        **more,
    }
