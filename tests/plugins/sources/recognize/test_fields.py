"""Columns are found by their names and values."""

from __future__ import annotations

import shutil
from pathlib import Path

from kdkit.plugins.sources.recognize.fields import (
    CHECKED,
    describe_fields,
    find_column,
    find_image_column,
    find_root,
)
from tests.core.features.small import paint
from tests.errors import raises_error


def test_columns_are_found_by_usual_names() -> None:
    columns = ["Image Path", "Patient-ID", "dx", "Caption"]
    found = [find_column(field, columns) for field in ("image", "group", "label", "text", "split")]
    assert found == ["Image Path", "Patient-ID", "dx", "Caption", None]
    assert find_column("text", ["caption", "text"]) == "text"


def test_images_are_found_by_their_values() -> None:
    rows = [{"file": "report.pdf", "scan": "a.PNG", "n": 3}, {"file": "b.pdf", "scan": "b.dcm", "n": 4}]
    assert find_image_column(rows, list(rows[0])) == "scan"
    assert find_image_column([{"image": "a", "n": 1}], ["image", "n"]) == "image"
    assert find_image_column([{"a": "x", "n": 1}], ["a", "n"]) is None


def test_ids_that_repeat_are_not_used() -> None:
    rows = [{"id": "1", "image": f"{n}.png", "text": "t"} for n in range(2)]
    options, *_ = describe_fields(rows, "ct", "x", image="image")
    assert options["columns"] == {"id": "image"}


def test_splits_with_other_names_are_a_hash() -> None:
    rows = [{"image": "a.png", "label": "x", "set": "fold1"}]
    options, *_ = describe_fields(rows, "ct", "x", image="image")
    assert set(options) == {"constants", "caption", "split_fractions"}
    rows = [{"image": "a.png", "label": "x", "set": "Validation"}]
    options, *_ = describe_fields(rows, "ct", "x", image="image")
    assert (options["columns"], options["splits"]) == ({"split": "set"}, {"Validation": "calibration"})


def test_without_texts_and_labels_nothing_can_be_learned() -> None:
    with raises_error("KD-SRC-106", where="rows.csv", mentions=("image, age",)):
        describe_fields([{"image": "a.png", "age": 3}], "ct", "rows.csv", image="image")
    with raises_error("KD-SRC-106", mentions=("1 rows have no label",)):
        describe_fields([{"image": "a.png", "label": name} for name in ("cyst", None)], "ct", "x", image="image")
    with raises_error("KD-SRC-106", mentions=("question in 'extra'",)):
        describe_fields([{"image": "a.png", "question": "what?", "answer": "a cyst"}], "ct", "x", image="image")


def test_roots_are_looked_for_around_the_table(tmp_path: Path) -> None:
    table = tmp_path / "set" / "rows.csv"
    paint(tmp_path / "set" / "a" / "b" / "x.png", seed=1)
    paint(tmp_path / "images" / "y.png", seed=1)
    assert root_of(table, ["x.png"]) == "a/b"
    assert root_of(table, ["a/b/x.png"]) == "."
    assert root_of(table, ["y.png"]) == "../images"
    assert root_of(table, [str(tmp_path / "images" / "y.png")]) == "../images"
    assert root_of(table, ["z.png"]) is None
    assert root_of(table, [str(tmp_path / "z.png")]) is None
    assert root_of(table, []) is None


def test_of_several_roots_none_is_chosen(tmp_path: Path) -> None:
    for folder in ("gt", "images"):
        paint(tmp_path / "set" / folder / "x.png", seed=1)
    table = tmp_path / "set" / "rows.csv"
    with raises_error("KD-SRC-114", where=str(table), mentions=("gt, images",)):
        root_of(table, ["x.png"])
    paint(tmp_path / "set" / "x.png", seed=1)
    assert root_of(table, ["x.png"]) == "."  # paths are relative to the table, if files are there
    (tmp_path / "set" / "x.png").unlink()
    shutil.rmtree(tmp_path / "set" / "gt")
    (tmp_path / "set" / "again").symlink_to("images")
    assert root_of(table, ["x.png"]) in ("again", "images")  # one folder under two names


def test_the_root_of_absolute_paths_covers_all_of_them(tmp_path: Path) -> None:
    for name in ("a/x.png", "b/y.png"):
        paint(tmp_path / "set" / name, seed=1)
    paths = [str(tmp_path / "set" / "a" / "x.png")] * CHECKED + [str(tmp_path / "set" / "b" / "y.png")]
    assert root_of(tmp_path / "set" / "rows.csv", paths) == "."


def root_of(table: Path, values: list[str]) -> str | None:
    return find_root(table.parent, values, str(table))


def test_splits_that_come_late_are_known_too() -> None:
    rows = [{"image": "a.png", "label": "x", "split": "Train"}]
    options, *_ = describe_fields(rows, "ct", "x", image="image", complete=False)
    assert {"Train": "train", "Val": "calibration", "dev": "calibration"}.items() <= options["splits"].items()


def test_groups_across_splits_are_warned_about() -> None:
    rows = [{"image": f"{n}.png", "text": "t", "patient": n // 2, "split": ("train", "val")[n % 2]} for n in range(4)]
    _, says, warns = describe_fields(rows, "ct", "x", image="image")
    assert (len(warns), warns[0].split()[0]) == (1, "2")
    assert not any("never" in line for line in says)
    rows = [{**row, "split": "train"} for row in rows]
    assert describe_fields(rows, "ct", "x", image="image")[2] == []


def test_classes_without_names_are_warned_about() -> None:
    rows = [{"image": "a.png", "label": value} for value in (0, "1")]
    assert len(describe_fields(rows, "ct", "x", image="image")[2]) == 1
    assert describe_fields([{**row, "text": "t"} for row in rows], "ct", "x", image="image")[2] == []


def test_only_values_that_readers_take_are_recognized() -> None:
    for column, value in (("dx", 0.0), ("captions", ["a"]), ("report", True)):
        with raises_error("KD-SRC-106", where="x") as caught:
            describe_fields([{"image": "a.png", column: value}], "ct", "x", image="image")
        assert caught.value.why.endswith(column)
    for column, value in (("label", 0.0), ("text", True)):
        with raises_error("KD-SRC-154", where="x"):
            describe_fields([{"image": "a.png", "caption": "a scan", column: value}], "ct", "x", image="image")
