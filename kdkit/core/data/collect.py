"""From what sources yield to the columns of a table: samples, or batches of samples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from kdkit.core.contracts import SPLITS, ImageLocation, Sample
from kdkit.core.data.extra import encode_extra
from kdkit.core.data.locations import further_images_of, key_of
from kdkit.core.data.names import printable
from kdkit.core.data.table import GROUP, SCHEMA, SampleTable, options_text

ROWS = 16_384
"""Rows of a batch, at most."""
CHARACTERS = 1 << 26
"""Characters of the texts of a batch, about; Arrow limits a column of texts to 2 GiB."""
_TAIL = re.compile(r"[:\[,][^/]*$")


def to_table(samples: Iterable[Sample | pa.RecordBatch]) -> SampleTable:
    """The samples as a table, in their order; batches have the columns of :data:`SCHEMA`."""
    return SampleTable(pa.Table.from_batches(_batches(samples), SCHEMA))


def _batches(samples: Iterable[Sample | pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The samples as batches of :data:`SCHEMA`.

    Raises:
        KdkitError: ``extra`` of a sample cannot be stored.
    """
    rows, size = list[tuple[Any, ...]](), 0
    for sample in samples:
        if isinstance(sample, pa.RecordBatch):
            if rows:
                yield _batch(rows)
                rows, size = [], 0
            yield sample
            continue
        rows.append(_row(sample))
        size += len(sample.text) + len(rows[-1][6] or "")
        if len(rows) == ROWS or size > CHARACTERS:
            yield _batch(rows)
            rows, size = [], 0
    if rows:
        yield _batch(rows)


def _batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = []
    for field, values in zip(SCHEMA, columns, strict=True):
        if pa.types.is_dictionary(field.type):
            arrays.append(pa.array(values, pa.string()).dictionary_encode())
        else:
            arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _row(sample: Sample) -> tuple[Any, ...]:
    """The values of a sample, in the order of :data:`SCHEMA`."""
    group, extra, others = None, None, None
    if sample.extra:
        rest = dict(sample.extra)
        last, value = next(reversed(rest.items()))
        if last == GROUP and type(value) is str:
            group = rest.pop(GROUP)
        extra = encode_extra(rest, sample.origin) if rest else None
        others = [key_of(ref) for ref in further_images_of(sample)] or None
    image = sample.image
    reader = at = name = None
    if isinstance(image, ImageLocation):
        reader, file, at, name = image.reader, str(image.file), json.dumps(image.at), image.name or None
    else:
        file = str(image)
    place = line = None
    if sample.origin != file:
        place = printable(sample.origin)
        if place.startswith(file):
            place, line = file, place[len(file) :]
        elif cut := _TAIL.search(place):
            place, line = place[: cut.start()], cut[0]
    return (
        sample.id, sample.domain, sample.label, SPLITS.index(sample.split), sample.text, group, extra, file, reader, at,
        name, others, options_text(sample.image_options), place, line,
    )  # fmt: skip
