"""Drawn data sets on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample, Skipped
from kdkit.core.data.batches import in_samples
from kdkit.core.data.locations import file_of
from kdkit.plugins.demo.images import FINDINGS, SIZE
from kdkit.plugins.demo.source import read_procedural, read_questions
from kdkit.plugins.demo.teachers import TASKS
from tests.errors import raises_error


def drawn(entries: Iterable[Sample | Skipped]) -> list[Sample]:
    """The samples of a source that skips nothing."""
    found = list(in_samples(entries))
    samples = [entry for entry in found if isinstance(entry, Sample)]
    assert len(samples) == len(found)
    return samples


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    parts = [path.relative_to(folder).as_posix().encode() + path.read_bytes() for path in files]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_data_sets_are_complete_and_reproducible(tmp_path: Path) -> None:
    for name in ("one", "two"):
        samples = drawn(
            read_procedural(tmp_path / name, seed=5, train=11, calibration=4, test=6, domains=["oct", "ct"])
        )
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    assert len({sample.id for sample in samples}) == len(samples) == 2 * (11 + 4 + 6)
    assert all(Image.open(file_of(sample.image)).size == (SIZE, SIZE) for sample in samples)
    assert all(sample.label in FINDINGS[sample.domain] for sample in samples)
    assert all(str(sample.label) in sample.text for sample in samples if sample.split != "train")


def test_training_captions_are_half_generic_and_sometimes_wrong(tmp_path: Path) -> None:
    samples = drawn(read_procedural(tmp_path / "data", seed=1, train=600, calibration=0, test=0, domains=["mri"]))
    generic = sum(not any(label in sample.text for label in FINDINGS["mri"]) for sample in samples)
    right = sum(str(sample.label) in sample.text for sample in samples)
    assert 0.43 < generic / 600 < 0.57
    assert 0.05 < (600 - generic - right) / 600 < 0.15


def test_splits_and_seeds_share_no_picture(tmp_path: Path) -> None:
    pictures = []
    for seed in (1, 2):
        read_procedural(tmp_path / str(seed), seed=seed, train=8, calibration=8, test=8, domains=["oct"])
        pictures += [path.read_bytes() for path in (tmp_path / str(seed) / "images").rglob("*.png")]
    assert len(set(pictures)) == len(pictures) == 48


def test_unknown_domains_leave_nothing_behind(tmp_path: Path) -> None:
    for read, domain in ((read_procedural, "pet"), (read_questions, "histology")):
        with raises_error("KD-DEMO-001", mentions=(f"'{domain}'",)):
            read(tmp_path / "new" / "data", train=1, domains=["ct", domain])
    assert list((tmp_path / "new").iterdir()) == []


def test_questions_are_drawn_once_and_other_options_are_refused(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"seed": 3, "train": 4, "calibration": 3, "test": 2}
    samples = drawn(read_questions(tmp_path / "data", domains=["endoscopy"], **sizes))
    assert len(samples) == 4 * (4 + 3 + 2)
    assert {sample.domain for sample in samples} == {f"{task}/endoscopy" for task in TASKS}
    assert all(file_of(sample.image).is_file() for sample in samples)
    assert samples[0].extra["box_family"] == "qwen2-vl"
    before = digest(tmp_path / "data")
    assert [s.id for s in drawn(read_questions(tmp_path / "data", domains=["endoscopy"], **sizes))] == [
        s.id for s in samples
    ]
    assert digest(tmp_path / "data") == before
    with raises_error("KD-DEMO-003", where=str(tmp_path / "data")):
        read_questions(tmp_path / "data", domains=["endoscopy"], **{**sizes, "seed": 4})


def test_other_folders_are_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(KdkitError) as caught:
        read_questions(tmp_path)
    assert caught.value.id == "KD-DEMO-002"
    assert "delete" not in caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
