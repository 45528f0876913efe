"""CSV and JSON Lines files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kdkit.core.contracts import Sample, Skipped
from kdkit.core.data.locations import file_of
from tests.errors import raises_error
from tests.plugins.sources.files import ROW, read, read_all


@pytest.mark.parametrize(
    ("name", "content", "id", "line"),
    [
        ("a.csv", b"id,image,id\n1,2,3\n", "KD-SRC-012", 1),
        ("a.csv", b"id,image,text,domain,split\n1,2,3,4,test\n1,2\n", "KD-SRC-009", 3),
        ("a.csv", b'id,image\n"a\nb",2,3\n', "KD-SRC-009", 2),
        ("a.csv", b"id,image\n1,2\n1,\xff\n", "KD-SRC-032", 3),
        ("a.csv", b'id,image,text,domain,split\n1,2,3,4,test\n"1,2,3,4,test\n1,2,3,4,test\n', "KD-SRC-011", 3),
        ("a.csv", b"id;image\n1;2\n", "KD-SRC-013", 1),
        ("a.csv", b"id,image,text,domain,split\n1,a\0b,3,4,test\n", "KD-SRC-048", 2),
        ("a.jsonl", b'{"id": "a\\u0000b"}\n', "KD-SRC-048", 1),
        ("a.jsonl", b'{"id": 1,\n', "KD-SRC-014", 1),
        ("a.jsonl", b"\n[1]\n", "KD-SRC-015", 2),
        ("a.jsonl", b'\n{"id": "\xff"}\n', "KD-SRC-032", 2),
        ("a.jsonl", b'{"id": ["x"]}\n', "KD-SRC-049", 1),
        ("a.csv", b"", "KD-SRC-040", None),
        ("a.jsonl", b"", "KD-SRC-040", None),
    ],
)
def test_damaged_manifests_are_reported_with_their_line(
    tmp_path: Path, name: str, content: bytes, id: str, line: int | None
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with raises_error(id, where=f"{path}:{line}" if line else str(path)):
        read(path.suffix[1:], path)


def test_the_delimiter_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeff" + ";".join(ROW) + "\r\n" + ";".join(ROW.values()) + "\r\n", encoding="utf-8", newline="")
    (sample,) = read("csv", path, delimiter=";")
    assert (sample.id, sample.text, sample.label) == ("a", "a picture", "normal")
    with raises_error("KD-SRC-008", mentions=("';;'",)):
        read("csv", path, delimiter=";;")


CSV = ",".join(ROW) + "\n" + ",".join(ROW.values()) + "\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encodings_are_recognized(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes(CSV.replace("picture", "n\u00e6vus\u2028").replace("\n", "\r\n").encode(encoding))
    (tmp_path / "a.jsonl").write_bytes(
        (json.dumps({**ROW, "text": "a\u2028b"}, ensure_ascii=False) + "\r\n").encode(encoding)
    )
    assert [sample.text for sample in read("csv", tmp_path / "a.csv")] == ["a n\u00e6vus"]
    assert [sample.text for sample in read("jsonl", tmp_path / "a.jsonl")] == ["a\u2028b"]


def test_spreadsheets(tmp_path: Path) -> None:
    """Excel's line ``sep=``, empty rows at the end, and a text longer than the limit of Python's csv."""
    path = tmp_path / "a.csv"
    path.write_text("sep=;\n" + CSV.replace("picture", "x" * 200_000).replace(",", ";") + ";;;;;\n", encoding="utf-8")
    sample, skipped = read_all("csv", path)
    assert isinstance(sample, Sample)
    assert (len(sample.text), sample.origin) == (200_002, f"{path}:3")
    assert skipped == Skipped("empty rows", f"{path}:4", level="note")
    path.write_text("sep=;\nid;image\n1\n", encoding="utf-8")
    with raises_error("KD-SRC-009", where=f"{path}:3"):
        read("csv", path)
    path.write_text(CSV.splitlines()[0] + "\n,,,,,\n", encoding="utf-8")
    with raises_error("KD-SRC-040"):
        read("csv", path)


def test_medmini(request: pytest.FixtureRequest) -> None:
    manifest = request.config.rootpath.parent / "shared" / "data" / "medmini" / "samples.jsonl"
    if not manifest.exists():
        pytest.skip("medmini is not here")
    samples = read("jsonl", manifest, columns={"domain": "modality", "text": "caption"})
    assert len(samples) == 5533
    assert len({sample.domain for sample in samples}) == 11
    assert all(file_of(sample.image).is_file() for sample in samples[::500])


def test_columns_without_a_name_are_ignored(tmp_path: Path) -> None:
    """Spreadsheets end each line with delimiters where a cell to the right was once filled in."""
    (tmp_path / "m.csv").write_text("id,image,text,domain,split,,\n1,a.png,x,ct,train,,\n", encoding="utf-8")
    assert [one.id for one in read("csv", tmp_path / "m.csv")] == ["1"]
