"""Captions in COCO's form are recognized, and then read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.plugins.sources.recognize.captions import recognize_coco_captions, recognize_pmc_jsonl
from tests.core.features.small import paint
from tests.errors import raises_error
from tests.plugins.sources.files import read

IMAGES = [{"id": n, "file_name": f"{n}.png", "modality": "ct"} for n in range(3)]
CAPTIONS = [{"id": n, "image_id": n // 2, "caption": f"caption {n}"} for n in range(4)]


def write(folder: Path, **changes: Any) -> Path:
    for image in IMAGES:
        paint(folder / "pictures" / str(image["file_name"]), seed=1)
    path = folder / "captions_train.json"
    path.write_text(json.dumps({"images": IMAGES, "annotations": CAPTIONS, **changes}), encoding="utf-8")
    return path


@pytest.mark.parametrize("by", ["file", "folder"])
def test_captions_are_recognized(tmp_path: Path, by: str) -> None:
    path = write(tmp_path)
    found = recognize_coco_captions(path if by == "file" else tmp_path)
    assert found is not None
    assert found.path == path
    assert found.options["image_root"] == "pictures"
    samples = read("coco-captions", path, **found.options)
    assert [(one.id, one.text, one.domain) for one in samples[:2]] == [
        ("0-0", "caption 0", "ct"),
        ("0-1", "caption 1", "ct"),
    ]
    assert len(found.warns) == 1  # image 2 has no caption


def test_other_files(tmp_path: Path) -> None:
    path = write(tmp_path, annotations=[{"id": 1, "image_id": 0, "bbox": [1, 2, 3, 4]}])
    with raises_error("KD-SRC-153"):
        recognize_coco_captions(path)
    path = write(tmp_path, images=[{"id": 0, "file_name": "gone.png"}], annotations=CAPTIONS[:1])
    with raises_error("KD-SRC-107", where=str(path)):
        recognize_coco_captions(path)
    (tmp_path / "other.json").write_text('{"info": {}, "rows": []}', encoding="utf-8")
    assert recognize_coco_captions(tmp_path / "other.json") is None
    assert recognize_coco_captions(tmp_path) is None  # two files
    (tmp_path / "list.json").write_text("[1]", encoding="utf-8")
    assert recognize_coco_captions(tmp_path / "list.json") is None


def records(folder: Path, kind: str) -> Path:
    """Ten images of a published layout."""
    lines = []
    for number in range(10):
        name = f"h_{number}.png" if kind == "MedICaT" else f"{number}.png"
        paint(folder / "images" / name, seed=number)
        record: dict[str, Any] = {"image": name, "caption": f"caption {number}", "pmcid": f"PMC{number}"}
        if kind == "MedICaT":
            record = {"pdf_hash": "h", "fig_uri": f"{number}.png", "s2_caption": "a", "s2orc_caption": f"b {number}"}
        elif kind == "lists of captions":
            record = {"image": name, "captions": [f"caption {number}", "another"]}
        lines.append(json.dumps(record) + "\n")
    for name, part in (("train", lines[:6]), ("valid", lines[6:8]), ("test", lines[8:])):
        (folder / f"{name}.jsonl").write_text("".join(part), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", ["PMC-OA", "MedICaT", "lists of captions"])
def test_figures_of_articles_are_recognized(tmp_path: Path, kind: str) -> None:
    path = records(tmp_path / "set", kind)
    found = recognize_pmc_jsonl(path)
    assert found is not None
    assert kind in found.says[0]
    assert found.options == {"constants": {"domain": "set"}, "image_root": "images"}
    samples = read("pmc-jsonl", path, **found.options)
    splits = [one.split for one in samples]
    assert [splits.count(split) for split in ("train", "calibration", "test")] == [6 if kind == "PMC-OA" else 12, 2, 2]


def test_missing_images_are_left_out_and_other_tables_are_for_other_sources(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "radiology"
    (folder / "images").mkdir(parents=True)
    (folder / "captions.txt").write_text("ROCO_1\t CT\nROCO_2\t MR\n", encoding="utf-8")
    paint(folder / "images" / "ROCO_1.jpg", seed=0)
    found = recognize_pmc_jsonl(tmp_path)
    assert found is not None
    assert found.options["skip_missing"] is True
    assert len(found.warns) == 1
    (tmp_path / "oa" / "images").mkdir(parents=True)
    paint(tmp_path / "oa" / "images" / "b.jpg", seed=0)
    lines = [json.dumps({"image": f"{name}.jpg", "caption": ["a", "b"], "pmcid": name}) for name in "ab"]
    (tmp_path / "oa" / "pmc_oa.jsonl").write_text("\n".join(lines), encoding="utf-8")  # the first image is missing
    found = recognize_pmc_jsonl(tmp_path / "oa")
    assert found is not None
    assert (found.options["image_root"], found.options["skip_missing"]) == ("images", True)
    assert found.warns[0].startswith("1 of 2 images")
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"image": "a.png", "text": "a"}\n', encoding="utf-8")
    assert recognize_pmc_jsonl(plain) is None
    plain.write_text("no json", encoding="utf-8")
    assert recognize_pmc_jsonl(plain) is None
