"""Splits by a stable hash."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core.contracts import Split
from kdkit.plugins.sources.fields import stable_split


def test_splits_by_hash_have_the_given_sizes_and_never_change() -> None:
    fractions: dict[Split, float] = {"train": 0.7, "calibration": 0.1, "test": 0.2}
    splits = [stable_split(f"sample-{i}", fractions) for i in range(20_000)]
    for split, fraction in fractions.items():
        deviation = np.sqrt(fraction * (1 - fraction) / len(splits))
        assert abs(splits.count(split) / len(splits) - fraction) < 4 * deviation
    # A change of the hash would move test samples of existing projects into training.
    assert {key: stable_split(key, fractions) for key in PINNED} == PINNED


PINNED: dict[str, Split] = {
    "patient-1": "train",
    "patient-2": "train",
    "é": "calibration",
    "images/0001": "calibration",
    "x": "train",
    "d": "calibration",
    "k": "train",
}


@given(st.text(), st.sampled_from(["train", "calibration", "test"]))
def test_a_fraction_of_one_takes_all(key: str, split: Split) -> None:
    assert stable_split(key, {"train": 0.0, "calibration": 0.0, "test": 0.0, split: 1.0}) == split


def test_half_a_surrogate_pair_is_left_to_the_check_of_samples() -> None:
    assert stable_split("\ud83d", {"train": 1.0, "calibration": 0.0, "test": 0.0}) == "train"
