"""The two readers of tables: by columns, and row by row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdkit.plugins.sources.fast_parquet import read_tables
from kdkit.plugins.sources.hf_dataset import HfDataset
from kdkit.plugins.sources.parquet import ParquetRows
from tests.plugins.sources.archives import save_to_disk, write_arrow, write_parquet
from tests.plugins.sources.readers_agree import by_columns, by_rows

FEATURES = {"info": {"features": {"label": {"names": ["normal", "cyst"], "_type": "ClassLabel"}}}}
texts = st.sampled_from(["a", "b c", " padded ", "ä", "1"])
optional = st.none() | texts | st.sampled_from(["", "a\0b", "-1", "0"])
paths = st.sampled_from([None, "", "a.png", "x/b.png", "a/", "two\nlines/c.png"])

labels = st.sampled_from([0, 1, -1, 2, None])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(paths, texts | optional, optional, labels, optional), min_size=1, max_size=4),
    numbers=st.booleans(),
    named=st.booleans(),
    kind=st.sampled_from(["parquet", "paths", "plain", "arrow", "saved"]),
    given=st.sampled_from(
        [{}, {"id_prefix": "p/"}, {"columns": {"group": "other"}}, {"labels": [" n", ""]}, {"caption": "{domain}"},
         {"split_fractions": {"train": 0.5, "test": 0.5}}, {"constants": {"domain": "ct", "split": "test"}}]
    ),
    splits=st.sampled_from([None, "train", "val", "odd"]),
)  # fmt: skip
def test_both_readers_agree(
    tmp_path: Path, rows: list[Any], numbers: bool, named: bool, kind: str, given: dict[str, Any], splits: str | None
) -> None:
    cells: list[Any] = [{"bytes": b"x" if path != "a.png" else None, "path": path} for path, *_ in rows]
    if kind == "paths":
        cells = [path if path is not None else f"{n}.png" for n, (path, *_) in enumerate(rows)]
    elif kind == "plain":
        cells = [b"x"] * len(rows)
    columns: dict[str, list[Any]] = {
        "image": cells,
        "text": [text for _, text, *_ in rows],
        "other": [other for *_, other in rows],
        "label": [number if numbers else label for _, _, label, number, _ in rows],
        "domain": ["ct"] * len(rows),
    }
    if splits is not None:
        columns["split"] = [splits] * len(rows)
    metadata = {"huggingface": json.dumps(FEATURES)} if named else None
    source: ParquetRows
    if kind == "saved":
        source = HfDataset(save_to_disk(tmp_path / "saved", columns, split="train"), **given)
    elif kind == "arrow":
        source = HfDataset(write_arrow(tmp_path / "train.arrow", columns, metadata=metadata), **given)
    else:
        source = ParquetRows(write_parquet(tmp_path / "train-0.parquet", columns, metadata=metadata), **given)
    found = by_columns(read_tables(source))
    if found is not None:
        assert (found, [], "") == by_rows(source)


@pytest.mark.parametrize("kind", ["parquet", "saved"])
def test_usual_tables_are_read_by_columns(tmp_path: Path, kind: str) -> None:
    cells = [{"bytes": b"x", "path": f"{n}.png"} for n in range(6)]
    columns: dict[str, Any] = {
        "image": cells,
        "text": list("abcdef"),
        "domain": ["ct"] * 6,
        "label": [0, 1, -1] * 2,
        "n": [1.5] * 6,
    }
    source: ParquetRows
    if kind == "saved":
        source = HfDataset(save_to_disk(tmp_path / "scans", columns, split="validation"), labels=["a", "b"])
    else:
        metadata = {"huggingface": json.dumps(FEATURES)}
        source = ParquetRows(write_parquet(tmp_path / "val-0.parquet", columns, metadata=metadata).parent)
    found = by_columns(read_tables(source))
    assert found is not None
    assert (found, [], "") == by_rows(source)
    assert [one.split for one in found] == ["calibration"] * 6
    assert found[2].label is None
    assert found[4].id == ("validation-4" if kind == "saved" else "val-0-4")
