"""The two ways to read a table: by columns, and row by row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample, Skipped
from kdkit.core.data.batches import from_batch
from kdkit.core.data.collect import to_table
from kdkit.plugins.sources.rows import RowReader

Outcome = tuple[list[Sample], list[Skipped], str]


def by_rows(reader: RowReader) -> Outcome:
    """Samples, what is skipped, and the error."""
    try:
        items = list(RowReader.__iter__(reader))
    except KdkitError as error:
        return [], [], f"{error.id} {error.where} {error.what} {error.why}"
    samples = list(to_table(one for one in items if isinstance(one, Sample)))
    return samples, [one for one in items if isinstance(one, Skipped)], ""


def by_columns(batches: Iterable[Any] | None) -> list[Sample] | None:
    """The samples of batches."""
    return None if batches is None else list(to_table(map(from_batch, batches)))
