"""Which bytes of a Parquet file are images: all others are needed to list its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImagePart
from kdkit.plugins.readers.parquet_files import binary_leaf


def image_parts(file: BinaryIO) -> Sequence[ImagePart]:
    """The column chunks of columns of bytes, in the order of the file. Reads the file's footer alone.

    Raises:
        KdkitError: this is no whole Parquet file.
    """
    from pyarrow import parquet

    try:
        found = parquet.read_metadata(file)
        schema = found.schema.to_arrow_schema()
    except ValueError as error:  # ArrowInvalid is one
        raise KdkitError(
            "KD-SRC-510",
            "not a whole Parquet file",
            where=getattr(file, "name", ""),
            why=str(error).partition("\n")[0],
            fix="name other files, or ask those who offer the data set to write it again",
        ) from None
    leaves = {leaf: name for name in schema.names if (leaf := binary_leaf(schema, name)) is not None}
    parts, first = list[ImagePart](), 0
    for number in range(found.num_row_groups):
        group = found.row_group(number)
        for place in range(group.num_columns):
            chunk = group.column(place)
            if (name := leaves.get(chunk.path_in_schema)) is not None:
                start = min(one for one in (chunk.dictionary_page_offset, chunk.data_page_offset) if one)
                end = start + chunk.total_compressed_size
                parts.append(ImagePart(start, end, name, first, first + group.num_rows, chunk.total_uncompressed_size))
        first += group.num_rows
    return sorted(parts, key=lambda part: part.start)
