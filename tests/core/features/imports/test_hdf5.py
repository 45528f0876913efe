"""HDF5 of TRIDENT and CLAM: patches with coordinates, and whole slides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kdkit.core.features.imports.open import open_rows
from kdkit.core.features.imports.rows import ReadOptions
from tests.core.features.imports.saved import vectors
from tests.core.features.imports.test_arrays import all_rows
from tests.errors import raises_error

COORDS = np.array([[0, 256], [512, 0], [1024, 768]])


def slide(path: Path, **datasets: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values
    return path


def test_patches_of_a_folder_of_slides(tmp_path: Path) -> None:
    one = slide(tmp_path / "f" / "a" / "s1.h5", features=vectors(3), coords=COORDS)
    slide(tmp_path / "f" / "s2.h5", features=vectors(3, seed=1)[None], coords=COORDS, annotation=np.ones(3))
    rows = open_rows([tmp_path / "f"], ReadOptions())
    ids, values = all_rows(rows)
    assert ids == ["a/s1_0_256", "a/s1_512_0", "a/s1_1024_768", "s2_0_256", "s2_512_0", "s2_1024_768"]
    assert np.array_equal(values["image"], np.concatenate([vectors(3), vectors(3, seed=1)]))
    assert rows.unused == ("s2.h5: annotation",)
    assert all_rows(open_rows([one], ReadOptions(id_format="{row}-{file}-{y}")))[0][1] == "1-s1-0"


def test_a_vector_of_a_whole_slide(tmp_path: Path) -> None:
    path = slide(tmp_path / "TCGA-1.h5", features=vectors(1)[0])
    ids, values = all_rows(open_rows([path], ReadOptions()))
    assert ids == ["TCGA-1"]
    assert np.array_equal(values["image"], vectors(1))


def test_links_and_values_in_other_files(tmp_path: Path) -> None:
    other = slide(tmp_path / "other.h5", features=vectors(3), coords=COORDS)
    path = slide(tmp_path / "a.h5", coords=COORDS)
    with h5py.File(path, "a") as file:
        file["features"] = h5py.ExternalLink(str(other), "features")
    with raises_error("KD-FEAT-024", where=str(path)):
        open_rows([path], ReadOptions())
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("features", (3, 6), "f4", external=[(str(other), 0, 72)])
    with raises_error("KD-FEAT-024"):
        open_rows([tmp_path / "b.h5"], ReadOptions())


def test_layouts_that_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"no HDF5")
    with raises_error("KD-FEAT-022"):
        open_rows([tmp_path / "a.h5"], ReadOptions())
    with raises_error("KD-FEAT-022", mentions=["embeddings"]):
        open_rows([slide(tmp_path / "b.h5", embeddings=vectors(3))], ReadOptions())
    without = slide(tmp_path / "c.h5", features=vectors(3))
    with raises_error("KD-FEAT-022", mentions=["--id-format"]):
        all_rows(open_rows([without], ReadOptions()))
    assert all_rows(open_rows([without], ReadOptions(id_format="{file}_{row}")))[0] == ["c_0", "c_1", "c_2"]
    fewer = slide(tmp_path / "d.h5", features=vectors(3), coords=COORDS[:2])
    with raises_error("KD-FEAT-022", mentions=["2 ids for 3 rows"]):
        all_rows(open_rows([fewer], ReadOptions()))


@pytest.mark.parametrize("text", ["{slide}", "plain", "{", "{file.__class__}"])
def test_formats_of_ids_that_are_refused(tmp_path: Path, text: str) -> None:
    path = slide(tmp_path / "a.h5", features=vectors(3), coords=COORDS)
    with raises_error("KD-FEAT-022", mentions=["{file}"]):
        open_rows([path], ReadOptions(id_format=text))


def test_options_of_an_earlier_import_are_used_where_they_fit(tmp_path: Path) -> None:
    path = slide(tmp_path / "a.h5", features=vectors(3))
    before = {"id_format": "{file}_{row}", "key": "another"}
    rows = open_rows([path], ReadOptions(before=before))
    assert all_rows(rows)[0] == ["a_0", "a_1", "a_2"]
    assert rows.read == {"id_format": "{file}_{row}"}
    assert all_rows(open_rows([path], ReadOptions(id_format="{row}", before=before)))[0] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "datasets",
    [
        {"features": np.float32(1), "coords": np.zeros((1, 2))},
        {"features": h5py.Empty("f4")},
        {"features": np.zeros((3, 4), np.float32), "coords": np.full((3, 2), np.nan)},
    ],
    ids=["a number", "nothing", "no places"],
)
def test_datasets_without_vectors_or_places(tmp_path: Path, datasets: dict[str, Any]) -> None:
    path = slide(tmp_path / "a.h5", **datasets)
    with raises_error("KD-FEAT-022", where=str(path)):
        all_rows(open_rows([path], ReadOptions()))


def test_damaged_values_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    noise = np.random.default_rng(0).standard_normal((400, 40)).astype(np.float32)
    with h5py.File(path, "w") as file:
        file.create_dataset("features", data=noise, compression="gzip")
        place = file["features"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[place : place + 64] = bytes(64)
    path.write_bytes(content)
    with raises_error("KD-FEAT-022", where=str(path)):
        all_rows(open_rows([path], ReadOptions(id_format="{file}_{row}")))
