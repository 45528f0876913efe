"""Data sets of the library ``datasets`` are recognized, and then read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdkit.core.contracts import SPLITS
from kdkit.plugins.sources.recognize.hf_dataset import recognize_hf_dataset
from tests.errors import raises_error
from tests.plugins.sources.archives import save_to_disk, write_parquet
from tests.plugins.sources.files import read
from tests.plugins.sources.test_hf_dataset import COLUMNS, METADATA, saved


@pytest.mark.parametrize(
    ("splits", "known"),
    [(("train", "validation", "test"), True), (("train",), False), (("train", "fold5"), False)],
)
def test_saved_data_sets_are_recognized(tmp_path: Path, splits: tuple[str, ...], known: bool) -> None:
    path = saved(tmp_path / "scans", **dict.fromkeys(splits, slice(None)))
    found = recognize_hf_dataset(path)
    assert found is not None
    assert found.options["columns"] == {"text": "caption"}
    assert ("split_fractions" in found.options) != known
    samples = read("hf-dataset", path, **found.options)
    assert {one.domain for one in samples} == {"scans"}
    assert {one.label for one in samples} == {"normal", "cyst", None}
    assert not known or {one.split for one in samples} == set(SPLITS)
    assert found.warns == ()


def test_the_cache_of_the_hub_is_recognized(tmp_path: Path) -> None:
    path = tmp_path / "datasets--org--scans"
    write_parquet(path / "snapshots" / ("a" * 40) / "train.parquet", COLUMNS, metadata=METADATA)
    found = recognize_hf_dataset(path)
    assert found is not None
    assert found.options["constants"] == {"domain": "scans"}


def test_other_folders_are_left_to_other_sources(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", COLUMNS)
    assert recognize_hf_dataset(tmp_path) is None
    assert recognize_hf_dataset(tmp_path / "a.parquet") is None
    save_to_disk(tmp_path / "texts", {"text": ["a", "b"]})
    with raises_error("KD-SRC-328", mentions=("text",)):
        recognize_hf_dataset(tmp_path / "texts")
    (tmp_path / "texts" / "state.json").write_text(json.dumps({}))
    with raises_error("KD-SRC-325"):
        recognize_hf_dataset(tmp_path / "texts")
