"""Columns are found by their names and values."""

from __future__ import annotations

from pathlib import Path

from kdkit.plugins.sources.recognize.fields import describe_fields, find_column, find_image_column, find_root
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
    options, _ = describe_fields(rows, "ct", "x", image="image")
    assert options["columns"] == {"id": "image"}


def test_splits_with_other_names_are_a_hash() -> None:
    rows = [{"image": "a.png", "label": "x", "set": "fold1"}]
    options, _ = describe_fields(rows, "ct", "x", image="image")
    assert set(options) == {"constants", "caption", "split_fractions"}
    rows = [{"image": "a.png", "label": "x", "set": "Validation"}]
    options, _ = describe_fields(rows, "ct", "x", image="image")
    assert (options["columns"], options["splits"]) == ({"split": "set"}, {"Validation": "calibration"})


def test_without_texts_and_labels_nothing_can_be_learned() -> None:
    with raises_error("KD-SRC-106", where="rows.csv", mentions=("image, age",)):
        describe_fields([{"image": "a.png", "age": 3}], "ct", "rows.csv", image="image")


def test_roots_are_looked_for_around_the_table(tmp_path: Path) -> None:
    table = tmp_path / "set" / "rows.csv"
    paint(tmp_path / "set" / "a" / "b" / "x.png", seed=1)
    paint(tmp_path / "images" / "y.png", seed=1)
    assert find_root(table, ["x.png"]) == "a/b"
    assert find_root(table, ["a/b/x.png"]) == "."
    assert find_root(table, ["y.png"]) == "../images"
    assert find_root(table, [str(tmp_path / "images" / "y.png")]) == "../images"
    assert find_root(table, ["z.png"]) is None
    assert find_root(table, [str(tmp_path / "z.png")]) is None
