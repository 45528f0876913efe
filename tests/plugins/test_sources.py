"""The built-in sources on real files: what they read, and what they refuse."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample, Split
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.plugins.sources.splits import stable_split
from tests.errors import raises_error

ROW = {"id": "a", "image": "x/a.png", "text": "a picture", "domain": "ct", "label": "normal", "split": "train"}


def read(source: str, location: Path, **options: Any) -> list[Sample]:
    return list(load_catalogue().make("source", source, location=location, **options))


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """The rows as CSV or JSONL, as the name ends."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        with open(path, "w", encoding="utf-8", newline="") as handle:
            writer = csv.DictWriter(handle, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.fixture(params=["csv", "jsonl"])
def manifest(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"samples.{request.param}"


def read_manifest(path: Path, rows: Sequence[Mapping[str, Any]], **options: Any) -> list[Sample]:
    return read(path.suffix[1:], write(path, rows), **options)


def test_a_manifest(manifest: Path) -> None:
    second = {**ROW, "id": "b", "text": 'with "quotes", commas\nand a line', "label": "", "split": "test"}
    first, other = read_manifest(manifest, [ROW, second])
    line = 2 if manifest.suffix == ".csv" else 1
    image = manifest.parent / "x/a.png"
    assert first == Sample("a", image, "a picture", "ct", "normal", "train", f"{manifest}:{line}")
    assert (other.label, other.split, other.text) == (None, "test", second["text"])


def test_renamed_columns_constants_and_translated_splits(manifest: Path) -> None:
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


def test_captions_from_a_template(manifest: Path) -> None:
    row = {**ROW, "domain": "brain_mr", "label": "no_tumour"}
    del row["text"]
    (sample,) = read_manifest(manifest, [row], caption="{domain} with {label}")
    assert sample.text == "brain mr with no tumour"


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({"text": None}, {}, "no column 'text'"),
        ({}, {"columns": {"label": "finding"}}, "no column 'finding'"),
        ({"split": None}, {}, "this row has no split"),
        ({"split": "val"}, {}, "'val' is not a split"),
        ({}, {"split_fractions": {"train": 1.0}}, "has a split, and split_fractions is given as well"),
        ({"id": " "}, {}, "empty id"),
        ({"image": "/etc/passwd"}, {}, "outside of the folder"),
        ({"image": "x/../../y.png"}, {}, "outside of the folder"),
        ({}, {"extra": ["boxes"]}, "no column 'boxes'"),
        ({"label": ""}, {"caption": "{label}"}, "cannot be filled in"),
        ({}, {"caption": "{organ}"}, "cannot be filled in"),
    ],
)
def test_a_wrong_row_is_named(
    manifest: Path, change: Mapping[str, str | None], options: Mapping[str, Any], message: str
) -> None:
    changed = {key: value for key, value in {**ROW, **change}.items() if value is not None}
    with pytest.raises(KdkitError, match=message) as error:
        read_manifest(manifest, [changed], **options)
    line = 2 if manifest.suffix == ".csv" else 1
    assert error.value.where == f"{manifest}:{line}"
    if "no column" in message:
        assert error.value.why == "columns: " + ", ".join(changed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"lable": "x"}}, "'lable' is not a field"),
        ({"constants": {"id": "x"}}, "'id' cannot be a constant"),
        ({"constants": {"domain": "x"}, "columns": {"domain": "x"}}, "both by a column and as a constant"),
        ({"split_fractions": {"train": 0.5}}, "sum to 0.5, not 1"),
        ({"split_fractions": {"training": 1}}, "'training' is not a split"),
        ({"split_fractions": {"train": 2, "test": -1}}, "at least 0"),
        ({"colums": {}}, "source '.*' has no option 'colums'"),
    ],
)
def test_wrong_options(manifest: Path, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(KdkitError, match=message):
        read_manifest(manifest, [ROW], **options)


@pytest.mark.parametrize(
    ("name", "content", "message", "line"),
    [
        ("a.csv", b"id,image,id\n1,2,3\n", "column 'id' occurs twice", 1),
        ("a.csv", b"id,image,text,domain,split\n1,2,3,4,test\n1,2\n", "2 fields, but the header has 5", 3),
        ("a.csv", b'id,image\n"a\nb",2,3\n', "3 fields, but the header has 2", 2),
        ("a.csv", b"id,image\n1,2\n1,\xff\n", "not UTF-8 text", 3),
        ("a.csv", b'id,image,text,domain,split\n1,2,3,4,test\n"1,2,3,4,test\n1,2,3,4,test\n', "not a CSV row", 3),
        ("a.csv", b"id;image\n1;2\n", "the header has one column: id;image", 1),
        ("a.csv", b"id,image,text,domain,split\n1,a\0b,3,4,test\n", "image has a NUL character", 2),
        ("a.jsonl", b'{"id": "a\\u0000b"}\n', "id has a NUL character", 1),
        ("a.jsonl", b'{"id": 1,\n', "not valid JSON", 1),
        ("a.jsonl", b"\n[1]\n", "not a JSON object", 2),
        ("a.jsonl", b'{"id": "\xff"}\n', "not valid JSON", 1),
        ("a.jsonl", b'{"id": ["x"]}\n', "id must be text", 1),
        ("a.csv", b"", "no rows", None),
        ("a.jsonl", b"", "no rows", None),
    ],
)
def test_files_that_are_not_manifests(
    tmp_path: Path, name: str, content: bytes, message: str, line: int | None
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(KdkitError, match=message) as error:
        read(path.suffix[1:], path)
    if line:
        assert error.value.where == f"{path}:{line}"


def test_what_is_between_the_fields(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("\ufeff" + ";".join(ROW) + "\r\n" + ";".join(ROW.values()) + "\r\n", encoding="utf-8", newline="")
    (sample,) = read("csv", path, delimiter=";")
    assert (sample.id, sample.text, sample.label) == ("a", "a picture", "normal")
    with raises_error("KD-SRC-008", mentions=("';;'",)):
        read("csv", path, delimiter=";;")


@pytest.mark.parametrize(
    ("change", "options", "fix"),
    [
        ({"split": "Train"}, {}, "splits: {Train: train}"),
        ({"split": "val"}, {}, "splits: {val: calibration}"),
        ({"split": "Testing"}, {}, "splits: {Testing: test}"),
        ({}, {"columns": {"text": "labl"}}, "did you mean 'label'?"),
    ],
)
def test_what_to_do_about_a_row(
    manifest: Path, change: Mapping[str, str], options: Mapping[str, Any], fix: str
) -> None:
    with pytest.raises(KdkitError) as error:
        read_manifest(manifest, [{**ROW, **change}], **options)
    assert fix in error.value.fix


def test_a_manifest_that_is_called_otherwise(manifest: Path) -> None:
    write(manifest, [ROW])
    with raises_error("KD-SRC-047") as error:
        read(manifest.suffix[1:], manifest.with_stem("sampels"))
    assert error.value.fix == f"did you mean '{manifest.name}'?"


@pytest.mark.parametrize("source", ["csv", "jsonl", "folder"])
def test_nothing_there(tmp_path: Path, source: str) -> None:
    with pytest.raises(KdkitError, match="no such f"):
        read(source, tmp_path / "nothing")


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


def test_splits_by_hash_have_the_sizes_asked_for_and_never_change() -> None:
    fractions: dict[Split, float] = {"train": 0.7, "calibration": 0.1, "test": 0.2}
    splits = [stable_split(f"sample-{i}", fractions) for i in range(20_000)]
    for split, fraction in fractions.items():
        deviation = np.sqrt(fraction * (1 - fraction) / len(splits))
        assert abs(splits.count(split) / len(splits) - fraction) < 4 * deviation
    # these are on people's disks: a change of the hash would move test samples into training
    assert {key: stable_split(key, fractions) for key in PINNED} == PINNED


PINNED: dict[str, Split] = {
    "patient-1": "train",
    "patient-2": "train",
    "é": "calibration",
    "images/0001": "calibration",
    "x": "train",
    "d": "calibration",
    "k": "train",
}


@given(st.text(), st.sampled_from(["train", "calibration", "test"]))
def test_a_fraction_of_one_takes_all(key: str, split: Split) -> None:
    assert stable_split(key, {"train": 0.0, "calibration": 0.0, "test": 0.0, split: 1.0}) == split


def make_tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_a_folder_per_split_domain_and_class(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "set",
        "train/brain_mr/no_tumour/b.PNG",
        "train/brain_mr/no_tumour/a.jpg",
        "test/ct/normal/c.png",
        "train/notes.txt",
    )
    samples = read("folder", root)
    assert [(s.id, s.split, s.domain, s.label, s.text) for s in samples] == [
        ("test/ct/normal/c", "test", "ct", "normal", "a ct image of normal"),
        ("train/brain_mr/no_tumour/a", "train", "brain_mr", "no_tumour", "a brain mr image of no tumour"),
        ("train/brain_mr/no_tumour/b", "train", "brain_mr", "no_tumour", "a brain mr image of no tumour"),
    ]


def test_a_folder_per_class_with_fractions_and_groups(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", *(f"normal/p{i // 5}_{i}.png" for i in range(100)))
    samples = read(
        "folder",
        root,
        domain="ct",
        caption="{label} {domain}",
        split_fractions={"train": 0.5, "test": 0.5},
        group_pattern=r"^(p\d+)_",
        id_prefix="x/",
    )
    assert {s.text for s in samples} == {"normal ct"}
    assert samples[0].id.startswith("x/normal/p0_")
    by_group: dict[str, set[str]] = {}
    for sample in samples:
        by_group.setdefault(sample.extra["group"], set()).add(sample.split)
    assert len(by_group) == 20
    assert all(len(found) == 1 for found in by_group.values())
    assert {s.split for s in samples} == {"train", "test"}
    assert {s.split for s in read("folder", root, domain="ct", split="test")} == {"test"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "this image is 1 folders deep, not 3"),
        ({"split": "train"}, "this image is 1 folders deep, not 2"),
        ({"domain": "ct", "split": "train", "group_pattern": "z(.)"}, "does not match this file's name"),
        ({"domain": "ct", "split": "train", "split_fractions": {"train": 1}}, "exclude each other"),
        ({"domain": "ct", "split": "train", "caption": "{x}"}, "cannot be filled in"),
    ],
)
def test_a_folder_of_another_shape(tmp_path: Path, options: Mapping[str, Any], message: str) -> None:
    root = make_tree(tmp_path / "set", "normal/a.png")
    with pytest.raises(KdkitError, match=message):
        read("folder", root, **options)


def test_a_folder_of_unknown_splits_or_without_images(tmp_path: Path) -> None:
    with raises_error("KD-SRC-006", mentions=("'validation'",)):
        read("folder", make_tree(tmp_path / "set", "validation/normal/a.png"), domain="ct")
    with raises_error("KD-SRC-004"):
        read("folder", make_tree(tmp_path / "empty", "train/ct/normal/a.txt"))


def test_medmini(request: pytest.FixtureRequest) -> None:
    manifest = request.config.rootpath.parent / "shared" / "data" / "medmini" / "samples.jsonl"
    if not manifest.exists():
        pytest.skip("medmini is not here")
    samples = read("jsonl", manifest, columns={"domain": "modality", "text": "caption"})
    assert len(samples) == 5533
    assert len({sample.domain for sample in samples}) == 11
    assert all(sample.image.is_file() for sample in samples[::500])
