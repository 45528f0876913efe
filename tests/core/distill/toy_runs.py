"""Runs of toy projects, for the tests of distillation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from kdkit.core.contracts import Silent
from kdkit.core.distill.options import Options
from kdkit.core.distill.promotion import Outcome
from kdkit.core.distill.run import distill
from kdkit.core.project.project import Project
from kdkit.core.teachers.add import add_teacher
from tests.toy_project import RECIPE, open_project, train_teacher

ALL = ("ct", "mri", "xray")
"""The domains of the toy project."""


class Heard(Silent):
    """A reporter that keeps the warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def run(project: Project, **options: Any) -> Outcome:
    outcome = distill(project, Options(cpu=True, **options))
    assert outcome is not None
    return outcome


def recipe(folder: Path, *changes: tuple[str, str]) -> None:
    text = RECIPE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "toy.yaml").write_text(text, encoding="utf-8")


def add_xray(folder: Path) -> Path:
    """Add a teacher of the third domain to a toy project."""
    train_teacher(["xray"], width=20, seed=5).save(folder / "models" / "xr")
    add_teacher(open_project(folder), "xr", {"from": "local:models/xr", "loader": "toy", "license": "mit"})
    return folder


def weights(folder: Path, version: str) -> dict[str, torch.Tensor]:
    folder = folder / "versions" / version
    return {**load_file(folder / "student" / "toy.safetensors"), **load_file(folder / "task.safetensors")}


def assert_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    different = [name for name in a if not torch.equal(a[name], b[name])]
    assert not different
