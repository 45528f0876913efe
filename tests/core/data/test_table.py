"""Samples as Arrow columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.core.contracts import SPLITS, ImageLocation, ImageOptions, Sample
from kdkit.core.data.collect import to_table
from kdkit.core.data.extra import decode_extra, encode_extra
from kdkit.core.data.index import SampleIndex, text_key
from kdkit.core.data.table import join_tables
from tests.errors import raises_error

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
names = texts.filter(bool)
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).map(
    Path("/data").joinpath
)
locations = st.builds(
    ImageLocation,
    names,
    paths,
    st.lists(st.none() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | texts, max_size=3).map(tuple),
    texts,
)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | paths | locations
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(texts | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
extras = st.dictionaries(st.sampled_from(["group", "messages", "\0path"]) | names, values, max_size=4)
with_images = st.lists(paths | locations, max_size=3).map(lambda found: {"images": found})
samples = st.builds(
    Sample,
    id=names,
    image=paths | locations,
    text=texts,
    domain=names,
    label=st.none() | texts,
    split=st.sampled_from(SPLITS),
    origin=texts | st.sampled_from(["/a.csv:17", "/a.tar[x/1]", "/a.json:1, record 3"]),
    extra=extras | with_images,
    image_options=st.builds(ImageOptions, st.none() | st.integers(0, 9), st.none() | st.integers(1, 9)),
)


@settings(max_examples=30, deadline=None)
@given(st.lists(samples, max_size=8))
def test_samples_come_back_as_they_were(given: list[Sample]) -> None:
    table = to_table(given)
    assert list(table) == given
    assert [table[row] for row in range(len(table))] == given
    assert [list(sample.extra) for sample in table] == [list(sample.extra) for sample in given], "the order of keys"
    joined = join_tables([table, to_table(given[::-1])])
    assert list(joined[1:]) == [*given, *given[::-1]][1:]
    assert list(joined.take(np.arange(len(joined))[::-1])) == [*given, *given[::-1]][::-1]


@settings(max_examples=30, deadline=None)
@given(st.lists(samples, max_size=12))
def test_arrays_are_those_of_the_samples(given: list[Sample]) -> None:
    index = SampleIndex(given, np.arange(len(given), dtype=np.uint64), np.zeros(len(given), dtype=bool))
    domains = sorted({one.domain for one in given})
    assert list(index.domains) == domains
    assert index.domain_index.tolist() == [domains.index(one.domain) for one in given]
    classes = {name: {s.label for s in given if s.domain == name and s.label is not None} for name in domains}
    assert {name: set(found) for name, found in index.classes.items()} == classes
    for one, number in zip(given, index.label_index.tolist(), strict=True):
        assert (None if number < 0 else index.classes[one.domain][number]) == one.label
    assert [SPLITS[number] for number in index.split_index] == [one.split for one in given]
    keys = list(dict.fromkeys(text_key(one.text) for one in given))
    assert index.text_index.tolist() == [keys.index(text_key(one.text)) for one in given]
    assert index.has_text.tolist() == [bool(one.text) for one in given]
    assert index.unanswered.tolist() == [not one.text and bool(one.extra.get("messages")) for one in given]
    for key in ("group", "messages"):
        assert index.rows_with(key).tolist() == [row for row, one in enumerate(given) if key in one.extra]


def test_extra_is_short_and_plain_json_where_possible() -> None:
    extra = {"messages": [{"role": "user", "content": "größer?"}], "task": "vqa"}
    assert json.loads(text := encode_extra(extra, "")) == extra
    assert "größer" in text
    assert decode_extra(text) == extra


@pytest.mark.parametrize("value", [{1, 2}, np.zeros(2), object()])
def test_extra_of_another_type_is_refused(value: Any) -> None:
    with raises_error("KD-DATA-180", where="a.csv:3", mentions=(type(value).__name__,)):
        to_table([Sample("a", Path("/a.png"), "", "ct", extra={"a": [value]}, origin="a.csv:3")])
