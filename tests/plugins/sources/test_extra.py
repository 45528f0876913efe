"""The field ``extra`` of a manifest's row: a question, its images, and that it may still be without an answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.plugins.sources.manifest import CsvManifest, JsonlManifest
from tests.errors import raises_error

ROW = {"id": "a", "image": "a.png", "text": "a cyst", "domain": "vqa/ct", "split": "train"}
MESSAGES = [{"role": "user", "content": "<image> and <image>?"}]


def read(folder: Path, row: dict[str, Any], **options: Any) -> Sample:
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (sample,) = JsonlManifest(folder / "rows.jsonl", **options)
    return sample


def test_it_is_kept_with_paths_for_images(tmp_path: Path) -> None:
    extra = {"messages": MESSAGES, "images": ["more/b.png"], "boxes": [[0, 0, 1, 1]], "pseudo": {"teacher": "x"}}
    sample = read(tmp_path, {**ROW, "extra": extra}, image_root="pictures")
    assert sample.extra == {**extra, "images": [tmp_path / "pictures" / "more" / "b.png"]}
    assert sample.text == "a cyst"
    assert read(tmp_path, {**ROW, "meta": {"task": "vqa"}}, columns={"extra": "meta"}).extra == {"task": "vqa"}


def test_a_question_may_be_without_an_answer_and_nothing_else(tmp_path: Path) -> None:
    open_row = {name: value for name, value in ROW.items() if name != "text"}
    assert read(tmp_path, {**open_row, "extra": {"messages": MESSAGES}}).text == ""
    with raises_error("KD-SRC-046", mentions=("'text'",)):
        read(tmp_path, {**open_row, "extra": {"task": "vqa"}})


def test_what_is_refused(tmp_path: Path) -> None:
    with raises_error("KD-SRC-042"):
        read(tmp_path, {**ROW, "extra": {"images": ["../b.png"]}})
    with raises_error("KD-SRC-041"):
        read(tmp_path, {**ROW, "meta": "text"}, columns={"extra": "meta"})


def test_a_column_of_that_name_that_is_something_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,image,text,domain,split,extra\na,a.png,a cyst,ct,train,words\n", encoding="utf-8")
    assert [sample.extra for sample in CsvManifest(path)] == [{}]
    assert [sample.extra for sample in CsvManifest(path, extra=["extra"])] == [{"extra": "words"}]


def test_boxes_of_a_declared_family_are_read_and_checked(tmp_path: Path) -> None:
    box = "<box>(100,200),(300,400)</box>"
    row = {**ROW, "text": box, "extra": {"messages": MESSAGES, "box_family": "qwen-vl", "boxes": "of the question"}}
    assert read(tmp_path, row).extra["boxes"] == [(0.1, 0.2, 0.3, 0.4)]
    for wrong, message in (
        ({**row, "text": "<box>(1,2),(3,4000)</box>"}, "outside of the image"),
        ({**row, "extra": {"box_family": "qwen2.5-vl"}}, "box_family is 'qwen2.5-vl'"),
        ({**row, "extra": {"box_family": "json"}}, "is not a box of 'json'"),
    ):
        with pytest.raises(KdkitError, match=message) as caught:
            read(tmp_path, wrong)
        assert caught.value.where == f"{tmp_path / 'rows.jsonl'}:1"
