"""What is exported can be imported again, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kdkit.core.contracts import Silent
from kdkit.core.features.imports.export import ExportedColumn, export_features
from kdkit.core.features.imports.importing import ImportRequest, import_features
from kdkit.core.project.project import Project
from tests.core.features.imports.saved import IDS, save_npz, small_project, vectors
from tests.core.features.imports.test_importing import stored
from tests.errors import raises_error


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Ten of twelve samples have features."""
    root = tmp_path / "p"
    project = small_project(root)
    file = save_npz(tmp_path / "a.npz", IDS[:10], image=vectors(10), text=vectors(10, seed=1))
    import_features(project, "tiles", ImportRequest([file], license="mit"))
    return Project(root)


def export(project: Project, to: Path) -> ExportedColumn:
    return export_features(project, "tiles", to, reporter=Silent())


@pytest.mark.parametrize("name", ["out.npz", "out", "out.parquet"])
def test_a_round_trip(project: Project, tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    done = export(project, tmp_path / name)
    assert (done.rows, done.samples_without_row) == (10, ("s10", "s11"))
    import_features(project, "again", ImportRequest([tmp_path / name], license="mit"))
    for signal in ("image", "text"):
        assert np.array_equal(stored(project, signal, "again"), stored(project, signal))
        assert len(stored(project, signal, "again")) == 10


@pytest.mark.parametrize("name", ["out.npz", "out", "out.parquet"])
def test_the_same_bytes_again_and_nothing_is_replaced(project: Project, tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    to = tmp_path / name
    export(project, to)
    file = to / "image.npy" if to.is_dir() else to
    before = file.read_bytes()
    export(project, to)
    assert file.read_bytes() == before
    file.write_bytes(b"mine")
    with raises_error("KD-FEAT-039"):
        export(project, to)
    assert file.read_bytes() == b"mine"


def test_a_folder_with_other_files_is_left_alone(project: Project, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with raises_error("KD-FEAT-039"):
        export(project, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_what_cannot_be_exported(project: Project, tmp_path: Path) -> None:
    with raises_error("KD-FEAT-037", mentions=["out.csv"]):
        export(project, tmp_path / "out.csv")
    with raises_error("KD-FEAT-015"):
        export_features(project, "nobody", tmp_path / "out.npz", reporter=Silent())
