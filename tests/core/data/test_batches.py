"""Batches of samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from kdkit.core.contracts import Sample
from kdkit.core.data.batches import from_batch
from kdkit.core.data.collect import to_table
from kdkit.core.data.contents import Images

PATHS = ("/x//a.png", "/x/./a.png", "/x/a.png/", "/x/a.png/.", "/x/a.png", "/x/../a.png", "//x/a.png", "/x/.b/a.png")


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int32(), pa.string())])
def test_images_of_batches_have_the_keys_of_samples(kind: pa.DataType) -> None:
    ids = [f"s{i}" for i in range(len(PATHS))]
    same = {name: [name] * len(PATHS) for name in ("text", "domain")}
    columns = {"id": ids, "image": pa.array(PATHS, pa.string()).cast(kind), **same, "split": ["train"] * len(PATHS)}
    batch = Images(to_table([from_batch(pa.RecordBatch.from_pydict(columns))]))
    plain = Images(
        to_table([Sample(i, Path(path), "text", "domain", split="train") for i, path in zip(ids, PATHS, strict=True)])
    )
    assert batch.keys.to_pylist() == plain.keys.to_pylist()
    places = np.arange(len(batch.keys))
    assert batch.refs(places) == plain.refs(places)
