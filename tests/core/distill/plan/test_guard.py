"""A guard that cannot be applied is refused before training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdkit.core.data.load import load_index
from kdkit.core.distill.plan.guard import check_guard
from tests.errors import raises_error
from tests.toy_project import open_project


@pytest.mark.parametrize(
    ("guard", "id", "said"),
    [
        ("retrieval/mrx: 1.0", "KD-DIST-230", "mri"),
        ("retrievel/ct: 1.0", "KD-PLUG-003", "retrieval"),
        ("retrieval:recall@1/mass/ct: 1.0", "KD-DIST-230", "'retrieval:recall@1/ct'"),
        ("judge/ct: 1.0", "KD-DIST-610", "judge"),
        ("by: {sex: 2.0}", "KD-EVAL-230", "sex"),
    ],
)
def test_what_cannot_be_measured_is_refused(folder: Path, guard: str, id: str, said: str) -> None:
    registry = folder / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("tolerance: 10", f"tolerance: 10, {guard}"), encoding="utf-8")
    project = open_project(folder)
    with raises_error(id, mentions=(said,)):
        check_guard(project, load_index(project))


def test_a_patient_in_both_splits_is_refused_for_a_task_that_fits(folder: Path) -> None:
    manifest = folder / "images" / "samples.jsonl"
    rows = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
    for split in ("train", "calibration"):
        next(row for row in rows if (row["domain"], row["split"]) == ("ct", split))["group"] = "p1"
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    registry = folder / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("tolerance: 10", "tolerance: 10, knn/ct: 1.0"), encoding="utf-8")
    project = open_project(folder)
    with raises_error("KD-EVAL-014", mentions=("'p1'",)):
        check_guard(project, load_index(project))
