"""Batches of samples that sources may yield beside samples; all checks are made on whole columns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import SPLITS, Sample, Split
from kdkit.core.data.table import GROUP, SCHEMA, SampleTable

NEEDED = ("id", "image", "text", "domain", "split")
OPTIONAL = ("label", GROUP, "file", "line", "reader", "at", "name")
_REDUNDANT = r"//|/\.(/|$)|./$"
"""Parts of a path that :class:`~pathlib.Path` leaves out."""


def from_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same samples with the columns of :data:`~kdkit.core.data.table.SCHEMA`.

    Args:
        batch: the columns ``id``, ``image`` (absolute paths of image files), ``text``, ``domain`` and ``split`` are
            texts without nulls; ``label`` and ``group`` are texts; ``file`` (a text) and ``line`` (a number) say where
            a sample comes from, by default its image. Columns of texts may be dictionaries. ``reader``, ``at`` (a list
            in JSON) and ``name`` are those of an ``ImageLocation`` whose file is ``image``.

    Raises:
        KdkitError: a column is missing, unknown, or of another type.
    """
    names = batch.schema.names
    problem = [f"no column '{name}'" for name in NEEDED if name not in names]
    problem += [f"a column '{name}'" for name in names if name not in (*NEEDED, *OPTIONAL)]
    problem += [f"'{name}' is {batch.schema.field(name).type}" for name in names if not _fits(batch.schema.field(name))]
    problem += [f"'{name}' has nulls" for name in NEEDED if name in names and batch.column(name).null_count]
    if problem:
        raise KdkitError(
            "KD-DATA-182",
            f"a batch of samples has {problem[0]}" if "column" in problem[0] else f"a batch of samples: {problem[0]}",
            why=f"columns: {', '.join(names)}",
            fix="report this to the authors of the source",
            code=ExitCode.PLUGIN,
        )
    batch.validate(full=True)
    given = {name: batch.column(name) for name in names}
    split = pc.index_in(_texts(given["split"]), pa.array(SPLITS))
    line = given.get("line")
    found: dict[str, Any] = {
        **given,
        "split": split.cast(pa.int8()),
        "file": _normal(given["image"]),
        "place": given.get("file"),
        "line": None if line is None else pc.binary_join_element_wise(":", line.cast(pa.string()), ""),
    }
    return pa.RecordBatch.from_arrays(
        [_as(found.get(field.name), field, batch.num_rows) for field in SCHEMA], schema=SCHEMA
    )


def in_samples(items: Iterable[Any]) -> Iterator[Any]:
    """The items of a source, with the samples of batches one by one."""
    for item in items:
        if isinstance(item, pa.RecordBatch):
            yield from SampleTable(pa.Table.from_batches([from_batch(item)]))
        else:
            yield item


def odd_row(batch: pa.RecordBatch) -> Sample | None:
    """The first sample of a batch that no source may yield; None if all are well."""
    empty = pc.or_(pc.equal(_texts(batch.column("id")), ""), pc.equal(_texts(batch.column("domain")), ""))
    odd = pc.or_(empty, pc.invert(pc.is_in(_texts(batch.column("split")), pa.array(SPLITS))))
    images = _texts(batch.column("image"))
    if os.sep == "/":
        odd = pc.or_(odd, pc.invert(pc.starts_with(images, "/")))
    else:
        odd = pc.or_(odd, pa.array([not os.path.isabs(path) for path in images.to_pylist()]))
    row = pc.index(odd, True).as_py()
    if row < 0:
        return None
    value = {name: batch.column(name)[row].as_py() for name in NEEDED}
    image, split = Path(value["image"]), cast(Split, value["split"])
    return Sample(value["id"], image, value["text"], value["domain"], split=split, origin=str(image))


def _fits(field: pa.Field) -> bool:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if field.name == "line":
        return bool(pa.types.is_integer(field.type))
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _normal(images: pa.Array) -> pa.Array:
    """The paths as those of samples are written, so that an image has one key."""
    texts = _texts(images)
    if not pc.any(pc.match_substring_regex(texts, _REDUNDANT)).as_py():
        return images
    return pa.array([str(Path(text)) for text in texts.to_pylist()], pa.string())


def _texts(column: pa.Array) -> pa.Array:
    return column.cast(pa.string())


def _as(column: Any, field: pa.Field, count: int) -> pa.Array:
    if column is None:
        return pa.nulls(count, field.type)
    if pa.types.is_dictionary(field.type):
        coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        return coded.cast(field.type)
    return column.cast(field.type)
