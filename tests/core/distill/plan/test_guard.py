"""A guard that cannot be applied is refused before training."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.data.load import load_index
from kdkit.core.distill.plan.guard import check_guard
from tests.errors import raises_error
from tests.toy_project import open_project


@pytest.mark.parametrize(
    ("guard", "id"),
    [
        ("retrieval/mrx: 1.0", "KD-DIST-230"),
        ("retrievel/ct: 1.0", "KD-PLUG-003"),
        ("by: {sex: 2.0}", "KD-EVAL-230"),
    ],
)
def test_what_cannot_be_measured_is_refused(folder: Path, guard: str, id: str) -> None:
    registry = folder / "registry.yaml"
    text = registry.read_text(encoding="utf-8")
    registry.write_text(text.replace("tolerance: 10", f"tolerance: 10, {guard}"), encoding="utf-8")
    project = open_project(folder)
    with raises_error(id):
        check_guard(project, load_index(project))
