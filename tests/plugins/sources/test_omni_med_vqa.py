"""OmniMedVQA in the published layout."""

from __future__ import annotations

import json
from pathlib import Path

from tests.errors import raises_error
from tests.plugins.sources.files import read
from tests.plugins.sources.question_sets import OMNI, omni_med_vqa


def test_omni_med_vqa(tmp_path: Path) -> None:
    eye, scan = read("omni-med-vqa", omni_med_vqa(tmp_path))
    assert (eye.id, eye.split, eye.domain) == ("omni-med-vqa/acrima_0000", "test", "vqa/fundus photography")
    assert (eye.text, eye.extra["choices"]) == ("No, It's normal.", ["Glaucoma", "No, It's normal."])
    assert eye.extra["metadata"] == {"dataset": "ACRIMA", "question_type": "Disease Diagnosis"}
    assert eye.image == tmp_path / "Images" / "ACRIMA" / "Im002_ACRIMA.png"
    assert (scan.domain, len(scan.extra["choices"])) == ("vqa/ct", 3)
    assert len(read("omni-med-vqa", tmp_path, access="all")) == 3
    assert read("omni-med-vqa", tmp_path, access="restricted")[0].id == "omni-med-vqa/acrima_0000"
    assert {one.split for one in read("omni-med-vqa", tmp_path, split="train")} == {"train"}
    shares = {"train": 0.5, "calibration": 0.5, "test": 0.0}
    assert "test" not in {one.split for one in read("omni-med-vqa", tmp_path, split_fractions=shares)}


def test_bad_input(tmp_path: Path) -> None:
    with raises_error("KD-SRC-577"):
        read("omni-med-vqa", tmp_path)
    omni_med_vqa(tmp_path)
    with raises_error("KD-SRC-576", mentions=("all",)):
        read("omni-med-vqa", tmp_path, access="al")
    with raises_error("KD-SRC-021"):
        read("omni-med-vqa", tmp_path, split="test", split_fractions={"train": 1.0})
    for wrong in ({"gt_answer": "Cataract"}, {"option_B": None}):
        file = tmp_path / "QA_information" / "Open-access" / "ACRIMA.json"
        file.write_text(json.dumps([{**OMNI, **wrong}]), encoding="utf-8")
        with raises_error("KD-SRC-571", where=f"{file}:1, record 1"):
            read("omni-med-vqa", tmp_path)
