"""Opening Parquet files with pyarrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError


def open_parquet(path: Path) -> Any:
    """``pyarrow.parquet.ParquetFile``, not memory-mapped, so that a closed one frees all.

    Raises:
        KdkitError: this is no whole Parquet file.
    """
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path, pre_buffer=False)
    except (OSError, ValueError) as error:
        raise KdkitError(
            "KD-SRC-079",
            "not a whole Parquet file",
            where=str(path),
            why=str(error).partition("\n")[0],
            fix="download or write the file again",
            code=ExitCode.MISSING if isinstance(error, FileNotFoundError) else ExitCode.USAGE,
        ) from None


def binary_leaf(schema: Any, column: str) -> str | None:
    """``column``, or ``column.bytes`` of the Hub's struct ``{bytes, path}``; None where it holds no bytes."""
    import pyarrow as pa

    if schema.get_field_index(column) < 0:
        return None
    kind = schema.field(column).type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        return f"{column}.bytes" if _is_bytes(kind.field("bytes").type) else None
    return column if _is_bytes(kind) else None


def _is_bytes(kind: Any) -> bool:
    import pyarrow as pa

    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in tests)
