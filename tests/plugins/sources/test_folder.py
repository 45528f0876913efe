"""Folders of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import Sample, Skipped
from tests.errors import raises_error
from tests.plugins.sources.files import read, read_all


def make_tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def test_levels_name_split_domain_and_class(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path / "set",
        "train/brain_mr/no_tumour/b.PNG",
        "train/brain_mr/no_tumour/a.jpg",
        "test/ct/normal/c.png",
        "train/notes.txt",
    )
    *found, notes = read_all("folder", root)
    samples = [item for item in found if isinstance(item, Sample)]
    assert notes == Skipped("files with the ending .txt", str(root / "train/notes.txt"), level="note")
    assert [(s.id, s.split, s.domain, s.label, s.text) for s in samples] == [
        ("test/ct/normal/c", "test", "ct", "normal", "a ct image of normal"),
        ("train/brain_mr/no_tumour/a", "train", "brain_mr", "no_tumour", "a brain mr image of no tumour"),
        ("train/brain_mr/no_tumour/b", "train", "brain_mr", "no_tumour", "a brain mr image of no tumour"),
    ]


def test_splits_by_hash_keep_groups_together(tmp_path: Path) -> None:
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
    ("options", "id"),
    [
        ({}, "KD-SRC-005"),
        ({"split": "train"}, "KD-SRC-005"),
        ({"domain": "ct", "split": "train", "group_pattern": "z(.)"}, "KD-SRC-007"),
        ({"domain": "ct", "split": "train", "group_pattern": "(z)?a"}, "KD-SRC-007"),
        ({"domain": "ct", "split": "train", "group_pattern": "("}, "KD-SRC-056"),
        ({"domain": "ct", "split": "train", "split_fractions": {"train": 1}}, "KD-SRC-003"),
        ({"domain": "ct", "split": "train", "caption": "{x}"}, "KD-SRC-001"),
    ],
)
def test_a_tree_of_another_shape_is_refused(tmp_path: Path, options: Mapping[str, Any], id: str) -> None:
    root = make_tree(tmp_path / "set", "normal/a.png")
    with raises_error(id):
        read("folder", root, **options)


def test_unknown_splits_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with raises_error("KD-SRC-020", mentions=("'validation'",)):
        read("folder", make_tree(tmp_path / "set", "validation/normal/a.png"), domain="ct")
    with raises_error("KD-SRC-004"):
        read("folder", make_tree(tmp_path / "empty", "train/ct/normal/a.txt"))
    with raises_error("KD-SRC-002"):
        read("folder", tmp_path / "nothing")


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    store = make_tree(tmp_path / "store", "t0.png", "deep/u.png")
    root = make_tree(tmp_path / "set", "train/ct/normal/a.png")
    (root / "train/ct/tumor").symlink_to(store / "deep")
    (root / "test").symlink_to(root / "train")
    (root / "train/ct/normal/loop").symlink_to(root / "train/ct")
    (root / "train/ct/normal/gone.png").symlink_to(root / "nowhere.png")
    found = read_all("folder", root)
    assert [item.id for item in found if isinstance(item, Sample)] == [
        "test/ct/normal/a", "test/ct/tumor/u", "train/ct/normal/a", "train/ct/tumor/u"
    ]  # fmt: skip
    skipped = [item for item in found if isinstance(item, Skipped)]
    assert [(Path(item.where).name, item.level) for item in skipped] == [("gone.png", "problem"), ("loop", "note")] * 2


def test_other_files_are_skipped_by_ending(tmp_path: Path) -> None:
    names = ["a.png", "b.jfif", "c.dcm", "d", "._e.png", ".ipynb_checkpoints/a.png", "f.csv", "@eaDir/a.png"]
    root = make_tree(tmp_path / "set", *(f"normal/{name}" for name in names))
    (root / "normal/d").write_bytes(b"\0" * 128 + b"DICM")
    found = read_all("folder", root, domain="ct", split="test")
    skipped = {Path(item.where).name: item for item in found if isinstance(item, Skipped)}
    assert {name: item.level for name, item in skipped.items()} == {
        ".ipynb_checkpoints": "note", "._e.png": "note", "@eaDir": "note", "b.jfif": "problem",
        "c.dcm": "problem", "d": "problem", "f.csv": "note"
    }  # fmt: skip
    assert [name for name, item in skipped.items() if "DICOM" in item.what] == ["c.dcm", "d"]
    chosen = read_all("folder", root, domain="ct", split="test", endings=[".png", ".jfif"])
    assert [item.id for item in chosen if isinstance(item, Sample)] == ["normal/a", "normal/b"]
    with raises_error("KD-SRC-004", mentions=("1", ".dcm")):
        read_all("folder", make_tree(tmp_path / "only", "normal/c.dcm"), domain="ct", split="test")


def test_folders_of_splits_are_no_domains_and_no_classes(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "set", "train/normal/a.png", "val/normal/b.png", "test/normal/c.png")
    fractions = {"train": 0.8, "test": 0.2}
    with raises_error("KD-SRC-075", mentions=("test, train, val",)):
        read_all("folder", root, split_fractions=fractions)
    with raises_error("KD-SRC-075"):
        read_all(
            "folder", make_tree(tmp_path / "flat", "train/a.png", "test/b.png"), domain="ct", split_fractions=fractions
        )
    samples = read("folder", root, domain="ct", splits={"val": "calibration"})
    assert [sample.split for sample in samples] == ["test", "train", "calibration"]
