"""The listing and the check of the store tell damage of any file of a column."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.data import load_index
from kdkit.core.features.extract.status import column_statuses, verify_columns
from kdkit.core.features.store.store import FeatureStore
from tests.core.features.imports.saved import save_npz, small_project, vectors
from tests.core.features.imports.test_importing import run
from tests.core.teachers.stub import Notes
from tests.errors import raises_error


@pytest.mark.parametrize("name", ["shard-0000.h5", "texts.safetensors", "column.json"])
def test_a_file_that_cannot_be_read_is_damage(tmp_path: Path, name: str) -> None:
    project = small_project(tmp_path / "p")
    prompts = save_npz(tmp_path / "prompts.npz", ["a", "b"], text=vectors(2))
    run(project, save_npz(tmp_path / "a.npz", image=vectors(), text=vectors()), prompts=prompts)
    project, index = project.reloaded(), load_index(project)
    (status,) = column_statuses(project, index)
    assert (status.complete, status.damage) == (True, "")
    (folder,) = FeatureStore(project.features).folders("tiles")
    path = folder / name
    path.write_bytes(path.read_bytes()[:-10])

    notes = Notes()
    (status,) = column_statuses(project, index, notes)
    (problems,) = verify_columns(project, deep=False).values()

    assert (status.complete, status.rows) == (False, 0)
    assert name in status.damage
    assert len(notes.warnings) == len(problems) == 1


def test_features_of_prompts_that_an_imported_teacher_lacks_are_imported(tmp_path: Path) -> None:
    project = small_project(tmp_path / "p")
    run(project, save_npz(tmp_path / "a.npz"))
    column = FeatureStore(project.features).column("tiles")
    with raises_error("KD-FEAT-010", mentions=["kdkit features import tiles --from PATH --replace"]):
        column.text_features(["a prompt"])
