"""VQA-RAD, SLAKE and LLaVA-Med-qa0.2k, on small files in the published formats."""

from __future__ import annotations

import json
from pathlib import Path

from kdkit.core.contracts import Sample, Skipped
from tests.errors import raises_error
from tests.plugins.sources.files import read, read_all, write_records

RAD = {"qid": 1, "image_name": "synpic54610.jpg", "image_organ": "HEAD", "answer": "Yes", "answer_type": "CLOSED",
       "question_type": "PRES",
       "question": "Are regions of the brain infarcted?", "phrase_type": "freeform"}  # fmt: skip


def test_vqa_rad(tmp_path: Path) -> None:
    rows = [{**RAD, "qid": n, "image_name": f"synpic{n % 40}.jpg"} for n in range(200)]
    test = {**RAD, "qid": 900, "phrase_type": "test_para", "answer": 3, "answer_type": "OPEN "}
    path = write_records(tmp_path / "VQA_RAD.json", *rows, test)
    *others, last = read("vqa-rad", path, image_root="images", calibration=0.3)
    assert (last.id, last.split, last.text, last.domain) == ("vqa-rad/900", "test", "3", "vqa/head")
    assert last.extra["answer_type"] == "OPEN"
    assert last.extra["messages"][0]["content"] == "<image>\nAre regions of the brain infarcted?"
    by_image = {sample.image: sample.split for sample in others}
    assert all(by_image[sample.image] == sample.split for sample in others)
    assert {sample.split for sample in others} == {"train", "calibration"}
    with raises_error("KD-SRC-034", mentions=("'image_organ'",)):
        read("vqa-rad", write_records(path, {k: v for k, v in RAD.items() if k != "image_organ"}))


SLAKE = {"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality is used?", "answer": "MRI",
         "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN", "base_type": "vqa",
         "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": 0}  # fmt: skip


def test_slake(tmp_path: Path) -> None:
    write_records(
        tmp_path / "train.json", SLAKE, {**SLAKE, "qid": 1, "q_lang": "zh", "question": "这张图像是用什么模态拍摄的?"}
    )
    write_records(tmp_path / "validate.json", {**SLAKE, "qid": 2, "answer_type": "CLOSED", "answer": "No"})
    write_records(tmp_path / "test.json", {**SLAKE, "qid": 3, "modality": "X-Ray"})
    found = read_all("slake", tmp_path)
    samples = [item for item in found if isinstance(item, Sample)]
    assert [item.level for item in found if isinstance(item, Skipped)] == ["note"]  # a question in Chinese
    assert [(s.id, s.split, s.domain) for s in samples] == [
        ("slake/0", "train", "vqa/mri"),
        ("slake/2", "calibration", "vqa/mri"),
        ("slake/3", "test", "vqa/x-ray"),
    ]
    assert samples[0].image == tmp_path / "imgs" / "xmlab1" / "source.jpg"
    assert len(read("slake", tmp_path, language="all")) == 4
    with raises_error("KD-SRC-072"):
        read("slake", tmp_path / "nowhere")
    (tmp_path / "validate.json").unlink()
    (tmp_path / "test.json").unlink()
    missing = [item for item in read_all("slake", tmp_path) if isinstance(item, Skipped) and item.level == "problem"]
    assert [Path(item.where).name for item in missing] == ["validate.json", "test.json"]
    write_records(tmp_path / "train.json", SLAKE)
    with raises_error("KD-SRC-026", mentions=("1",)):
        read("slake", tmp_path, language="zh")
    with raises_error("KD-SRC-071", mentions=("'de'",)):
        read("slake", tmp_path, language="de")


def test_llava_med_qa(tmp_path: Path) -> None:
    row = {
        "question_id": 0, "image": "18063892_F3.jpg", "pair_id": "18063892_F3", "type": "conversation",
        "text": "What is the organ in the image?\n<image>", "gpt4_answer": "The organ is the conjunctiva.",
        "fig_caption": "...", "in_text_mention": [], "fig_label": "Fig. 3",
        "domain": {"chest_xray": False, "mri": False, "ct_scan": False, "histology": True, "gross": True},
    }  # fmt: skip
    path = tmp_path / "qa.jsonl"
    path.write_text(json.dumps(row) + "\n", encoding="utf-8")
    (sample,) = read("llava-med-qa", path)
    assert (sample.id, sample.domain, sample.split) == ("llava-med-qa/0", "mia/histology+gross", "test")
    assert sample.extra["messages"] == [{"role": "user", "content": "<image>\nWhat is the organ in the image?"}]
    assert (sample.text, sample.image) == ("The organ is the conjunctiva.", tmp_path / "images" / "18063892_F3.jpg")
    path.write_text(json.dumps({**row, "text": "<image>\nWhat is the organ in the image?"}) + "\n", encoding="utf-8")
    assert read("llava-med-qa", path)[0].extra == sample.extra
    path.write_text(json.dumps({**row, "domain": {}}) + "\n", encoding="utf-8")
    with raises_error("KD-SRC-074", where=f"{path}:1"):
        read("llava-med-qa", path)
    with raises_error("KD-SRC-020", mentions=("'val'",)):
        read("llava-med-qa", path, split="val")
