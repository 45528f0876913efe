"""Groups of samples (patients), and few labels drawn among many. Public: evaluation tasks of plugins may use it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Sample

GROUP = "group"
"""Key of ``Sample.extra`` with the patient or the study of a sample."""
Integers = np.ndarray[Any, np.dtype[np.int64]]


def sample_groups(samples: Sequence[Sample]) -> Integers:
    """(N,) equal numbers for samples of one group, numbered by first occurrence; a sample without one is its own.

    Two domains may use one name for two patients.

    Example:
        >>> from pathlib import Path
        >>> def sample(name, **extra):
        ...     return Sample(name, Path("x.png"), "", "ct", extra=extra)
        >>> sample_groups([sample("a", group="p1"), sample("b"), sample("c", group="p1")]).tolist()
        [0, 1, 0]
    """
    numbers: dict[tuple[str, str, str], int] = {}
    return np.array([numbers.setdefault(_group_key(sample), len(numbers)) for sample in samples], dtype=np.int64)


def image_groups(samples: Sequence[Sample]) -> Integers:
    """(N,) as :func:`sample_groups`; samples without a group are one group if they have the same image.

    Several questions about one image are no independent evidence.

    Example:
        >>> from pathlib import Path
        >>> def sample(name, image, **extra):
        ...     return Sample(name, Path(image), "", "vqa/ct", extra=extra)
        >>> image_groups([sample("a", "1.png"), sample("b", "1.png"), sample("c", "2.png", group="p1")]).tolist()
        [0, 0, 1]
    """
    numbers: dict[object, int] = {}
    keys = (_group_key(sample) if GROUP in sample.extra else sample.image for sample in samples)
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def require_separate_groups(fitting: Iterable[Sample], held_out: Iterable[Sample]) -> None:
    """Refuse groups with samples on both sides: a classifier would be tested on patients that it was fitted on.

    Raises:
        KdkitError: the first such group, with one of its samples on each side.
    """
    seen = {_group_key(sample): sample for sample in fitting if GROUP in sample.extra}
    shared = {key: sample for sample in held_out if (key := _group_key(sample)) in seen}
    if shared:
        key, sample = next(iter(shared.items()))
        other = seen[key]
        raise KdkitError(
            "KD-EVAL-014",
            f"group '{sample.extra[GROUP]}' of domain '{sample.domain}' has samples in the splits '{other.split}' and "
            f"'{sample.split}': '{other.id}' and '{sample.id}'",
            where=sample.origin,
            why=f"{len(shared)} groups span splits, so a classifier would be tested on patients that it was fitted on",
            fix="give all samples of a group one split ('split_fractions' of a data entry does); "
            "'kdkit data check' lists such groups",
            code=ExitCode.FOUND,
        )


def few_per_class(rows: Integers, labels: Integers, groups: Integers, shots: int, rng: np.random.Generator) -> Integers:
    """At most ``shots`` of ``rows`` per class, of different groups if there are enough.

    Args:
        rows: (n,) into ``labels`` and ``groups``, both (N,).
    """
    chosen: list[int] = []
    mixed = rng.permutation(rows)
    for label in np.unique(labels[rows]):
        own = mixed[labels[mixed] == label]
        firsts = np.sort(np.unique(groups[own], return_index=True)[1])
        others = np.setdiff1d(np.arange(len(own)), firsts)
        chosen += own[np.concatenate([firsts, others])[:shots]].tolist()
    return np.array(chosen, dtype=np.int64)


def share_per_class(labels: Integers, share: float, rng: np.random.Generator) -> Integers:
    """Rows (n,) of a share of the samples of every class, at least one each, ascending.

    Example:
        >>> share_per_class(np.array([0] * 10 + [1] * 3), 0.2, np.random.default_rng(0)).tolist()
        [4, 6, 10]
    """
    chosen = [
        rng.permutation(own)[: max(1, round(share * len(own)))]
        for own in (np.flatnonzero(labels == label) for label in np.unique(labels))
    ]
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def of_each_domain(samples: Iterable[Sample]) -> Iterator[tuple[str, list[Sample]]]:
    """(domain, its samples), in the order in which domains first occur."""
    found: dict[str, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.domain, []).append(sample)
    yield from found.items()


def _group_key(sample: Sample) -> tuple[str, str, str]:
    if GROUP in sample.extra:
        return sample.domain, GROUP, str(sample.extra[GROUP])
    return sample.domain, "id", sample.id
