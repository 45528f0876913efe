"""Parquet files as a source."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import ImageLocation, Sample, Skipped
from kdkit.core.data.images import open_image
from kdkit.core.data.locations import read_content
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_parquet
from tests.plugins.sources.files import read, read_all

pa = pytest.importorskip("pyarrow")
IMAGES = [png(seed) for seed in range(6)]
COLUMNS: dict[str, Any] = {
    "image": IMAGES,
    "text": [f"scan {row}" for row in range(6)],
    "domain": ["ct"] * 6,
    "label": ["cyst", "normal", None] * 2,
    "split": ["train"] * 6,
}


def test_rows_with_bytes_are_samples(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "scans.parquet", {**COLUMNS, "vector": [[1.0, 2.0]] * 6})
    samples = read("parquet", path)
    assert [one.id for one in samples] == [f"scans-{row}" for row in range(6)]
    assert [one.label for one in samples] == COLUMNS["label"]
    assert (samples[4].text, samples[4].origin) == ("scan 4", f"{path}:5")
    assert [read_content(one.image) for one in samples] == IMAGES
    assert str(samples[4].image) == f"{path}[row 5]"
    assert open_image(samples[5]).size == (16, 16)


def test_the_hub_layout(tmp_path: Path) -> None:
    """Structs of bytes and path, labels as numbers with names, a file per split."""
    features = {"info": {"features": {"label": {"names": ["normal", "cyst"], "_type": "ClassLabel"}}}}
    metadata = {"huggingface": json.dumps(features)}
    structs = [{"bytes": image, "path": f"{row}.png"} for row, image in enumerate(IMAGES)]
    for name in ("train-00000-of-00001", "validation-00000-of-00001"):
        columns: dict[str, Any] = {"image": structs, "label": [0, 1, 0, 1, 0, 1]}
        write_parquet(tmp_path / "data" / f"{name}.parquet", columns, metadata=metadata)
    samples = read("parquet", tmp_path, caption="a {domain} of {label}", constants={"domain": "ct"})
    assert {(one.id, one.split, one.label) for one in samples} >= {
        ("data/train-00000-of-00001-0", "train", "normal"),
        ("data/validation-00000-of-00001-1", "calibration", "cyst"),
    }
    assert str(samples[3].image).endswith("[3.png]")
    assert [read_content(one.image) for one in samples] == IMAGES * 2
    other = read("parquet", tmp_path, caption="{label}", constants={"domain": "ct"}, labels=["a", "b"])
    assert {one.label for one in other} == {"a", "b"}
    with raises_error("KD-SRC-088"):
        read("parquet", tmp_path, caption="{label}", constants={"domain": "ct"}, labels=["a"])


def test_paths_are_image_files(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(IMAGES[0])
    columns = {"file": ["a.png"], "text": ["t"], "domain": ["ct"], "split": ["test"]}
    path = write_parquet(tmp_path / "a.parquet", columns)
    (one,) = read("parquet", path, columns={"image": "file"}, image_root="pictures")
    assert (one.image, one.id) == (tmp_path / "pictures" / "a.png", "a.png")
    bad = write_parquet(tmp_path / "b.parquet", {**columns, "file": ["../../etc/passwd"]})
    with raises_error("KD-SRC-036", where=f"{bad}:1"):
        read("parquet", bad, columns={"image": "file"})


def test_bad_files_and_rows(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {**COLUMNS, "text": [*COLUMNS["text"][:4], None, "f"]})
    with raises_error("KD-SRC-093", where=str(path), mentions=("text", "domain")):
        read("parquet", path, columns={"image": "picture"})
    with raises_error("KD-SRC-050", where=f"{path}:5"):
        read("parquet", path)
    found = read_all("parquet", path, skip_broken=True)
    assert [one.where for one in found if isinstance(one, Skipped)] == [f"{path}:5"]
    assert len([one for one in found if isinstance(one, Sample)]) == 5
    with raises_error("KD-SRC-046"):
        read("parquet", path, columns={"text": "caption"})
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    with raises_error("KD-SRC-079", where=str(path)):
        read("parquet", path)
    with raises_error("KD-SRC-087"):
        read("parquet", tmp_path / "gone.parquet")
    (tmp_path / "empty").mkdir()
    with raises_error("KD-SRC-087"):
        read("parquet", tmp_path / "empty")


def test_a_cell_is_located_by_column_and_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", COLUMNS)
    assert read("parquet", path)[3].image == ImageLocation("parquet", path, ("image", 3), "row 4")


def test_columns_of_one_name_and_without_images_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow.parquet import write_table

    path = tmp_path / "a.parquet"
    write_table(pa.table([pa.array([b"x"]), pa.array(["a"]), pa.array(["b"])], names=["image", "text", "text"]), path)
    with raises_error("KD-SRC-111"):
        read("parquet", path)
    write_table(pa.table({"image": pa.array([[b"x"]]), "text": ["a"]}), path)
    with raises_error("KD-SRC-112"):
        read("parquet", path)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("label", [[1], [1, 2]] * 3),
        ("text", [["one", "two"]] * 6),
        ("group", [b"patient"] * 6),
        ("id", [date(2026, 1, day) for day in range(1, 7)]),
    ],
)
def test_fields_of_other_types_are_refused(tmp_path: Path, column: str, values: list[Any]) -> None:
    """Left out, they would cost labels, or let a patient span two splits."""
    path = write_parquet(tmp_path / "a.parquet", {**COLUMNS, column: values})
    with raises_error("KD-SRC-151", where=str(path)):
        read("parquet", path)
    columns = {**COLUMNS, "odd": values}
    with raises_error("KD-SRC-151"):
        read("parquet", write_parquet(path, columns), columns={column: "odd"})
    assert len(read("parquet", path)) == 6


def test_extra_objects_and_empty_columns(tmp_path: Path) -> None:
    columns = {**COLUMNS, "extra": [{"images": ["b.png"]}] * 6, "group": [None] * 6}
    (first, *_) = read("parquet", write_parquet(tmp_path / "a.parquet", columns))
    assert first.extra == {"images": [tmp_path / "b.png"]}
