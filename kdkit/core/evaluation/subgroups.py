"""Subgroups of samples by columns of the data, such as sex, age or scanner."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import Sample, columns_of

MISSING = ("", "nan", "na", "n/a", "<na>", "null")
VALUES = 10
"""A column of numbers with more different values is cut at its quartiles."""


def read_subgroups(samples: Iterable[Sample], by: Sequence[str]) -> dict[str, dict[str, str]]:
    """Column -> sample id -> value; samples without a value are absent.

    Numbers with many values, such as ages, are cut at their quartiles: ``45 to 61`` is above 45 and at most 61. Texts
    among them, such as ``unknown``, are values of their own; ``NA`` and ``nan`` are no value.

    Raises:
        KdkitError: no sample has the column.
    """
    found: dict[str, dict[str, str]] = {column: {} for column in by}
    known: set[str] = set()
    for sample in samples if by else ():
        columns = columns_of(sample)
        known |= columns.keys()
        for column in by:
            if (value := columns.get(column, "")).lower() not in MISSING:
                found[column][sample.id] = value
    for column, values in found.items():
        if not values:
            raise KdkitError(
                "KD-EVAL-230",
                f"no sample has a value in the column '{column}'",
                where="by",
                why=f"columns: {', '.join(sorted(known)) or 'none'}",
                fix=f"{did_you_mean(column, sorted(known))}; columns of a table are kept by the option "
                f"metadata: [{column}] of the data entry",
            )
    return {column: _cut(values) for column, values in found.items()}


def _cut(values: Mapping[str, str]) -> dict[str, str]:
    """Numbers by their size, then texts; numbers are cut where they are many, and most of the values."""
    numbers = {name: number for name, value in values.items() if (number := _number(value)) is not None}
    numbers = dict(sorted(numbers.items(), key=lambda item: item[1]))
    texts = dict(sorted(((n, v) for n, v in values.items() if n not in numbers), key=lambda item: item[1]))
    if len({values[name] for name in numbers}) <= VALUES or len(numbers) <= len(texts):
        if texts:
            return dict(sorted(values.items(), key=lambda item: item[1]))
        return {name: values[name] for name in numbers}
    edges = np.unique(np.quantile(list(numbers.values()), [0.25, 0.5, 0.75], method="lower"))
    names = [f"up to {edges[0]:g}", *(f"{a:g} to {b:g}" for a, b in pairwise(edges))]
    names.append(f"above {edges[-1]:g}")
    places = np.searchsorted(edges, list(numbers.values()), side="left")
    return {name: names[place] for name, place in zip(numbers, places, strict=True)} | texts


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None
