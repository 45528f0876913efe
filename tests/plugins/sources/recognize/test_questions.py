"""``kdkit init --from`` knows the layouts of public sets of questions, and what it writes is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kdkit.core.data.recognize import recognize
from kdkit.core.plugin_system.discovery import load_catalogue
from tests.plugins.sources.files import read
from tests.plugins.sources.question_sets import omni_med_vqa, path_vqa, pmc_vqa, vqa_med, write_image
from tests.plugins.sources.test_vqa import RAD, SLAKE


def vqa_rad(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "VQA_RAD Dataset Public.json").write_text(json.dumps([RAD, {**RAD, "qid": 2}]), encoding="utf-8")
    write_image(folder / "VQA_RAD Image Folder" / str(RAD["image_name"]))
    return folder


def slake(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "train.json").write_text(json.dumps([SLAKE]), encoding="utf-8")
    write_image(folder / "imgs" / str(SLAKE["img_name"]))
    return folder


@pytest.mark.parametrize(
    ("make", "source", "count", "domain"),
    [
        (path_vqa, "hub-questions", 24, "vqa/pathology"),
        (pmc_vqa, "pmc-vqa", 4, "vqa/figure"),
        (omni_med_vqa, "omni-med-vqa", 2, "vqa/ct"),
        (vqa_med, "vqa-med", 5, "vqa/organ"),
        (vqa_rad, "vqa-rad", 2, "vqa/head"),
        (slake, "slake", 1, "vqa/mri"),
    ],
)
def test_layouts(tmp_path: Path, make: Callable[[Path], Path], source: str, count: int, domain: str) -> None:
    found = recognize(make(tmp_path / "path-vqa"), load_catalogue())
    assert found.source == source
    samples = read(source, found.found.path, **found.found.options)
    assert len(samples) == count
    assert domain in {sample.domain for sample in samples}


def test_single_files(tmp_path: Path) -> None:
    catalogue = load_catalogue()
    assert recognize(pmc_vqa(tmp_path / "pmc", 1) / "test.csv", catalogue).source == "pmc-vqa"
    assert recognize(tmp_path / "pmc", catalogue).found.options == {"version": 1}
    file = path_vqa(tmp_path / "rad", ("train",)) / "data" / "train-00000-of-00001.parquet"
    assert recognize(file, catalogue).found.options["calibration"] == 0.1
    unsplit = file.rename(file.with_name("all.parquet"))
    assert set(recognize(unsplit, catalogue).found.options["split_fractions"]) == {"train", "calibration", "test"}
