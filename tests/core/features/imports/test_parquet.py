"""Parquet with ids and lists of floats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kdkit.core.features.imports.open import open_rows
from kdkit.core.features.imports.rows import ReadOptions
from tests.core.features.imports.saved import vectors
from tests.core.features.imports.test_arrays import all_rows
from tests.errors import raises_error

pa: Any = pytest.importorskip("pyarrow")
IDS = ["a", "b", "c"]


def save(path: Path, **columns: Any) -> Path:
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)
    return path


def lists(values: np.ndarray[Any, Any], kind: Any = None) -> Any:
    return pa.array(values.tolist(), pa.list_(kind or pa.float32()))


def test_vectors_of_images_and_texts_in_several_files(tmp_path: Path) -> None:
    save(tmp_path / "f" / "0.parquet", id=IDS, image_vector=lists(vectors(3)), text_vector=lists(vectors(3, seed=1)))
    save(tmp_path / "f" / "1.parquet", id=["d"], image_vector=lists(vectors(1)), text_vector=lists(vectors(1)))
    ids, values = all_rows(open_rows([tmp_path / "f"], ReadOptions()))
    assert ids == ["a", "b", "c", "d"]
    assert np.array_equal(values["image"], np.concatenate([vectors(3), vectors(1)]))
    assert np.array_equal(values["text"], np.concatenate([vectors(3, seed=1), vectors(1)]))


def test_other_types_and_columns(tmp_path: Path) -> None:
    wide = lists(vectors(3), pa.float64()).cast(pa.list_(pa.float64(), 6))
    rows = open_rows([save(tmp_path / "a.parquet", id=[1, 2, 3], vector=wide, label=IDS)], ReadOptions())
    ids, values = all_rows(rows)
    assert (ids, rows.unused) == (["1", "2", "3"], ("a.parquet: label",))
    assert np.array_equal(values["image"], vectors(3))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"name": IDS, "vector": lists(vectors(3))}, ["name", "'id'"]),
        ({"id": IDS, "vector": [1.0, 2.0, 3.0]}, ["'vector' is double"]),
        ({"id": IDS, "vector": pa.array([[1.0, 2.0], None, [1.0, 2.0]])}, ["'b' has no vector"]),
        ({"id": IDS, "vector": pa.array([[1.0, 2.0], [1.0], [1.0, 2.0]])}, ["'b' has 1 numbers"]),
        ({"id": ["a", None, "c"], "vector": lists(vectors(3))}, ["ids"]),
        ({"id": IDS, "vector": pa.array([[1, 2]] * 3)}, ["int64"]),
    ],
)
def test_tables_that_are_refused(tmp_path: Path, columns: dict[str, Any], words: list[str]) -> None:
    path = save(tmp_path / "a.parquet", **columns)
    with raises_error("KD-FEAT-022", where=str(path), mentions=words):
        all_rows(open_rows([path], ReadOptions()))


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = save(tmp_path / "a.parquet", id=IDS, vector=lists(vectors(3)))
    path.write_bytes(path.read_bytes()[:-20])
    with raises_error("KD-FEAT-022", where=str(path)):
        open_rows([path], ReadOptions())


def test_two_columns_of_ids_are_refused(tmp_path: Path) -> None:
    arrays = [pa.array(["a", "b"]), pa.array(["c", "d"]), pa.array([[1.0], [2.0]])]
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_arrays(arrays, names=["id", "id", "image"]), tmp_path / "a.parquet")
    with raises_error("KD-FEAT-022", mentions=["two columns"]):
        open_rows([tmp_path / "a.parquet"], ReadOptions())
