"""JSON files of records."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.plugins.sources.questions import read_all
from kdkit.plugins.sources.records import file_below, json_object, json_records, text_of
from tests.errors import raises_error
from tests.plugins.sources.files import read


@pytest.mark.parametrize(
    ("content", "id", "line"),
    [
        ('[\n{"a": 1},\n{"broken\n]', "KD-SRC-033", 3),
        ('[\n{"a": 1}\n{"b": 2}\n]', "KD-SRC-033", 3),
        ('[\n{"a": 1},\n7\n]', "KD-SRC-028", 3),
        ('{"a": 1}\n{"b": 2\n', "KD-SRC-014", 2),
        ('{\n"a": 1}', "KD-SRC-014", 1),
        ('{"a": 1}\n{"b": 2, "c": {"d": 1, "d": 1}}', "KD-SRC-014", 2),
        ('[\n{"a": 1},\n{"b": 2, "b": 3}]', "KD-SRC-033", 3),
        ('"a"', "KD-SRC-033", 1),
        ("", "KD-SRC-033", 1),
        ("[]", "KD-SRC-026", None),
        ("[" * 100_000, "KD-SRC-033", 1),
        (f'[{{"a": {"9" * 5000}}}]', "KD-SRC-033", 1),
    ],
)
def test_damaged_files_are_reported_with_their_line(tmp_path: Path, content: str, id: str, line: int | None) -> None:
    path = tmp_path / "data.json"
    path.write_text(content, encoding="utf-8")
    with raises_error(id, where=f"{path}:{line}" if line else str(path)):
        list(read_all(json_records(path), lambda *_: (), path))


def test_lists_and_lines_are_told_apart_by_their_content(tmp_path: Path) -> None:
    for name, content in (("lines.json", '\n{"a": 1}\n{"a": 2}\n'), ("list.jsonl", '[{"a": 1},\n\n{"a": 2}]')):
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert list(json_records(tmp_path / "lines.json")) == [
        (f"{tmp_path / 'lines.json'}:2", {"a": 1}),
        (f"{tmp_path / 'lines.json'}:3", {"a": 2}),
    ]
    assert [row["a"] for _, row in json_records(tmp_path / "list.jsonl")] == [1, 2]


def test_absolute_paths_inside_of_the_root_are_files_of_it(tmp_path: Path) -> None:
    root, link = tmp_path / "root", tmp_path / "link"
    (root / "sub").mkdir(parents=True)
    link.symlink_to(root)
    assert file_below(root, str(root / "sub/a.png"), "x:1") == root / "sub/a.png"
    assert file_below(link, str(root / "sub/a.png"), "x:1") == link / "sub/a.png"
    assert file_below(root, str(link / "a.png"), "x:1") == root / "a.png"
    for name in (str(tmp_path / "a.png"), "../a.png", "sub/../../a.png", str(root), ".", "/"):
        with raises_error("KD-SRC-036", where="x:1"):
            file_below(root, name, "x:1")


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("https://example.org/a.png", "KD-SRC-042"),
        ("data:image/png;base64,AA", "KD-SRC-042"),
        ("a\0.png", "KD-SRC-035"),
    ],
)
def test_what_is_no_local_file_is_refused(tmp_path: Path, name: str, id: str) -> None:
    with raises_error(id):
        file_below(tmp_path, name, "x:1")


def test_numbers_that_are_none_are_no_text() -> None:
    assert text_of({"id": 7.5}, "id", "x:1") == "7.5"
    with raises_error("KD-SRC-034"):
        text_of({"id": float("nan")}, "id", "x:1")


@pytest.mark.parametrize("content", [b'{\n"a": ', b"[" * 100_000, b"{\xff}", b"[1]"])
def test_damaged_objects_are_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dataset_info.json"
    path.write_bytes(content)
    with raises_error(
        {b'{\n"a": ': "KD-SRC-030", b"{\xff}": "KD-SRC-032", b"[1]": "KD-SRC-031"}.get(content, "KD-SRC-030")
    ):
        json_object(path)


@pytest.mark.parametrize("source", ["csv", "jsonl", "coco-captions", "sharegpt", "webdataset", "parquet", "medmnist"])
def test_pointers_of_git_lfs_are_named(tmp_path: Path, source: str) -> None:
    path = tmp_path / "data"
    path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 417586\n")
    options = {"task": "vqa", "modality": "ct"} if source == "sharegpt" else {}
    with raises_error("KD-SRC-150", where=str(path)):
        read(source, path, **options)
