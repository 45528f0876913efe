"""Data sets of suites as the data of a project."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import Silent
from kdkit.core.data.load import load_index
from kdkit.core.data.prompts import finding_sets
from kdkit.core.evaluation.suites.definition import chosen, load_suite
from kdkit.core.evaluation.suites.place import locate
from kdkit.core.evaluation.suites.run import with_datasets
from kdkit.core.project.project import Project


@pytest.mark.filterwarnings("error")
def test_findings_have_the_prompts_of_the_definition(tmp_path: Path) -> None:
    (tmp_path / "chestmnist").mkdir()
    labels = np.eye(14, dtype=np.uint8)
    images = np.zeros((14, 28, 28), dtype=np.uint8)
    np.savez(tmp_path / "chestmnist" / "chestmnist.npz", test_images=images, test_labels=labels)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "registry.yaml").write_text("version: 1\n", encoding="utf-8")
    project = Project(tmp_path / "p")
    datasets = chosen(load_suite("medmnist", project.catalogue), ("chestmnist",))
    derived = with_datasets(project, locate(datasets, tmp_path, check=False))
    assert derived.registry.prompts["chestmnist"] == datasets["chestmnist"].prompts()
    sides = finding_sets(derived.registry, load_index(derived, Silent()))["chestmnist"]
    assert sides["effusion"][0] == datasets["chestmnist"].prompts()["effusion"]
