"""Images that an extraction could not read: tried again, and reported by every command that needs them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter, Sample
from kdkit.core.data.images import UnreadableImage, decoding_threads, open_further_images, open_image
from kdkit.core.data.names import name_some
from kdkit.core.features.extract.prefetch import prefetch
from kdkit.core.features.store.column import Column

if TYPE_CHECKING:
    from PIL.Image import Image

    from kdkit.core.data.index import SampleIndex

Mask = NDArray[np.bool_]


def unreadable_images(columns: Iterable[Column], index: SampleIndex) -> Mask:
    """(N,) images that an extraction of one of the columns could not read."""
    failed = np.zeros(len(index), dtype=bool)
    for column in columns:
        failed |= column.unreadable(index)
    return failed


def readable_again(columns: Iterable[Column], index: SampleIndex) -> Mask:
    """(N,) those of :func:`unreadable_images` that can be read now: the error was of the moment."""
    again = np.zeros(len(index), dtype=bool)
    rows = np.flatnonzero(unreadable_images(columns, index))
    threads = decoding_threads()
    work = [(index.samples[row], (_open_others,)) for row in rows]
    with closing(prefetch(work, threads, ahead=2 * threads)) as results:
        for row, result in zip(rows, results, strict=True):
            again[row] = not isinstance(result, KdkitError)
    return again


def report_unreadable(columns: Iterable[Column], index: SampleIndex, reporter: Reporter) -> None:
    """Warn of unreadable images that their data entry skips.

    Raises:
        KdkitError: it does not skip one of them.
    """
    failed = unreadable_images(columns, index)
    if not failed.any():
        return
    refused = np.flatnonzero(failed & ~index.may_skip)
    if not len(refused):
        skipped = name_some(index.ids[i] for i in np.flatnonzero(failed))
        reporter.warn(f"{int(failed.sum())} unreadable images skipped: {skipped}")
        return
    raise KdkitError(
        "KD-FEAT-005",
        f"{len(refused)} of {len(index)} images cannot be read: {name_some(index.ids[i] for i in refused)}",
        where=str(index.samples[refused[0]].image),
        why=f"{_reason(index.samples[refused[0]])}the features of all other images are stored",
        fix="repair or remove the files ('kdkit data check' lists them), or set skip_unreadable: true in the options "
        "of their data entry",
        code=ExitCode.FOUND,
    )


def _reason(sample: Sample) -> str:
    """Why the image cannot be read, if that is still so."""
    try:
        _open_others(open_image(sample), sample)
    except UnreadableImage as error:
        return f"{error.why}; "
    return ""


def _open_others(_: Image, sample: Sample) -> None:
    """Open the sample's further images, as the models that take several do."""
    open_further_images(sample)
