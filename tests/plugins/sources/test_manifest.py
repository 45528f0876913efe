"""CSV and JSON Lines files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.errors import raises_error
from tests.plugins.sources.files import ROW, read


@pytest.mark.parametrize(
    ("name", "content", "id", "line"),
    [
        ("a.csv", b"id,image,id\n1,2,3\n", "KD-SRC-012", 1),
        ("a.csv", b"id,image,text,domain,split\n1,2,3,4,test\n1,2\n", "KD-SRC-009", 3),
        ("a.csv", b'id,image\n"a\nb",2,3\n', "KD-SRC-009", 2),
        ("a.csv", b"id,image\n1,2\n1,\xff\n", "KD-SRC-010", 3),
        ("a.csv", b'id,image,text,domain,split\n1,2,3,4,test\n"1,2,3,4,test\n1,2,3,4,test\n', "KD-SRC-011", 3),
        ("a.csv", b"id;image\n1;2\n", "KD-SRC-013", 1),
        ("a.csv", b"id,image,text,domain,split\n1,a\0b,3,4,test\n", "KD-SRC-048", 2),
        ("a.jsonl", b'{"id": "a\\u0000b"}\n', "KD-SRC-048", 1),
        ("a.jsonl", b'{"id": 1,\n', "KD-SRC-014", 1),
        ("a.jsonl", b"\n[1]\n", "KD-SRC-015", 2),
        ("a.jsonl", b'{"id": "\xff"}\n', "KD-SRC-014", 1),
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


def test_medmini(request: pytest.FixtureRequest) -> None:
    manifest = request.config.rootpath.parent / "shared" / "data" / "medmini" / "samples.jsonl"
    if not manifest.exists():
        pytest.skip("medmini is not here")
    samples = read("jsonl", manifest, columns={"domain": "modality", "text": "caption"})
    assert len(samples) == 5533
    assert len({sample.domain for sample in samples}) == 11
    assert all(sample.image.is_file() for sample in samples[::500])
