"""The form in which a column leaves the project: features and content digests, without ids of samples.

A row is found by its sample's content digest alone (:meth:`Column.locate` knows such rows), so the same image and text
find it under any sample id. Rows lie in the order of the digests, which says nothing
about the order in the project, and only rows of samples that the project's data still hold are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.features.store.column import Column, Rows
from kdkit.core.features.store.shard import NO_ID, PRESENT, Shard, create_shard
from kdkit.core.features.store.sidecar import write_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kdkit.core.data.index import SampleIndex


@dataclass(frozen=True)
class SharedForm:
    """What was written of one column.

    Attributes:
        rows: with features; ``texts``: prompts.
        ambiguous: skipped samples: others have the same image and text, and so the same digest, but other features.
    """

    rows: int
    texts: int
    ambiguous: int


def write_shared_form(column: Column, table: SampleIndex, prompts: Sequence[str], folder: Path) -> SharedForm:
    """Write ``column.json``, shards and prompts of ``column`` into ``folder``; the same features give the same bytes.

    Args:
        table: rows of other samples are not written.
        prompts: of these, those that the column has.
        folder: new or empty.

    Raises:
        KdkitError: when the disk has no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    digests = np.concatenate([np.zeros(0, np.uint64), *(shard.digests for shard in column.shards)])
    rows = np.unique(column.locate(table))
    rows, ambiguous = _distinct(column, rows[rows >= 0], digests)
    starts = np.cumsum([0, *(len(shard) for shard in column.shards)])
    number = 0
    for start, stop in pairwise(starts.tolist()):
        here = rows[(rows >= start) & (rows < stop)]
        if len(here):
            here = here[np.argsort(digests[here], kind="stable")]
            _write_shard(column, here, digests[here], folder / f"shard-{number:04d}.h5")
            number += 1
    (folder / "column.json").write_text(column.header.to_json(), encoding="utf-8")
    texts = {text: column.texts[text] for text in prompts if text in column.texts}
    write_texts(folder, texts)
    return SharedForm(len(rows), len(texts), ambiguous)


def _distinct(column: Column, rows: Rows, digests: NDArray[np.uint64]) -> tuple[Rows, int]:
    """One row per digest with unique features, and the number of skipped rows."""
    ordered = rows[np.argsort(digests[rows], kind="stable")]
    _, first, count = np.unique(digests[ordered], return_index=True, return_counts=True)
    clear = count == 1
    for i in np.flatnonzero(~clear).tolist():
        same = ordered[first[i] : first[i] + count[i]]
        values: list[NDArray[Any]] = [column.gather(spec.name, same) for spec in column.signals]
        clear[i] = all(bool((array == array[:1]).all()) for array in values)
    return np.sort(ordered[first[clear]]), int(count[~clear].sum())


def _write_shard(column: Column, rows: Rows, digests: NDArray[np.uint64], path: Path) -> None:
    create_shard(path, column.header, [NO_ID] * len(rows), digests)
    shard = Shard(path, writable=True)
    for block in shard.pending():
        part = rows[shard.rows_of(block)]
        values = {spec.name: column.gather(spec.name, part) for spec in column.signals}
        shard.commit(block, values, np.full(len(part), PRESENT, np.uint8))
    shard.close()
