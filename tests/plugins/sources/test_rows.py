"""From the rows of a manifest to samples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import Sample, Split
from kdkit.core.data.digests import content_digest
from kdkit.plugins.sources.manifest import JsonlManifest
from tests.errors import raises_error
from tests.plugins.sources.files import ROW, read, read_manifest, write_manifest


@pytest.fixture(params=["csv", "jsonl"])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"samples.{request.param}"


def test_rows_become_samples(manifest: Path) -> None:
    second = {**ROW, "id": "b", "text": 'with "quotes", commas\nand a line', "label": "", "split": "test"}
    first, other = read_manifest(manifest, [ROW, second])
    line = 2 if manifest.suffix == ".csv" else 1
    image = manifest.parent / "x/a.png"
    assert first == Sample("a", image, "a picture", "ct", "normal", "train", f"{manifest}:{line}")
    assert (other.label, other.split, other.text) == (None, "test", second["text"])


def test_columns_constants_and_splits_can_be_mapped(manifest: Path) -> None:
    row = {"name": "7", "file": "a.png", "caption": "c", "modality": "mr", "fold": "val", "patient": "p1", "age": "3"}
    (sample,) = read_manifest(
        manifest,
        [row],
        columns={
            "id": "name",
            "image": "file",
            "text": "caption",
            "domain": "modality",
            "split": "fold",
            "group": "patient",
        },
        constants={"label": "normal"},
        splits={"val": "calibration"},
        image_root="pictures",
        id_prefix="set/",
        extra=["age"],
    )
    assert (sample.id, sample.text, sample.domain, sample.label) == ("set/7", "c", "mr", "normal")
    assert sample.split == "calibration"
    assert sample.image == manifest.parent / "pictures" / "a.png"
    assert sample.extra == {"age": "3", "group": "p1"}


def test_captions_are_filled_in(manifest: Path) -> None:
    row = {**ROW, "domain": "brain_mr", "label": "no_tumour"}
    del row["text"]
    (sample,) = read_manifest(manifest, [row], caption="{domain} with {label}")
    assert sample.text == "brain mr with no tumour"


@pytest.mark.parametrize(
    ("change", "options", "id"),
    [
        ({"text": None}, {}, "KD-SRC-046"),
        ({}, {"columns": {"label": "finding"}}, "KD-SRC-046"),
        ({"split": None}, {}, "KD-SRC-043"),
        ({"split": "val"}, {}, "KD-SRC-020"),
        ({}, {"split_fractions": {"train": 1.0}}, "KD-SRC-044"),
        ({"id": " "}, {}, "KD-SRC-050"),
        ({"image": "/etc/passwd"}, {}, "KD-SRC-036"),
        ({"image": "x/../../y.png"}, {}, "KD-SRC-036"),
        ({}, {"extra": ["boxes"]}, "KD-SRC-046"),
        ({"label": ""}, {"caption": "{label}"}, "KD-SRC-001"),
        ({}, {"caption": "{organ}"}, "KD-SRC-001"),
    ],
)
def test_a_wrong_row_is_reported_with_its_line(
    manifest: Path, change: Mapping[str, str | None], options: Mapping[str, Any], id: str
) -> None:
    changed = {key: value for key, value in {**ROW, **change}.items() if value is not None}
    line = 2 if manifest.suffix == ".csv" else 1
    with raises_error(id, where=f"{manifest}:{line}") as error:
        read_manifest(manifest, [changed], **options)
    if id == "KD-SRC-046":
        assert error.value.why == "columns: " + ", ".join(changed)


@pytest.mark.parametrize(
    ("options", "id"),
    [
        ({"columns": {"lable": "x"}}, "KD-SRC-037"),
        ({"constants": {"id": "x"}}, "KD-SRC-038"),
        ({"constants": {"domain": "x"}, "columns": {"domain": "x"}}, "KD-SRC-039"),
        ({"split_fractions": {"train": 0.5}}, "KD-SRC-069"),
        ({"split_fractions": {"training": 1}}, "KD-SRC-020"),
        ({"split_fractions": {"train": 2, "test": -1}}, "KD-SRC-068"),
        ({"colums": {}}, "KD-PLUG-005"),
    ],
)
def test_invalid_options_are_refused(manifest: Path, options: Mapping[str, Any], id: str) -> None:
    with raises_error(id):
        read_manifest(manifest, [ROW], **options)


@pytest.mark.parametrize(
    ("change", "options", "id", "fix"),
    [
        ({"split": "Train"}, {}, "KD-SRC-020", "Train: train"),
        ({"split": "val"}, {}, "KD-SRC-020", "val: calibration"),
        ({"split": "Testing"}, {}, "KD-SRC-020", "Testing: test"),
        ({}, {"columns": {"text": "labl"}}, "KD-SRC-046", "'label'"),
    ],
)
def test_errors_of_a_row_propose_the_fix(
    manifest: Path, change: Mapping[str, str], options: Mapping[str, Any], id: str, fix: str
) -> None:
    with raises_error(id, mentions=(fix,)):
        read_manifest(manifest, [{**ROW, **change}], **options)


def test_a_misspelled_manifest_is_proposed(manifest: Path) -> None:
    write_manifest(manifest, [ROW])
    with raises_error("KD-SRC-047", mentions=(f"'{manifest.name}'",)):
        read(manifest.suffix[1:], manifest.with_stem("sampels"))


def test_a_group_never_spans_splits(manifest: Path) -> None:
    rows = [
        {"id": str(i), "image": "a.png", "text": "t", "domain": "d", "group": f"patient {i // 7}"} for i in range(700)
    ]
    samples = read_manifest(manifest, rows, split_fractions={"train": 0.6, "calibration": 0.2, "test": 0.2})
    splits: dict[str, set[Split]] = {}
    for sample in samples:
        splits.setdefault(sample.extra["group"], set()).add(sample.split)
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "calibration", "test"}


QUESTION = {"id": "a", "image": "a.png", "text": "a cyst", "domain": "vqa/ct", "split": "train"}
MESSAGES = [{"role": "user", "content": "<image> and <image>?"}]


def read_row(folder: Path, row: dict[str, Any], **options: Any) -> Sample:
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    (sample,) = JsonlManifest(folder / "rows.jsonl", **options)
    assert isinstance(sample, Sample)
    return sample


def test_extra_is_kept_with_paths_for_images(tmp_path: Path) -> None:
    extra = {"messages": MESSAGES, "images": ["more/b.png"], "boxes": [[0, 0, 1, 1]], "pseudo": {"teacher": "x"}}
    sample = read_row(tmp_path, {**QUESTION, "extra": extra}, image_root="pictures")
    assert sample.extra == {**extra, "images": [tmp_path / "pictures" / "more" / "b.png"]}
    assert sample.text == "a cyst"
    assert read_row(tmp_path, {**QUESTION, "meta": {"task": "vqa"}}, columns={"extra": "meta"}).extra == {"task": "vqa"}


def test_only_a_question_may_have_no_text(tmp_path: Path) -> None:
    open_row = {name: value for name, value in QUESTION.items() if name != "text"}
    assert read_row(tmp_path, {**open_row, "extra": {"messages": MESSAGES}}).text == ""
    with raises_error("KD-SRC-046", mentions=("'text'",)):
        read_row(tmp_path, {**open_row, "extra": {"task": "vqa"}})


def test_an_invalid_extra_is_refused(tmp_path: Path) -> None:
    with raises_error("KD-SRC-036"):
        read_row(tmp_path, {**QUESTION, "extra": {"images": ["../b.png"]}})
    with raises_error("KD-SRC-041"):
        read_row(tmp_path, {**QUESTION, "meta": "text"}, columns={"extra": "meta"})


def test_a_column_extra_without_objects_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("id,image,text,domain,split,extra\na,a.png,a cyst,ct,train,words\n", encoding="utf-8")
    assert [sample.extra for sample in read("csv", path)] == [{}]
    assert [sample.extra for sample in read("csv", path, extra=["extra"])] == [{"extra": "words"}]


def test_boxes_of_a_declared_family_are_read_and_checked(tmp_path: Path) -> None:
    box = "<box>(100,200),(300,400)</box>"
    row = {
        **QUESTION,
        "text": box,
        "extra": {"messages": MESSAGES, "box_family": "qwen-vl", "boxes": "question"},
    }
    assert read_row(tmp_path, row).extra["boxes"] == [(0.1, 0.2, 0.3, 0.4)]
    where = f"{tmp_path / 'rows.jsonl'}:1"
    for wrong, id in (
        ({**row, "text": "<box>(1,2),(3,4000)</box>"}, "KD-ANS-006"),
        ({**row, "extra": {"box_family": "qwen2.5-vl"}}, "KD-ANS-011"),
        ({**row, "extra": {"box_family": "json"}}, "KD-ANS-005"),
    ):
        with raises_error(id, where=where):
            read_row(tmp_path, wrong)


def test_several_classes_of_a_sample_are_findings(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    rows = [("a", "Edema | Mass"), ("b", "No Finding"), ("c", "")]
    lines = [",".join({**ROW, "id": id, "label": label}.values()) for id, label in rows]
    path.write_text("\n".join([",".join(ROW), *lines]) + "\n")
    found = read("csv", path, label_separator="|")
    assert [(s.label, s.extra["findings"]) for s in found] == [(None, ["Edema", "Mass"]), (None, []), (None, [])]
    (captioned, *_) = read("csv", path, label_separator="|", caption="{domain} with {label}")
    assert captioned.text.endswith("with Edema, Mass")


def digest_of(sample: Sample) -> int:
    return content_digest(sample.text, sample.extra, sample.image_options, 1)


def test_metadata_are_kept_and_change_no_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({**ROW, "sex": " F ", "age": 61, "site": None}) + "\n")
    (plain,) = read("jsonl", path)
    (sample,) = read("jsonl", path, metadata=["sex", "age", "site"])
    assert sample.extra["metadata"] == {"sex": "F", "age": 61}
    assert digest_of(sample) == digest_of(plain)
    with raises_error("KD-SRC-046"):
        read("jsonl", path, metadata=["sx"])
    path.write_text(json.dumps({**ROW, "sex": ["F"]}) + "\n")
    with raises_error("KD-SRC-230"):
        read("jsonl", path, metadata=["sex"])
