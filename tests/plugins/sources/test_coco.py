"""Captions in COCO's form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import Sample, Skipped
from tests.errors import raises_error
from tests.plugins.sources.files import read, read_all

COCO: dict[str, Any] = {
    "info": {},
    "images": [{"id": n, "file_name": f"{n}.png", "modality": "ct", "width": 9} for n in range(3)],
    "annotations": [{"id": 10 + n, "image_id": n // 2, "caption": f"caption {n}"} for n in range(4)],
}
OPTIONS: dict[str, Any] = {"columns": {"domain": "modality"}, "split_fractions": {"train": 0.5, "test": 0.5}}


def write(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({**COCO, **changes}), encoding="utf-8")
    return path


def test_a_caption_is_a_sample(tmp_path: Path) -> None:
    found = read_all("coco-captions", write(tmp_path / "captions.json"), image_root="images", **OPTIONS)
    samples = [one for one in found if isinstance(one, Sample)]
    assert [(one.id, one.text, one.domain) for one in samples[:2]] == [
        ("0-10", "caption 0", "ct"),
        ("0-11", "caption 1", "ct"),
    ]
    assert samples[3].image == tmp_path / "images" / "1.png"
    assert samples[0].split == samples[1].split
    assert [(one.what, one.level) for one in found if isinstance(one, Skipped)] == [
        ("images without a caption", "warning")
    ]


def test_one_caption_of_an_image_in_a_pass(tmp_path: Path) -> None:
    """Annotations of an image may be apart; two of its three captions are told where the image is held out."""
    annotations = [{"id": 10 + n, "image_id": n % 2, "caption": f"caption {n}"} for n in range(6)]
    images = [{**image, "split": split} for image, split in zip(COCO["images"], ("train", "test"), strict=False)]
    path = write(tmp_path / "a.json", images=images, annotations=annotations)
    options = {"columns": {"domain": "modality"}, "captions": "one"}
    found = read_all("coco-captions", path, **options)
    samples = [one for one in found if isinstance(one, Sample)]
    assert [(one.id, one.extra.get("image_captions")) for one in samples] == [
        ("0-10", 3), ("0-12", 3), ("0-14", 3), ("1-11", None)
    ]  # fmt: skip
    assert [(one.what, one.level) for one in found if isinstance(one, Skipped)] == [
        ("further captions of calibration and test images", "note")
    ] * 2
    assert len(read("coco-captions", path, columns={"domain": "modality"})) == 6


def test_images_may_have_groups_of_their_own(tmp_path: Path) -> None:
    images = [{**image, "group": "patient"} for image in COCO["images"]]
    found = read("coco-captions", write(tmp_path / "a.json", images=images), **OPTIONS)
    assert {one.extra["group"] for one in found} == {"patient"}


def test_a_caption_without_an_image_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", annotations=[{"id": 1, "image_id": 7, "caption": "x"}, *COCO["annotations"]])
    found = read_all("coco-captions", path, **OPTIONS)
    lost = [one for one in found if isinstance(one, Skipped) and one.level == "problem"]
    assert [one.where for one in lost] == [f"{path}, annotation 1"]


BAD = [
    ({"images": None}, "KD-DATA-024"),
    ({"annotations": [1]}, "KD-DATA-024"),
    ({"images": [{"file_name": "a.png"}]}, "KD-SRC-034"),
    ({"annotations": [{"id": 1, "image_id": 0, "bbox": [1, 2, 3, 4]}]}, "KD-SRC-153"),
    ({"annotations": [{"id": 1, "image_id": 0, "caption": " "}]}, "KD-SRC-050"),
    ({"images": [*COCO["images"], {"id": 1, "file_name": "7.png"}]}, "KD-SRC-152"),
    ({"annotations": [{"id": 1, "caption": "x"}]}, "KD-SRC-034"),
    ({"images": [{"id": 0, "file_name": "../../a.png", "modality": "ct"}]}, "KD-SRC-036"),
    ({"annotations": []}, "KD-SRC-040"),
]


@pytest.mark.parametrize(("changes", "id"), BAD)
def test_other_files_are_refused(tmp_path: Path, changes: dict[str, Any], id: str) -> None:
    with raises_error(id):
        read("coco-captions", write(tmp_path / "a.json", **changes), **OPTIONS)
