"""The two readers of CSV manifests: columns by Arrow, and rows."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kdkit.plugins.sources import manifest
from kdkit.plugins.sources.fast_csv import read_columns
from kdkit.plugins.sources.manifest import CsvManifest
from tests.plugins.sources.readers_agree import Outcome, by_rows
from tests.plugins.sources.readers_agree import by_columns as samples_of

HEADER = ["id", "image", "text", "domain", "label", "split", "group"]


def by_columns(reader: CsvManifest) -> Outcome | None:
    found = samples_of(read_columns(reader, reader.delimiter))
    return None if found is None else (found, [], "")


def written(folder: Path, text: str, **options: Any) -> CsvManifest:
    path = folder / "data.csv"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return CsvManifest(path, **options)


cells = st.sampled_from(
    [
        "",
        " ",
        "a",
        "b c",
        " padded ",
        "1",
        "ä",
        "a,b",
        'say "hi"',
        "two\nlines",
        "\u00a0x\u2003",
        "\x1cx",
        "x\x85",
        "-",
        "None",
    ]
) | st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=5)
images = st.sampled_from(
    ["a.png", "b/c.png", "./a.png", "a//b.png", "b/../a.png", "../x.png", "ROOT/a.png", "/else.png", " a.png", "x.dcm",
     "x.DCM/", "http://x/a.png", "a\\b.png", ".png", "..a.png", "a/", "ROOT/./b.png"]
)  # fmt: skip
splits = st.sampled_from(["train", "test", "calibration", " train", "val", "", "Train"])
rows = st.tuples(cells, images, cells.filter(str.strip), cells, cells, splits, cells)
plain = st.tuples(
    st.uuids().map(str), st.sampled_from(["a.png", "b/c.png"]), st.sampled_from(["x", "a, b", 'a "b"', " y"]),
    st.sampled_from(["ct", "mr "]), st.sampled_from(["", "one"]), st.sampled_from(["train", "test"]), st.just(""),
)  # fmt: skip
options = st.sampled_from(
    [
        {},
        {"splits": {"val": "calibration"}},
        {"constants": {"split": "test", "domain": "ct "}},
        {"constants": {"label": " "}},
        {"columns": {"text": "label"}},
        {"columns": {"group": "absent"}},
        {"id_prefix": "p/", "image_root": "sub"},
        {"split_fractions": {"train": 0.5, "test": 0.5}},
        {"caption": "{domain}"},
        {"extra": ["group"]},
        {"delimiter": ";"},
    ]
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    found=st.lists(plain, max_size=6) | st.lists(rows | plain, max_size=3),
    kept=st.just(HEADER) | st.lists(st.sampled_from(HEADER), unique=True, min_size=4) | st.permutations(HEADER),
    given=options,
    ends=st.sampled_from(["\n", "\r\n"]),
    blank=st.booleans(),
    last=st.booleans(),
)
def test_both_readers_agree(
    tmp_path: Path, found: list[Any], kept: list[str], given: dict[str, Any], ends: str, blank: bool, last: bool
) -> None:
    stream = io.StringIO()
    writer = csv.DictWriter(
        stream, kept, extrasaction="ignore", lineterminator=ends, delimiter=given.get("delimiter", ",")
    )
    writer.writeheader()
    for number, row in enumerate(found):
        stream.write(ends * (blank and number == 1))
        writer.writerow(dict(zip(HEADER, row, strict=True)))
    text = stream.getvalue().replace("ROOT", str(tmp_path))
    reader = written(tmp_path, text if last else text.removesuffix(ends), **given)
    fast = by_columns(reader)
    assert fast is None or fast == by_rows(reader)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.text(st.sampled_from('ab,"\n\r\0é \ud83d'), max_size=24))
def test_both_readers_agree_on_any_text(tmp_path: Path, body: str) -> None:
    given = {"constants": {"domain": "ct", "split": "train"}, "columns": {"id": "a", "image": "b", "text": "b"}}
    reader = written(tmp_path, "a,b\n" + body, **given)
    fast = by_columns(reader)
    assert fast is None or fast == by_rows(reader)


@pytest.mark.parametrize(
    "text",
    [
        "id,image,text,domain,split\n1,a.png,x,ct,train\n2,b.png,\"y, z\",ct,test\n",
        'id,image,text,domain,split\r\n\r\n1,a.png, x ,ct,train\r\n\r\n2,b.png,"""y""\nz",ct,test\r\n3,c.png,é,mr,test',
        "image,text,domain,split,group\n./a.png,x,ct,train,\nb/../c.png,y,ct,test,p1\n",
    ],
)  # fmt: skip
def test_usual_files_are_read_by_columns(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = written(tmp_path, text)
    assert by_columns(reader) == by_rows(reader)
    monkeypatch.setattr(manifest, "read_columns", lambda *_: None)
    assert [one.id for one in reader] == [one.id for one in by_rows(reader)[0]]
