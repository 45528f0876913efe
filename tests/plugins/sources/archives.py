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


def write_arrow(path: Path, columns: Mapping[str, Sequence[Any]], batch: int = 4, **options: Any) -> Path:
    """An Arrow stream, as the library ``datasets`` writes it; ``metadata`` of the schema may be given."""
    import pyarrow as pa

    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    table = table.replace_schema_metadata(options.pop("metadata", None))
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return path


def save_to_disk(folder: Path, columns: Mapping[str, Sequence[Any]], split: str | None = None, files: int = 2) -> Path:
    """The folder that ``datasets.Dataset.save_to_disk`` writes; its description names no features."""
    count = len(next(iter(columns.values())))
    names = [f"data-{number:05d}-of-{files:05d}.arrow" for number in range(files)]
    for number, name in enumerate(names):
        rows = slice(count * number // files, count * (number + 1) // files)
        write_arrow(folder / name, {column: values[rows] for column, values in columns.items()})
    state = {"_data_files": [{"filename": name} for name in names], "_split": split}
    (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")
    (folder / "dataset_info.json").write_text("{}", encoding="utf-8")
    return folder
