"""Figures of articles with one caption or several."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import IMAGE_CAPTIONS, Sample, Skipped
from kdkit.core.data.digests import content_digest
from tests.errors import raises_error
from tests.plugins.sources.files import read, read_all, write_manifest

CT = {"constants": {"domain": "ct"}}
TRAIN = {"constants": {"domain": "ct", "split": "train"}}


def write(path: Path, *records: Mapping[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_manifest(path, records)


def test_pmc_oa(tmp_path: Path) -> None:
    """A record per subfigure; the figures of an article are one group; files are splits."""
    for name, split in (("train", "train"), ("valid", "calibration"), ("test", "test")):
        records = [
            {"image": f"PMC{name}_Fig{n}_1.jpg", "caption": f"A. Part {n}", "pmcid": f"PMC{name}", "url_name": "x.jpg"}
            for n in range(2)
        ]
        write(tmp_path / f"{name}.jsonl", *records)
        own = [one for one in read("pmc-jsonl", tmp_path, **CT, image_root="images") if one.split == split]
        assert [one.id for one in own] == [f"PMC{name}_Fig0_1.jpg", f"PMC{name}_Fig1_1.jpg"]
        assert own[0].image == tmp_path / "images" / f"PMC{name}_Fig0_1.jpg"
        assert own[0].extra == {"group": f"PMC{name}"}
        assert own[1].text == "A. Part 1"


def test_medicat(tmp_path: Path) -> None:
    record = {"pdf_hash": "26ab", "fig_uri": "3-Figure4-1.png", "s2_caption": "Figure 4. MR.", "radiology": True}
    records = [
        {**record, "s2orc_caption": "Figure 4. MR.", "s2orc_references": ["see (Figure 4)"], "oa_info": {"doi": None}},
        {**record, "fig_uri": "3-Figure5-1.png", "s2orc_caption": "Figure 5, whole.", "s2orc_references": None},
    ]
    path = write(tmp_path / "s2_full.jsonl", *records)
    samples = read("pmc-jsonl", path, **TRAIN, image_root="figures")
    assert [one.id for one in samples] == [
        "26ab_3-Figure4-1.png",
        "26ab_3-Figure5-1.png",
        "26ab_3-Figure5-1.png#2",
    ]
    assert samples[0].extra == {"group": "26ab"}
    assert samples[2].extra == {IMAGE_CAPTIONS: 2, "group": "26ab"}
    assert samples[1].image == samples[2].image == tmp_path / "figures" / "26ab_3-Figure5-1.png"
    with_references = read("pmc-jsonl", path, **TRAIN, captions=["s2_caption", "s2orc_references"])
    assert [one.text for one in with_references] == ["Figure 4. MR.", "see (Figure 4)", "Figure 4. MR."]


def test_roco(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        folder = tmp_path / "data" / name / "radiology"
        (folder / "images").mkdir(parents=True)
        (folder / "captions.txt").write_text(f"ROCO_1\t Radiograph of {name}.\n\nROCO_2\t CT.\n", encoding="utf-8")
        (folder / "licences.txt").write_text("ROCO_1\tx\n", encoding="utf-8")
        (folder / "images" / "ROCO_1.jpg").write_bytes(b"x")
    found = read_all("pmc-jsonl", tmp_path / "data", **CT)
    samples = [one for one in found if isinstance(one, Sample)]
    assert [(one.id, one.split) for one in samples[::2]] == [
        ("train/radiology/images/ROCO_1.jpg", "train"),
        ("validation/radiology/images/ROCO_1.jpg", "calibration"),
    ]
    assert samples[2].text == "Radiograph of validation."
    assert samples[3].origin.endswith("captions.txt:3")
    assert [one.level for one in found if isinstance(one, Skipped)] == ["note", "note"]  # licenses
    left = read_all("pmc-jsonl", tmp_path / "data", **CT, skip_missing=True)
    assert [one.where[-1] for one in left if isinstance(one, Skipped) and one.level == "warning"] == ["3", "3"]
    (tmp_path / "data" / "captions_bad.txt").write_text("ROCO_1 no tab", encoding="utf-8")
    with raises_error("KD-SRC-333"):
        read("pmc-jsonl", tmp_path / "data", **CT)


def test_held_out_images_have_their_first_caption_alone(tmp_path: Path) -> None:
    """Each image counts once in what is measured; what is left out is counted."""
    splits = ("train", "calibration", "test")
    records = [{"image": f"{split}.png", "captions": ["one", "two", "one", ""], "split": split} for split in splits]
    path = write(tmp_path / "a.jsonl", *records)
    found = read_all("pmc-jsonl", path, **CT)
    samples = [one for one in found if isinstance(one, Sample)]
    assert [(one.id, one.text) for one in samples] == [
        ("train.png", "one"),
        ("train.png#2", "two"),
        ("calibration.png", "one"),
        ("test.png", "one"),
    ]
    assert [IMAGE_CAPTIONS in one.extra for one in samples] == [True, True, False, False]
    assert [one.level for one in found if isinstance(one, Skipped)] == ["note", "note"]


def test_a_further_caption_changes_no_other_digest(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"image": "a.png", "captions": ["one", "two"], "id": "a"})
    before = read("pmc-jsonl", path, **TRAIN)
    write(path, {"image": "a.png", "captions": ["one", "two", "three"], "id": "a"})
    after = read("pmc-jsonl", path, **TRAIN)
    assert [one.id for one in after] == ["a", "a#2", "a#3"]
    for old, new in zip(before, after, strict=False):
        assert old.extra != new.extra
        digests = [content_digest(one.text, one.extra, one.image_options, 1) for one in (old, new)]
        assert digests[0] == digests[1]


def test_other_fields_are_named(tmp_path: Path) -> None:
    record = {"file": "a.png", "title": "T", "legend": ["L"], "article": "PMC1", "kind": "ct", "class": "cyst"}
    path = write(tmp_path / "a.jsonl", record)
    columns = {"image": "file", "group": "article", "domain": "kind", "label": "class"}
    options: dict[str, Any] = {"columns": columns, "constants": {"split": "train"}, "captions": ["title", "legend"]}
    samples = read("pmc-jsonl", path, **options)
    assert [(one.id, one.text, one.label, one.extra["group"]) for one in samples] == [
        ("a.png", "T", "cyst", "PMC1"),
        ("a.png#2", "L", "cyst", "PMC1"),
    ]
    with raises_error("KD-SRC-329", mentions=("title", "article")):
        read("pmc-jsonl", path, **TRAIN)
    write(path, {"image": "a.png", "title": "T"})
    assert [one.text for one in read("pmc-jsonl", path, **TRAIN, captions=["title"])] == ["T"]


@pytest.mark.parametrize(
    ("record", "error"),
    [
        ({"image": "a.png", "captions": ["a", 7]}, "KD-SRC-330"),
        ({"image": "a.png", "captions": ["a", 0]}, "KD-SRC-330"),
        ({"image": "a.png", "captions": {"a": "b"}}, "KD-SRC-330"),
        ({"image": "a.png", "captions": ["a"], "caption": {}}, "KD-SRC-330"),
        ({"image": "a.png", "captions": ["", None]}, "KD-SRC-331"),
        ({"image": "", "caption": "a"}, "KD-SRC-332"),
        ({"image": "../a.png", "caption": "a"}, "KD-SRC-036"),
        ({"picture": "a.png"}, "KD-SRC-329"),
    ],
)
def test_broken_records(tmp_path: Path, record: dict[str, Any], error: str) -> None:
    good = {"image": "b.png", "captions": ["b"], "pmcid": "1"}
    path = write(tmp_path / "a.jsonl", good, record)
    with raises_error(error, where=f"{path}:2"):
        read("pmc-jsonl", path, **TRAIN)
    found = read_all("pmc-jsonl", path, **TRAIN, skip_broken=True)
    assert [type(one) for one in found] == [Sample, Skipped]
    path.write_text(json.dumps(good) + "\nnot json\n", encoding="utf-8")
    with raises_error("KD-SRC-014", where=f"{path}:2"):
        read("pmc-jsonl", path, **TRAIN)
