"""The first pass over imported rows: ids, widths and finite numbers, and the samples that the ids belong to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import IMAGE
from kdkit.core.data.index import SampleIndex
from kdkit.core.features.imports.rows import FeatureRows, finite_rows

SHOWN = 3


@dataclass(frozen=True)
class CheckedRows:
    """What the first pass found.

    Attributes:
        ids: of all rows, in their order; no id occurs twice.
        widths: signal -> D.
    """

    ids: tuple[str, ...]
    widths: Mapping[str, int]


def check_rows(rows: FeatureRows, dtype: str, where: str) -> CheckedRows:
    """Read all rows once.

    Raises:
        KdkitError: no row; rows of several widths; NaN, infinity or numbers beyond ``dtype``; an id that occurs twice.
    """
    ids: list[str] = []
    widths: dict[str, int] = {}
    bad: dict[str, list[str]] = {}
    for part in rows.parts():
        ids += part.ids
        found = {signal: values.shape[1] for signal, values in part.values.items()}
        if widths and found != widths:
            first = f"'{ids[0]}' has {_widths(widths)}"
            raise _widths_differ(where, f"{first}, '{part.ids[0]}' has {_widths(found)}")
        widths = found
        for signal, values in part.values.items():
            wrong = np.flatnonzero(~finite_rows(values, dtype))
            bad.setdefault(signal, []).extend(part.ids[i] for i in wrong.tolist())
    if len(set(widths.values())) > 1:
        raise _widths_differ(where, f"{_widths(widths)}: images and texts are compared in one space")
    if not ids:
        raise KdkitError("KD-FEAT-025", "there are no features to import", where=where, fix="check the path")
    for signal, names in bad.items():
        if names:
            raise _not_finite(where, signal, names, dtype)
    _require_unique(ids, where)
    return CheckedRows(tuple(ids), widths)


@dataclass(frozen=True)
class MatchedRows:
    """Rows and samples with the same id.

    Attributes:
        samples: (rows,) index of each row's sample, -1 for none.
        rows_without_sample, samples_without_row: ids, in order.
    """

    samples: NDArray[np.int64]
    rows_without_sample: tuple[str, ...]
    samples_without_row: tuple[str, ...]

    @property
    def used(self) -> int:
        """Rows with a sample."""
        return int((self.samples >= 0).sum())


def match_rows(ids: Sequence[str], index: SampleIndex, where: str) -> MatchedRows:
    """Match ids exactly.

    Raises:
        KdkitError: no id is that of a sample, with the first of each side.
    """
    position = {id_: i for i, id_ in enumerate(index.ids)}
    samples = np.fromiter((position.get(id_, -1) for id_ in ids), np.int64, len(ids))
    there = set(ids)
    matched = MatchedRows(
        samples,
        tuple(id_ for id_ in ids if id_ not in position),
        tuple(id_ for id_ in index.ids if id_ not in there),
    )
    if not matched.used:
        raise KdkitError(
            "KD-FEAT-026",
            f"none of the {len(ids)} ids is that of one of the {len(index)} samples",
            where=where,
            why=f"the file has {first_ids(ids)}; the samples have {first_ids(index.ids)}",
            fix="write the samples' ids, as your data entries give them, into the file",
            code=ExitCode.FOUND,
        )
    return matched


def first_ids(ids: Sequence[str]) -> str:
    """The first three ids, quoted, and how many more there are."""
    shown = ", ".join(f"'{id_}'" for id_ in ids[:SHOWN])
    return shown + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")


def _require_unique(ids: Sequence[str], where: str) -> None:
    twice = [id_ for id_, count in Counter(ids).items() if count > 1]
    if not twice:
        return
    raise KdkitError(
        "KD-FEAT-027",
        f"{len(twice)} ids occur more than once",
        where=where,
        why=first_ids(twice),
        fix="keep one row per sample",
        code=ExitCode.FOUND,
    )


def _not_finite(where: str, signal: str, ids: Sequence[str], dtype: str) -> KdkitError:
    fix = "compute these rows again, or leave them out"
    return KdkitError(
        "KD-FEAT-028",
        f"{len(ids)} {signal} rows hold NaN, infinity or numbers beyond {dtype}",
        where=where,
        why=first_ids(ids),
        fix=fix if dtype == "float32" else f"{fix}; --float32 stores large numbers",
        code=ExitCode.FOUND,
    )


def _widths_differ(where: str, why: str) -> KdkitError:
    fix = "import features of one model; several models are several teachers"
    return KdkitError("KD-FEAT-029", "the vectors have different widths", where=where, why=why, fix=fix)


def _widths(widths: Mapping[str, int]) -> str:
    return ", ".join(f"{signal} {width}" for signal, width in sorted(widths.items(), key=lambda one: one[0] != IMAGE))
