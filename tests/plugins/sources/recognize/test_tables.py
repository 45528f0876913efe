"""Tables are recognized, and then read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import Recognition
from kdkit.plugins.sources.recognize.tables import recognize_csv, recognize_jsonl, recognize_parquet
from tests.core.features.small import paint
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_parquet
from tests.plugins.sources.files import read, write_manifest

ROWS = [
    {"file": f"{n}.png", "report": f"scan; number {n}", "dx": ["cyst", "normal"][n % 2], "Patient": f"p{n // 2}"}
    for n in range(6)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for row in ROWS:
        paint(tmp_path / "scans" / "pictures" / row["file"], seed=1)
    return tmp_path / "scans"


def samples(source: str, found: Recognition | None) -> list[Any]:
    assert found is not None
    return read(source, found.path, **found.options)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_of_any_delimiter_and_encoding(folder: Path, delimiter: str, encoding: str) -> None:
    quote = '"' if delimiter in ";," else ""
    lines = [delimiter.join(ROWS[0]), *(delimiter.join(f"{quote}{v}{quote}" for v in row.values()) for row in ROWS)]
    path = folder / "rows.csv"
    path.write_text("\n".join(lines), encoding=encoding)
    found = recognize_csv(folder)
    assert found is not None
    assert found.path == path
    assert found.options.get("delimiter", ",") == delimiter
    assert any(line.startswith(f"encoding: {encoding[:5]}") for line in found.says)
    read_back = samples("csv", found)
    assert [(one.id, one.text, one.label, one.domain) for one in read_back[:2]] == [
        ("0.png", "scan; number 0", "cyst", "rows"),
        ("1.png", "scan; number 1", "normal", "rows"),
    ]
    assert all(a.split == b.split for a, b in zip(read_back[::2], read_back[1::2], strict=True))
    assert recognize_jsonl(folder) is None


def test_jsonl(folder: Path) -> None:
    write_manifest(folder / "samples.jsonl", ROWS)
    assert {one.domain for one in samples("jsonl", recognize_jsonl(folder))} == {"scans"}
    assert recognize_csv(folder) is None
    write_manifest(folder / "more.jsonl", ROWS)
    assert recognize_jsonl(folder) is None  # which of the two?
    assert recognize_jsonl(folder / "more.jsonl") is not None


def test_tables_without_images(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    table = write_manifest(tmp_path / "other" / "rows.csv", ROWS[:2])
    for path in (folder / "pictures").iterdir():
        path.unlink()
    with raises_error("KD-SRC-107", where=str(table)) as caught:
        recognize_csv(table)
    assert "0.png" in caught.value.why
    write_manifest(table, [{"a": "1", "label": "2"}])
    with raises_error("KD-SRC-108", where=str(table)):
        recognize_csv(table)
    assert recognize_csv(table.parent) is None  # a table beside images need not list them


def test_a_column_without_images_is_refused(folder: Path) -> None:
    table = write_manifest(folder / "rows.csv", [{"image": "", "text": "a scan"}])
    with raises_error("KD-SRC-107", where=str(table)):
        recognize_csv(table)


def test_parquet_beside_its_images(folder: Path) -> None:
    columns: dict[str, list[Any]] = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    write_parquet(folder / "data" / "part-0.parquet", columns)
    found = samples("parquet", recognize_parquet(folder))
    assert found[0].image == folder / "pictures" / "0.png"


def test_parquet_cells_and_paths(folder: Path, tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    path = write_parquet(folder / "rows.parquet", columns)
    assert [one.image for one in samples("parquet", recognize_parquet(path))][:1] == [folder / "pictures" / "0.png"]
    structs = [{"bytes": png(n), "path": None} for n in range(6)]
    cells = {"picture": structs, "label": columns["dx"]}
    for name in ("train-0", "test-0"):
        write_parquet(tmp_path / "hub" / f"{name}.parquet", cells)
    found = samples("parquet", recognize_parquet(tmp_path / "hub"))
    assert [one.split for one in found] == ["test"] * 6 + ["train"] * 6
    assert found[0].text == "a hub image of cyst"
    assert recognize_parquet(tmp_path / "scans" / "pictures") is None


@pytest.mark.parametrize(
    ("column", "values", "id"),
    [
        ("label", [1.5, "cyst"], "KD-SRC-154"),
        ("text", [["one", "two"], "three"], "KD-SRC-154"),
        ("group", [True, False], "KD-SRC-154"),
        ("split", ["fold1", "fold2"], "KD-SRC-155"),
        ("split", ["train", ""], "KD-SRC-155"),
    ],
)
def test_columns_that_the_reader_would_refuse_are_told_at_once(
    folder: Path, column: str, values: list[Any], id: str
) -> None:
    rows = [{**row, "image": row["file"], column: values[n % 2]} for n, row in enumerate(ROWS)]
    path = write_manifest(folder / "samples.jsonl", rows)
    with raises_error(id, where=str(path), mentions=(f"'{column}'",)):
        recognize_jsonl(path)
