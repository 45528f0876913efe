"""Groups of samples, and few labels drawn among many."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kdkit.core.contracts import Sample, Split
from kdkit.core.evaluation.sampling import few_per_class, require_separate_groups, sample_groups, share_per_class
from tests.errors import raises_error


def sample(name: str, split: Split = "test", domain: str = "ct", group: str | None = None) -> Sample:
    extra = {} if group is None else {"group": group}
    return Sample(name, Path("x.png"), "", domain, "a", split, origin=f"data.csv:{name}", extra=extra)


def test_a_group_is_one_in_its_domain() -> None:
    samples = [sample("1", group="p"), sample("2"), sample("3", group="p"), sample("4", domain="mri", group="p")]
    assert sample_groups(samples).tolist() == [0, 1, 0, 2]
    assert sample_groups([]).tolist() == []


def test_a_group_in_two_splits_is_refused_and_named() -> None:
    train = [sample("1", "train", group="p7"), sample("2", "train")]
    require_separate_groups(train, [sample("3", group="p8"), sample("4", domain="mri", group="p7"), sample("2")])
    with raises_error("KD-EVAL-014", where="data.csv:3", mentions=("'p7'", "'1'", "'3'", "'train'", "'test'")):
        require_separate_groups(train, [sample("3", group="p7")])


def test_few_labels_are_of_different_groups_if_possible() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1])
    groups = np.array([0, 0, 0, 1, 2, 2])
    for seed in range(20):
        rows = few_per_class(np.arange(6), labels, groups, 2, np.random.default_rng(seed))
        assert np.bincount(labels[rows]).tolist() == [2, 2]
        assert 3 in rows  # the only other group of class 0


def test_a_share_has_every_class() -> None:
    labels = np.repeat([0, 1, 2], [200, 30, 2])
    rows = share_per_class(labels, 0.1, np.random.default_rng(0))
    assert np.bincount(labels[rows]).tolist() == [20, 3, 1]
