"""The two readers of JSON Lines manifests: columns by Arrow, and rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdkit.plugins.sources.fast_jsonl import read_jsonl_columns, refuse_odd_value
from kdkit.plugins.sources.manifest import JsonlManifest
from tests.errors import raises_error
from tests.plugins.sources.readers_agree import by_columns, by_rows

ROW = {"id": "a", "image": "a.png", "text": "t", "domain": "ct", "split": "train", "label": "x", "group": "p"}
values = st.sampled_from(
    ["a", "", " b ", None, 7, 1.5, True, "ä", "\x1cx", ["a"], {"a": 1}, "a\0b", 'say "id"', "x\u2028y"]
)
names = st.sampled_from(["id", "image", "text", "domain", "split", "label", "group", "extra", "other"])
odd = st.tuples(st.dictionaries(names, values, max_size=2), st.sets(names, max_size=1))
options = st.sampled_from(
    [{}, {"columns": {"label": "other"}}, {"constants": {"split": "test"}}, {"id_prefix": "p/"},
     {"splits": {"a": "test"}}, {"split_fractions": {"train": 0.5, "test": 0.5}}]
)  # fmt: skip


def written(folder: Path, text: str, **options: Any) -> JsonlManifest:
    path = folder / "data.jsonl"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return JsonlManifest(path, **options)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(odd | st.just(({}, set())), min_size=1, max_size=3),
    escaped=st.booleans(),
    ends=st.sampled_from(["\n", "\r\n", "\n\n"]),
    given=options,
)
def test_both_readers_agree(
    tmp_path: Path, changes: list[Any], escaped: bool, ends: str, given: dict[str, Any]
) -> None:
    rows = [
        {name: value for name, value in {**ROW, "id": f"s{number}", **change}.items() if name not in gone}
        for number, (change, gone) in enumerate(changes)
    ]
    reader = written(tmp_path, "".join(json.dumps(row, ensure_ascii=escaped) + ends for row in rows), **given)
    found = by_columns(read_jsonl_columns(reader))
    if found is not None:
        assert (found, [], "") == by_rows(reader)


@pytest.mark.parametrize("fast", [True, False])
def test_usual_files_are_read_by_columns(tmp_path: Path, fast: bool) -> None:
    rows = [{**ROW, "id": f"s{n}", "age": n, "extra" if not fast else "more": {"a": 1}} for n in range(5)]
    reader = written(tmp_path, "\n".join(json.dumps(row) for row in rows) + "\n\n")
    found = read_jsonl_columns(reader)
    assert (found is not None) == fast
    assert len(list(reader)) == (1 if fast else 5)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ufeff{}",
        "[1]",
        json.dumps(ROW) + json.dumps({**ROW, "id": "b"}),  # two objects in a line
        json.dumps(ROW)[:-1] + ', "id": "b"}',  # a key twice
        json.dumps(ROW)[:-1] + ', "\\u0065xtra": {"messages": []}}',
        json.dumps(ROW) + " x",
        " " + json.dumps(ROW),
        json.dumps({**ROW, "text": "\ud800"}),
    ],
)
def test_odd_files_are_read_by_rows(tmp_path: Path, text: str) -> None:
    assert read_jsonl_columns(written(tmp_path, text)) is None


@pytest.mark.parametrize("value", ["1.5", "true", "-Infinity"])
def test_a_field_that_is_no_text_is_told_before_the_rows_are_read(tmp_path: Path, value: str) -> None:
    lines = [json.dumps({**ROW, "id": f"s{n}", "other": {"label": 1.5}}) for n in range(5)]
    lines[3] = json.dumps({**ROW, "id": "s3"}).replace('"label": "x"', f'"label" : {value}')
    lines[0] = lines[0].replace('{"label": 1.5}', "1")
    lines[1] = lines[2] = json.dumps({**ROW, "id": "s1"})  # the same id twice is no matter of the reader
    reader = written(tmp_path, "\n".join(lines))
    with raises_error("KD-SRC-049", where=f"{reader.location}:4"):
        refuse_odd_value(reader)
    with raises_error("KD-SRC-049", where=f"{reader.location}:4"):
        next(iter(reader))


def test_numbers_elsewhere_are_no_fields(tmp_path: Path) -> None:
    refuse_odd_value(written(tmp_path, json.dumps({**ROW, "extra": {"label": 1.5}})))
    refuse_odd_value(written(tmp_path, json.dumps({**ROW, "text": 1.5}), caption="a {domain}"))
    refuse_odd_value(written(tmp_path, ""))
