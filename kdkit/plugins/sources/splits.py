"""Assigning a split by a stable hash: the same key gets the same split on every machine and for ever."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.contracts import SPLITS, Split


def read_fractions(fractions: Mapping[str, float], where: str) -> dict[Split, float]:
    """Check ``split_fractions``: known split names, none negative, sum 1.

    Raises:
        KdkitError: naming what is wrong.
    """
    for name, value in fractions.items():
        if name not in SPLITS:
            raise KdkitError(
                "KD-SRC-067", f"split_fractions: '{name}' is not a split", where=where, fix=did_you_mean(name, SPLITS)
            )
        if not isinstance(value, int | float) or value < 0:
            raise KdkitError(
                "KD-SRC-068", f"split_fractions: {name} is {value!r}; it must be a number of at least 0", where=where
            )
    if abs(sum(fractions.values()) - 1) > 1e-6:
        raise KdkitError(
            "KD-SRC-069",
            f"split_fractions sum to {sum(fractions.values()):g}, not 1",
            where=where,
            fix="for example split_fractions: {train: 0.8, calibration: 0.1, test: 0.1}",
        )
    return {split: float(fractions.get(split, 0.0)) for split in SPLITS}


def stable_split(key: str, fractions: Mapping[Split, float]) -> Split:
    """The split of all that share ``key``: a sample's id, or its group, so that a patient never spans two.

    The key's hash, read as a number in [0, 1), falls into one of consecutive intervals of the given lengths.
    """
    position = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
    end = 0.0
    for split, fraction in fractions.items():
        end += fraction
        if position < end:
            return split
    return max(fractions, key=lambda split: fractions[split])  # rounding left position just above the sum
