"""Subgroups by columns of the data."""

from __future__ import annotations

import numpy as np

from kdkit.core.evaluation.subgroups import read_subgroups
from tests.errors import raises_error
from tests.plugins.tasks.views import sample


def test_values_are_those_of_the_metadata_and_of_extra() -> None:
    samples = [sample("a", metadata={"sex": "F"}), sample("b", scanner="x"), sample("c", metadata={"sex": " "})]
    assert read_subgroups(samples, ["sex", "scanner"]) == {"sex": {"a": "F"}, "scanner": {"b": "x"}}


def test_numbers_with_many_values_are_cut_at_their_quartiles() -> None:
    ages = np.random.default_rng(0).permutation(80) + 1
    samples = [sample(f"s{age}", metadata={"age": int(age)}) for age in ages]
    found = read_subgroups(samples, ["age"])["age"]
    assert {name: sum(value == name for value in found.values()) for name in sorted(set(found.values()))} == {
        "20 to 40": 20, "40 to 60": 20, "above 60": 20, "up to 20": 20,
    }  # fmt: skip
    assert found["s20"] == "up to 20"
    assert found["s21"] == "20 to 40"


def test_an_unknown_column_is_an_error() -> None:
    with raises_error("KD-EVAL-230", mentions=("sex",)):
        read_subgroups([sample("a", metadata={"sex": "F"})], ["sexx"])


def test_values_that_are_missing_or_text_do_not_change_the_cut_of_numbers() -> None:
    """Against the cut of the numbers alone."""
    ages = [sample(f"s{age}", metadata={"age": age}) for age in range(1, 81)]
    others = {"a": "nan", "b": "NA", "c": float("nan"), "d": "unknown", "e": "90+"}
    more = [sample(name, metadata={"age": value}) for name, value in others.items()]
    alone = read_subgroups(ages, ["age"])["age"]
    assert read_subgroups([*more, *ages], ["age"])["age"] == {**alone, "d": "unknown", "e": "90+"}
    assert len(set(alone.values())) == 4
    with raises_error("KD-EVAL-230"):
        read_subgroups(more[:3], ["age"])


def test_mostly_texts_are_not_cut() -> None:
    samples = [sample(f"s{n}", metadata={"scanner": n if n < 12 else f"x{n}"}) for n in range(30)]
    assert len(set(read_subgroups(samples, ["scanner"])["scanner"].values())) == 30
