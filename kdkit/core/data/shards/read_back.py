"""A shard counts when the source that will read it gives the very samples that were written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample, Skipped
from kdkit.core.data.batches import in_samples
from kdkit.core.data.locations import read_content
from kdkit.core.data.shards.request import READS
from kdkit.core.data.table import SampleTable, mask
from kdkit.core.plugin_system.catalogue import Catalogue

FIELDS = ("id", "text", "domain", "label", "split")


def content_digest(content: bytes) -> bytes:
    """Of an image's bytes."""
    return blake2b(content, digest_size=16).digest()


def require_equal(catalogue: Catalogue, shard: Path, written: Sequence[tuple[Sample, bytes]]) -> None:
    """Read a shard, and compare.

    Args:
        catalogue: has the source.
        shard: a whole tar file.
        written: each sample with the :func:`content_digest` of its image.

    Raises:
        KdkitError: a sample is another one; it and the field are named.
    """
    try:
        items = list(in_samples(catalogue.make("source", READS, location=shard)))
    except KdkitError as error:  # its place is in a draft, which is gone when the message is read
        place = error.where.rpartition("[")[2].rstrip("]")
        raise KdkitError(
            "KD-DATA-591",
            f"the source {READS} would refuse a sample of this shard",
            where=f"sample {place} of those chosen, from 0",
            why=f"{error.what}: {error.why}" if error.why else error.what,
            fix="correct the row; then begin in another folder",
        ) from error
    skipped = next((one for one in items if isinstance(one, Skipped)), None)
    if skipped is not None or len(items) != len(written):
        lost = f"the source leaves out: {skipped.what}" if skipped else f"{len(items)} of {len(written)} samples"
        raise _differs(written[0][0], "number of samples", lost)
    for found, (sample, digest) in zip(items, written, strict=True):
        for name in FIELDS:
            if getattr(found, name) != getattr(sample, name):
                raise _differs(sample, name, f"{getattr(sample, name)!r} becomes {getattr(found, name)!r}")
        if found.extra != sample.extra and _plain(found.extra) != _plain(sample.extra):
            raise _differs(sample, "extra", f"{_plain(sample.extra):.200} becomes {_plain(found.extra):.200}")
        if content_digest(read_content(found.image)) != digest:
            raise _differs(sample, "image", "its bytes differ: the disk or the memory is broken")


def require_unchanged(samples: SampleTable, rows: NDArray[np.int64]) -> None:
    """Find, before anything is written, texts that the source would change: it strips spaces, and knows no empty text.

    Raises:
        KdkitError: a text is such a one; its sample and field are named.
    """
    for name in ("id", "text", "domain", "label", "group"):
        texts = samples.column(name).cast(pa.string())
        odd = mask(pc.not_equal(pc.utf8_trim_whitespace(texts), texts)) | mask(pc.starts_with(texts, "\ufeff"))
        empty = mask(pc.equal(pc.binary_length(texts), 0))
        odd |= empty & ~samples.is_question if name == "text" else empty
        if odd[rows].any():
            sample = samples[int(rows[int(odd[rows].argmax())])]
            value = sample.extra["group"] if name == "group" else getattr(sample, name)
            raise _differs(sample, name, f"{value!r} is empty, or has spaces around it")


def _plain(extra: Any) -> str:
    return json.dumps(extra, default=str)


def _differs(sample: Sample, name: str, why: str) -> KdkitError:
    return KdkitError(
        "KD-DATA-510",
        f"the {name} of sample '{sample.id}' would not be the same in a shard",
        where=sample.origin,
        why=why,
        fix="correct the row, for example without spaces around the value; then begin in another folder",
    )
