"""Questions in Parquet files as the Hub has them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from kdkit.core.contracts import Sample, Skipped
from kdkit.core.data.locations import read_content
from tests.errors import raises_error
from tests.plugins.sources.archives import png, save_to_disk
from tests.plugins.sources.files import read, read_all
from tests.plugins.sources.question_sets import path_vqa


def test_path_vqa(tmp_path: Path) -> None:
    samples = read("hub-questions", path_vqa(tmp_path / "path-vqa"), modality="pathology")
    assert Counter(one.split for one in samples) == {"train": 8, "calibration": 8, "test": 8}
    first, second, third = samples[:3]
    assert (first.split, first.id, first.text) == ("test", "data/test-00000-of-00001-0", "yes")  # ordered by path
    assert first.extra["messages"] == [{"role": "user", "content": "<image>\nwhere are liver stem cells, 0?"}]
    assert {one.domain for one in samples} == {"vqa/pathology"}
    assert read_content(first.image) == png(20)
    assert first.extra["group"] == second.extra["group"] != third.extra["group"]
    assert len({one.extra["group"] for one in samples}) == 12


def test_images_are_held_back_whole(tmp_path: Path) -> None:
    """Where the Hub's copy has no validation split, as VQA-RAD's."""
    path = path_vqa(tmp_path, ("train", "test"), answer_type=["closed", "OPEN"] * 4)
    samples = read("hub-questions", path, modality="radiology", calibration=0.5)
    split_of = {one.extra["group"]: one.split for one in samples}
    assert all(split_of[one.extra["group"]] == one.split for one in samples)
    assert Counter(one.split for one in samples)["test"] == 8
    assert [one.extra["answer_type"] for one in samples[:2]] == ["CLOSED", "OPEN"]


def test_a_saved_data_set(tmp_path: Path) -> None:
    rows: dict[str, Any] = {
        "image": [{"bytes": png(1), "path": None}] * 4,
        "question": ["what?"] * 4,
        "answer": ["a", "b", "c", "d"],
    }
    save_to_disk(tmp_path / "rad", rows, split="train")
    samples = read("hub-questions", tmp_path / "rad", modality="radiology", split_fractions={"train": 0.5, "test": 0.5})
    assert [one.text for one in samples] == ["a", "b", "c", "d"]
    assert len({(one.split, one.extra["group"]) for one in samples}) == 1


def test_groups_of_patients(tmp_path: Path) -> None:
    path = path_vqa(tmp_path, ("train",), patient=["p1", "p1", "p1", "p1", "p2", "p2", "p2", "p2"])
    samples = read("hub-questions", path, modality="ct", columns={"group": "patient"})
    assert [one.extra["group"] for one in samples] == ["p1"] * 4 + ["p2"] * 4


def test_broken_rows(tmp_path: Path) -> None:
    path = path_vqa(tmp_path, ("train",), answer=["yes", "", None, "no", *"abcd"])
    with raises_error("KD-SRC-034", mentions=("answer",)):
        read("hub-questions", path, modality="ct")
    found = read_all("hub-questions", path, modality="ct", skip_broken=True)
    kinds = [one.what for one in found if isinstance(one, Skipped)]
    assert len(kinds) == 2
    assert all(kind.startswith("broken samples (") for kind in kinds)
    assert [one.text for one in found if isinstance(one, Sample)] == ["yes", "no", *"abcd"]


def test_options_that_would_change_nothing(tmp_path: Path) -> None:
    path = path_vqa(tmp_path)
    for options in ({"caption": "{label}"}, {"columns": {"text": "answer"}}, {"constants": {"domain": "x"}}):
        with raises_error("KD-SRC-599"):
            read("hub-questions", path, modality="ct", **options)
    with raises_error("KD-SRC-070"):
        read("hub-questions", path, modality="ct", calibration=2.0)


def test_what_is_missing(tmp_path: Path) -> None:
    path = path_vqa(tmp_path)
    with raises_error("KD-SRC-585"):
        read("hub-questions", path)
    with raises_error("KD-SRC-034", mentions=("'reply'",)):
        read("hub-questions", path, modality="ct", answer="reply")
