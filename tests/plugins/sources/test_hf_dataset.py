"""Data sets of Hugging Face as a source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import Skipped
from kdkit.core.data.images import open_image
from kdkit.core.data.locations import read_content
from tests.errors import raises_error
from tests.plugins.sources.archives import png, save_to_disk, write_arrow, write_parquet
from tests.plugins.sources.files import read, read_all

IMAGES = [png(seed) for seed in range(6)]
CELLS = [{"bytes": image, "path": f"{row}.png"} for row, image in enumerate(IMAGES)]
COLUMNS: dict[str, Any] = {"image": CELLS, "caption": [f"scan {row}" for row in range(6)], "label": [0, 1, -1] * 2}
FEATURES = {"image": {"_type": "Image"}, "label": {"names": ["normal", "cyst"], "_type": "ClassLabel"}}
METADATA = {"huggingface": json.dumps({"info": {"features": FEATURES}})}
OPTIONS: dict[str, Any] = {"columns": {"text": "caption"}, "constants": {"domain": "ct"}}


def saved(folder: Path, **splits: slice) -> Path:
    """A data set with splits, as ``save_to_disk`` writes it."""
    for name, rows in splits.items():
        save_to_disk(folder / name, {column: values[rows] for column, values in COLUMNS.items()})
        for file in sorted((folder / name).glob("*.arrow")):
            start, size = (0, 3) if file.name.startswith("data-00000") else (3, 3)
            if rows == slice(None):
                write_arrow(file, {c: v[start : start + size] for c, v in COLUMNS.items()}, metadata=METADATA)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def test_a_saved_data_set_has_splits_and_names(tmp_path: Path) -> None:
    path = saved(tmp_path / "scans", train=slice(None), validation=slice(None))
    samples = read("hf-dataset", path, **OPTIONS)
    assert [one.id for one in samples] == [f"{split}-{n}" for split in ("train", "validation") for n in range(6)]
    assert [one.split for one in samples] == ["train"] * 6 + ["calibration"] * 6
    assert [one.label for one in samples[:3]] == ["normal", "cyst", None]
    assert [read_content(one.image) for one in samples] == IMAGES * 2
    assert str(samples[4].image).endswith("train/data-00001-of-00002.arrow[4.png]")
    assert (samples[4].text, samples[4].origin.rpartition("/")[2]) == ("scan 4", "data-00001-of-00002.arrow:2")
    assert open_image(samples[5]).size == (16, 16)


def test_other_splits_need_a_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "scans", train=slice(None), fold5=slice(None))
    with raises_error("KD-SRC-020"):
        read("hf-dataset", path, **OPTIONS)
    named = read("hf-dataset", path, **OPTIONS, splits={"fold5": "test"})
    assert {one.split for one in named} == {"train", "test"}
    by_hash = {"train": 0.5, "calibration": 0.5, "test": 0.0}
    assert len({one.split for one in read("hf-dataset", path, **OPTIONS, split_fractions=by_hash)}) == 2


def test_a_folder_without_a_data_set(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a", encoding="utf-8")
    with raises_error("KD-SRC-334", where=str(tmp_path), mentions=("1 .csv",)):
        read("hf-dataset", tmp_path, **OPTIONS)
    with raises_error("KD-SRC-087"):
        read("hf-dataset", tmp_path / "gone", **OPTIONS)


def test_a_data_set_without_a_split(tmp_path: Path) -> None:
    path = save_to_disk(tmp_path / "scans", COLUMNS)
    with raises_error("KD-SRC-043"):
        read("hf-dataset", path, **OPTIONS)
    options = {**OPTIONS, "constants": {"domain": "ct", "split": "test"}}
    assert [one.id for one in read("hf-dataset", path, **options)] == list("012345")
    assert [one.id for one in read("hf-dataset", path / "data-00001-of-00002.arrow", **options)] == list("012")


def test_images_outside_of_cells_are_files_below_the_folder(tmp_path: Path) -> None:
    (tmp_path / "scans" / "p").mkdir(parents=True)
    (tmp_path / "scans" / "p" / "a.png").write_bytes(IMAGES[0])
    cells = [{"bytes": None, "path": str(tmp_path / "scans" / "p" / "a.png")}, CELLS[1], None]
    columns: dict[str, Any] = {"image": cells, "text": ["a", "b", "c"], "split": ["train"] * 3, "domain": ["ct"] * 3}
    path = save_to_disk(tmp_path / "scans", columns, files=1)
    samples = read("hf-dataset", path)
    assert [read_content(one.image) for one in samples] == [*IMAGES[:2], b""]
    assert [one.id for one in samples] == ["p/a.png", "1", "2"]
    cells[0] = {"bytes": None, "path": "/etc/passwd"}
    save_to_disk(tmp_path / "scans", columns, files=1)
    with raises_error("KD-SRC-036"):
        read("hf-dataset", path)


def test_the_cache_of_the_library(tmp_path: Path) -> None:
    info = {"dataset_name": "scans", "splits": {"train": {"num_examples": 6}}}
    write_arrow(tmp_path / "scans-train.arrow", COLUMNS, metadata=METADATA)
    write_arrow(tmp_path / "cache-0123.arrow", COLUMNS)
    write_arrow(tmp_path / "other.arrow", COLUMNS)
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    found = read_all("hf-dataset", tmp_path, **OPTIONS)
    assert sorted(one.level for one in found if isinstance(one, Skipped)) == ["note", "warning"]
    assert len(found) == 2 + 6
    info["splits"]["train"]["num_examples"] = 7  # type: ignore[index]
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    with raises_error("KD-SRC-326"):
        read("hf-dataset", tmp_path, **OPTIONS)


def test_parquet_files_of_the_hub(tmp_path: Path) -> None:
    columns = {**COLUMNS, "image": CELLS}
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        write_parquet(tmp_path / "data" / f"{name}.parquet", columns, metadata=METADATA)
    samples = read("hf-dataset", tmp_path, **OPTIONS)
    assert [read_content(one.image) for one in samples] == IMAGES * 2
    assert {one.split for one in samples} == {"train", "test"}
    write_parquet(tmp_path / "small" / "train-00000-of-00001.parquet", columns)
    with raises_error("KD-SRC-327", mentions=("data", "small")):
        read("hf-dataset", tmp_path, **OPTIONS)


def test_lists_of_class_labels_are_findings(tmp_path: Path) -> None:
    names = {"feature": {"names": ["mass", "edema"], "_type": "ClassLabel"}, "_type": "List"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": names}}})}
    columns: dict[str, Any] = {
        "image": IMAGES[:3],
        "text": ["a"] * 3,
        "split": ["train"] * 3,
        "label": [[0, 1], [], [1]],
    }
    write_arrow(tmp_path / "a.arrow", columns, metadata=metadata)
    samples = read("hf-dataset", tmp_path / "a.arrow", constants={"domain": "ct"})
    assert [one.extra["findings"] for one in samples] == [["mass", "edema"], [], ["edema"]]
    write_arrow(tmp_path / "a.arrow", {**columns, "label": [[0, 2], [], [1]]}, metadata=metadata)
    with raises_error("KD-SRC-088"):
        read("hf-dataset", tmp_path / "a.arrow", constants={"domain": "ct"})


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    """Parity with ``datasets`` itself, where it is installed."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        image=datasets.Image(), caption=datasets.Value("string"), label=datasets.ClassLabel(names=["normal", "cyst"])
    )
    rows = {"image": CELLS, "caption": COLUMNS["caption"], "label": [0, 1] * 3}
    whole = datasets.Dataset.from_dict(rows, features=features)
    parts = datasets.DatasetDict({"train": whole, "validation": whole.select([5, 0, 3])})
    parts.save_to_disk(str(tmp_path / "scans"), num_shards={"train": 2, "validation": 1})
    samples = read("hf-dataset", tmp_path / "scans", **OPTIONS)
    expected = [
        (name, row["caption"], features["label"].int2str(row["label"]), row["image"]["bytes"])
        for name, split in (("train", "train"), ("calibration", "validation"))
        for row in parts[split].cast_column("image", datasets.Image(decode=False))
    ]
    assert [(one.split, one.text, one.label, read_content(one.image)) for one in samples] == expected
