"""The same images as files, in tar files, in Parquet cells and in arrays."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SPLITS = ("train", "calibration", "test")


def png(seed: int, size: tuple[int, int] = (16, 16)) -> bytes:
    """The bytes of a picture of noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "png")
    return stream.getvalue()


def write_tar(path: Path, members: Mapping[str, bytes], format: int = tarfile.PAX_FORMAT) -> Path:
    """A tar file with these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def members_of(rows: Sequence[Mapping[str, Any]], images: Mapping[str, bytes]) -> dict[str, bytes]:
    """The members of a shard: a row's key is its id; its text is a ``.txt``, all else a ``.json``."""
    found: dict[str, bytes] = {}
    for row in rows:
        fields = {name: value for name, value in row.items() if name not in ("id", "image", "text")}
        found[f"{row['id']}.png"] = images[row["image"]]
        found[f"{row['id']}.txt"] = row["text"].encode()
        found[f"{row['id']}.json"] = json.dumps(fields).encode()
    return found


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]], row_group: int = 4, **options: Any) -> Path:
    """A Parquet file; ``types`` of columns and the ``metadata`` of the schema may be given."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    types = options.pop("types", {})
    arrays = {name: pa.array(values, types.get(name)) for name, values in columns.items()}
    table = pa.table(arrays).replace_schema_metadata(options.pop("metadata", None))
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=row_group, **options)
    return path
