"""From slides to a diagnosis of patients: tiles by TRIDENT's coordinates, a student, and bags of its features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kdkit.core.data import load_index
from kdkit.core.distill.options import Options
from kdkit.core.distill.run import distill
from kdkit.core.evaluation.evaluate import evaluate_version
from kdkit.core.evaluation.evaluator import TaskChoice
from tests.plugins.sources.files import write_manifest
from tests.plugins.sources.slide_files import write_coordinates, write_slide
from tests.toy_project import make_project, open_project, pattern
from tests.toys import SIDE

TRIDENT = {"patch_size": SIDE, "patch_size_level0": SIDE, "level0_magnification": 20, "target_magnification": 20}
GRID = 4
"""Tiles of a side of a slide."""


def write_cohort(root: Path, patients: int) -> None:
    """Two slides per patient, whose tiles are pictures of the patient's diagnosis."""
    rows = []
    for number in range(patients):
        label = ("mass", "cyst", "clear")[number % 3]
        split = ("train", "train", "calibration", "test")[number // 3 % 4]
        for part in "ab":
            rng = np.random.default_rng([number, ord(part)])
            tiles = 0.45 * np.tile(pattern("ct", label), (GRID, GRID)) + 0.55 * rng.random((GRID * SIDE, GRID * SIDE))
            pixels = np.repeat((255 * tiles).astype(np.uint8)[..., None], 3, axis=2)
            name = f"P{number}-{part}"
            write_slide(root / "slides" / f"{name}.svs", pixels)
            corners = [[x * SIDE, y * SIDE] for y in range(GRID) for x in range(GRID)]
            size = {"level0_width": GRID * SIDE, "level0_height": GRID * SIDE}
            write_coordinates(root / "patches" / f"{name}_patches.h5", corners, {**TRIDENT, **size})
            rows.append({"slide": f"{name}.svs", "label": label, "patient": f"P{number}", "split": split})
    write_manifest(root / "cohort.csv", rows)


def test_slides_become_bags_of_patients(tmp_path: Path) -> None:
    pytest.importorskip("openslide")
    make_project(tmp_path, teachers={"radio": ("ct", "mri")}, domains=("ct",), train=2, held_out=2)
    write_cohort(tmp_path, 12)
    options = {
        "domain": "ct",
        "coordinates": "patches",
        "image_root": "slides",
        "columns": {"group": "patient"},
        "max_tiles_per_slide": 4,
    }
    entry = json.dumps({"source": "wsi", "path": "cohort.csv", "options": options})
    registry = (tmp_path / "registry.yaml").read_text(encoding="utf-8")
    registry = registry.replace("{source: jsonl, path: images/samples.jsonl}", entry)
    (tmp_path / "registry.yaml").write_text(registry, encoding="utf-8")
    recipe = (tmp_path / "toy.yaml").read_text(encoding="utf-8")
    (tmp_path / "toy.yaml").write_text(recipe.replace("steps: 40", "steps: 10"), encoding="utf-8")
    project = open_project(tmp_path)
    index = load_index(project)
    assert len(index) == 12 * 2 * 4
    assert len({sample.extra["group"] for sample in index.samples}) == 12
    assert distill(project, Options(cpu=True)) is not None
    task = TaskChoice("patients", {"attention": False, "strengths": [1.0]})
    report = evaluate_version(open_project(tmp_path), task=task)
    (student,) = report.evaluation.of_role("student")
    assert student.domains["ct"].count == 3  # patients, of the test split
    assert student.domains["ct"].metrics["accuracy"] > 0.8
