"""Which files a data set of the library ``datasets`` has."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.plugins.sources.hf_layout import find_layout, looks_saved
from tests.errors import raises_error
from tests.plugins.sources.archives import save_to_disk, write_arrow, write_parquet

COLUMNS = {"image": [b"a", b"b", b"c"]}


def cache(folder: Path, splits: dict[str, Any]) -> Path:
    """A folder of the library's cache."""
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text(json.dumps({"builder_name": "parquet", "splits": splits}))
    return folder


def test_saved_data_sets(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        save_to_disk(tmp_path / "all" / name, COLUMNS)
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    found = find_layout(tmp_path / "all")
    assert found is not None
    names = {path.relative_to(tmp_path / "all").as_posix(): split for path, split in found.files.items()}
    assert names == {f"{split}/data-0000{n}-of-00002.arrow": split for split in ("train", "validation") for n in (0, 1)}
    one = find_layout(save_to_disk(tmp_path / "one", COLUMNS, split="train[:10%]", files=1))
    assert one is not None
    assert list(one.files.values()) == ["train"]


def test_the_cache_of_the_library_is_found_from_above(tmp_path: Path) -> None:
    splits = {
        "train": {"dataset_name": "scans", "num_examples": 3, "shard_lengths": [1, 2]},
        "test": {"dataset_name": "scans", "num_examples": 3},
    }
    folder = cache(tmp_path / "org___scans" / "default" / "0.0.0" / "0f", splits)
    for name in ("scans-train-00000-of-00002", "scans-train-00001-of-00002", "scans-test", "cache-01"):
        write_arrow(folder / f"{name}.arrow", COLUMNS)
    found = find_layout(tmp_path / "org___scans")
    assert found is not None
    assert (found.root, found.counts) == (folder, {"train": 3, "test": 3})
    assert [path.stem for path in found.files] == [
        "scans-train-00000-of-00002",
        "scans-train-00001-of-00002",
        "scans-test",
    ]
    cache(tmp_path / "org___scans" / "default" / "0.0.0" / "1f", splits)
    write_arrow(tmp_path / "org___scans" / "default" / "0.0.0" / "1f" / "scans-train.arrow", COLUMNS)
    with raises_error("KD-SRC-323", mentions=("0f", "1f")):
        find_layout(tmp_path / "org___scans")


def test_the_cache_of_the_hub(tmp_path: Path) -> None:
    commits = [tmp_path / "datasets--org--scans" / "snapshots" / (digit * 40) for digit in ("a", "b")]
    write_parquet(commits[0] / "data" / "train.parquet", COLUMNS)
    found = find_layout(tmp_path / "datasets--org--scans")
    assert found is not None
    assert (found.root, found.files) == (commits[0], {})
    commits[1].mkdir()
    with raises_error("KD-SRC-323"):
        find_layout(tmp_path / "datasets--org--scans")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"_data_files": [{"filename": "../../a.arrow"}]}, "KD-SRC-036"),
        ({"_data_files": [{"filename": "gone.arrow"}]}, "KD-SRC-324"),
        ({"_data_files": ["a.arrow"]}, "KD-SRC-325"),
        ({"_indices_data_files": [{"filename": "i.arrow"}]}, "KD-SRC-325"),
    ],
)
def test_descriptions_are_not_trusted(tmp_path: Path, change: dict[str, Any], error: str) -> None:
    folder = save_to_disk(tmp_path / "saved", COLUMNS)
    state = json.loads((folder / "state.json").read_text())
    (folder / "state.json").write_text(json.dumps(state | change))
    with raises_error(error):
        find_layout(folder)


@pytest.mark.parametrize("splits", [{}, {"train": 1}, {"train": {"num_examples": 1}}])
def test_descriptions_of_caches_are_not_trusted(tmp_path: Path, splits: dict[str, Any]) -> None:
    folder = cache(tmp_path / "c", splits)
    write_arrow(folder / "other.arrow", COLUMNS)
    with raises_error("KD-SRC-324" if splits.get("train") == {"num_examples": 1} else "KD-SRC-325"):
        find_layout(folder)


def test_programs_are_refused_and_other_folders_are_none(tmp_path: Path) -> None:
    assert find_layout(tmp_path) is None
    assert not looks_saved(tmp_path)
    (tmp_path / "scans.py").write_text("raise SystemExit")
    with raises_error("KD-SRC-322", where=str(tmp_path / "scans.py")):
        find_layout(tmp_path)
