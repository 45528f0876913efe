"""Sources of questions with answers, on small files in exactly the published formats."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.plugins.sources.questions import read_all
from kdkit.plugins.sources.records import json_records
from tests.errors import raises_error

CLINKD: dict[str, Any] = {
    "file_name": "Train_sharegpt_final.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}
"""The entry of ClinKD's own dataset_info.json, with a relative file_name."""
BOX = "<|object_ref_start|>liver<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>"
SAID: list[tuple[str, str]] = [("user", "<image>Where is the liver?"), ("assistant", BOX)]


def read(source: str, location: Path, **options: Any) -> list[Sample]:
    return list(load_catalogue().make("source", source, location=location, **options))


def record(*turns: tuple[str, str], images: object = ("ct_1.png",), **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": r, "content": c} for r, c in turns or SAID], "images": images, **more}


def sharegpt(
    folder: Path, *records: Mapping[str, Any], entry: Mapping[str, Any] = CLINKD, **options: Any
) -> list[Sample]:
    info = folder / "dataset_info.json"
    info.write_text(json.dumps({"qwen2vl_data": entry}), encoding="utf-8")
    write(folder / "Train_sharegpt_final.json", *records)
    given = {"task": "vg", "modality": "ct", "split": "train", **options}
    return read("sharegpt", info, **{name: value for name, value in given.items() if value is not None})


def write(path: Path, *records: Mapping[str, Any]) -> Path:
    """One record a line, from line 2 on."""
    lines = ",\n".join(json.dumps(item) for item in records)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    return path


# ----------------------------------------------------------------------------------- sharegpt


def test_clinkds_own_format(tmp_path: Path) -> None:
    (sample,) = sharegpt(tmp_path, record(), boxes="qwen2-vl")
    assert (sample.image, sample.text, sample.domain) == (tmp_path / "ct_1.png", BOX, "vg/ct")
    assert sample.extra == {
        "task": "vg",
        "messages": [{"role": "user", "content": "<image>Where is the liver?"}],
        "boxes": [(0.1, 0.2, 0.3, 0.4)],
        "box_family": "qwen2-vl",
    }
    assert (sample.split, sample.label, sample.origin) == (
        "train", None, f"{tmp_path / 'Train_sharegpt_final.json'}:2"
    )  # fmt: skip


def test_boxes_are_translated_everywhere(tmp_path: Path) -> None:
    asked = ("user", "<image>What is <|box_start|>(0,0),(500,500)<|box_end|>?")
    (sample,) = sharegpt(tmp_path, record(asked, ("assistant", BOX)), boxes="qwen2-vl", boxes_as="qwen-vl")
    assert sample.text == "<ref>liver</ref><box>(100,200),(300,400)</box>"
    assert sample.extra["messages"][0]["content"] == "<image>What is <box>(0,0),(500,500)</box>?"
    assert sample.extra["boxes"] == [(0.1, 0.2, 0.3, 0.4)]


def test_without_a_target_texts_stay_as_they_are(tmp_path: Path) -> None:
    spaced = BOX.replace("),(", "), (")
    (sample,) = sharegpt(tmp_path, record(SAID[0], ("assistant", spaced)), boxes="qwen2-vl")
    assert sample.text == spaced
    asked = ("user", "<image>What is <|box_start|>(0,0),(5000,500)<|box_end|>?")
    with raises_error("KD-ANS-006"):
        sharegpt(tmp_path, record(asked, ("assistant", BOX)), boxes="qwen2-vl")


def test_defaults_are_llama_factorys(tmp_path: Path) -> None:
    """Without tags: from, value, human, gpt, system; an answer of every turn is learnt from."""
    entry = {"file_name": "Train_sharegpt_final.json", "formatting": "sharegpt",
             "columns": {"messages": "conversations", "images": "pictures", "system": "prompt"}}  # fmt: skip
    turns = [("human", "<image>One?"), ("gpt", "1"), ("human", "<image>Two?"), ("gpt", "2")]
    said = [{"from": r, "value": c} for r, c in turns]
    talk = {"conversations": said, "pictures": ["ct_1.png", "sub/ct_2.png"], "prompt": "Be brief."}
    first, second = sharegpt(tmp_path, talk, entry=entry, task="mia")
    assert (first.text, second.text) == ("1", "2")
    assert [m["role"] for m in second.extra["messages"]] == ["system", "user", "assistant", "user"]
    assert "images" not in first.extra
    assert second.extra["images"] == [tmp_path / "sub" / "ct_2.png"]
    assert (first.id[:-2], first.id[-2:], second.id[-2:]) == (second.id[:-2], "/1", "/2")
    said.insert(0, {"from": "system", "value": "Be long."})
    with_system, _ = sharegpt(tmp_path, talk, entry=entry, task="mia")
    assert with_system.extra["messages"][0] == {"role": "system", "content": "Be long."}


def test_ids_stay_when_records_move(tmp_path: Path) -> None:
    a, b = record(), record(("user", "<image>?"), ("assistant", BOX))
    ids = {sample.id for sample in sharegpt(tmp_path, a, b)}
    assert {sample.id for sample in sharegpt(tmp_path, b, a)} == ids
    assert len(ids) == 2
    assert {sample.id for sample in sharegpt(tmp_path, a, a)} > {sharegpt(tmp_path, a)[0].id}
    (named,) = sharegpt(tmp_path, record(name="x7"), columns={"id": "name"}, id_prefix="grit/")
    assert named.id == "grit/x7"


def test_fields_say_what_options_do_not(tmp_path: Path) -> None:
    columns = {"task": "kind", "split": "fold"}
    mixed = record(("user", "<image>?"), ("assistant", "fine"), images="MR_7_a.png", kind="mia", fold="test")
    (sample,) = sharegpt(tmp_path, mixed, columns=columns, modality_pattern="^([^_]+)_", task=None, split=None)
    assert (sample.domain, sample.split) == ("mia/mr", "test")
    fractions = {"train": 0.5, "test": 0.5}
    many = [record(("user", "<image>?"), ("assistant", str(n)), images=[f"{n % 9}.png"]) for n in range(60)]
    samples = sharegpt(tmp_path, *many, split=None, split_fractions=fractions)
    splits = {sample.image.name: sample.split for sample in samples}
    assert all(splits[sample.image.name] == sample.split for sample in samples)
    assert set(splits.values()) == {"train", "test"}


def test_several_entries_and_files_elsewhere(tmp_path: Path) -> None:
    sharegpt(tmp_path, record())
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps({"a": CLINKD, "b": {**CLINKD, "file_name": "/elsewhere/x.json"}}), encoding="utf-8")
    options = {"task": "vg", "modality": "ct", "split": "train"}
    assert len(read("sharegpt", info, dataset="a", **options)) == 1
    with raises_error("KD-SRC-057", mentions=("2",)):
        read("sharegpt", info, **options)
    with raises_error("KD-SRC-058", mentions=("'c'",)):
        read("sharegpt", info, dataset="c", **options)
    with raises_error("KD-SRC-059") as error:
        read("sharegpt", info, dataset="b", **options)
    assert "option file" in error.value.fix
    assert len(read("sharegpt", info, dataset="b", file="Train_sharegpt_final.json", **options)) == 1


USER, MODEL = ("user", "<image>Where?"), ("assistant", BOX)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (record(USER, MODEL, images=[]), "1 <image> marks for 0 images"),
        (record(USER, MODEL, images=["a.png", "b.png"]), "1 <image> marks for 2 images"),
        (record(("user", "Where?"), MODEL), "0 <image> marks for 1 image$"),
        (record(("user", "Where?"), ("assistant", "<image>")), "0 <image> marks|marks for 0 images"),
        (record(USER, USER, MODEL), "roles are user, user, assistant"),
        (record(USER), "roles are user"),
        (record(MODEL, USER), "roles are assistant, user"),
        (record(("system", "Hi"), USER, MODEL), "message 1 has role 'system'"),
        (record(USER, ("function_call", "{}")), "message 2 has role 'function_call'"),
        (record(USER, MODEL, images=["../x.png"]), "outside of the folder"),
        (record(USER, MODEL, images=["/etc/passwd"]), "outside of the folder"),
        (record(USER, MODEL, images=[7]), "an image must be a path"),
        (record(USER, MODEL, videos=["v.mp4"]), "does not read 'videos'"),
        ({"images": ["a.png"]}, "a record needs 'messages'"),
        (record(USER, ("assistant", "nowhere")), "has no box"),
        (record(USER, ("assistant", BOX.replace("300", "1300"))), "outside of the image"),
        (record(USER, ("assistant", '{"bbox_2d": [1, 2, 3, 4]}')), "not a box of 'qwen2-vl'"),
    ],
)
def test_broken_records_are_named_or_counted(tmp_path: Path, broken: dict[str, Any], message: str) -> None:
    with pytest.raises(KdkitError, match=message) as error:
        sharegpt(tmp_path, record(), broken, boxes="qwen2-vl")
    assert error.value.where == f"{tmp_path / 'Train_sharegpt_final.json'}:3"
    with pytest.warns(UserWarning, match="1 of 2 records are broken and left out, the first at .*json:3: "):
        assert len(sharegpt(tmp_path, record(), broken, boxes="qwen2-vl", skip_broken=True)) == 1
    with pytest.raises(KdkitError, match=message):  # none is whole: that is no data
        sharegpt(tmp_path, broken, boxes="qwen2-vl", skip_broken=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formatting": "alpaca"}, "only 'formatting: sharegpt'"),
        ({"ranking": True}, "only 'formatting: sharegpt'"),
        ({"file_name": None}, "this entry has no file_name"),
        ({"columns": {"messages": "messages"}}, "does not say what 'images' is"),
        ({"tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user"}}, "'assistant_tag'"),
        ({"tags": "chatml"}, "'tags' of this entry must be an object"),
    ],
)
def test_entries_that_are_not_read(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    entry = {name: value for name, value in {**CLINKD, **change}.items() if value is not None}
    with pytest.raises(KdkitError, match=message):
        sharegpt(tmp_path, record(), entry=entry)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "grounding"}, "'grounding' is not a task of answers"),
        ({"task": None}, "nothing says the task"),
        ({"modality": None}, "nothing says the modality"),
        ({"modality": None, "modality_pattern": "^x_"}, "has no group, or its first does not match"),
        ({"modality": None, "modality_pattern": "^(x)?ct"}, "has no group, or its first does not match"),
        ({"modality": None, "modality_pattern": "(["}, "is no regular expression"),
        ({"split": None}, "are both missing"),
        ({"split_fractions": {"train": 1.0}}, "exclude each other"),
        ({"split": "val"}, "'val' is not a split"),
        ({"columns": {"label": "x"}}, "'label' is not known"),
        ({"boxes": "yolo"}, "no family of boxes 'yolo'"),
        ({"boxes": "qwen2.5-vl"}, "needs the size of the resized image"),
        ({"boxes_as": "qwen-vl"}, "boxes_as is given without boxes"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(KdkitError, match=message):
        sharegpt(tmp_path, record(), **options)


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        ('[\n{"a": 1},\n{"broken\n]', "not valid JSON", 3),
        ('[\n{"a": 1}\n{"b": 2}\n]', "a comma or the end", 3),
        ('[\n{"a": 1},\n7\n]', "not a JSON object", 3),
        ('{"a": 1}', "a list of objects is expected", 1),
        ("", "a list of objects is expected", 1),
        ("[]", "no records", None),
        ("[" * 100_000, "not valid JSON: maximum recursion depth", 1),
        (f'[{{"a": {"9" * 5000}}}]', "not valid JSON: Exceeds the limit", 1),
    ],
)
def test_files_that_are_no_records(tmp_path: Path, content: str, message: str, line: int | None) -> None:
    path = tmp_path / "data.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(KdkitError, match=message) as error:
        list(read_all(json_records(path), lambda *_: (), path))
    assert error.value.where == (f"{path}:{line}" if line else str(path))


# ----------------------------------------------------------------------------------- the others


def test_med_grit(tmp_path: Path) -> None:
    talk = [
        ["Picture 1: <img>data/ct_00--x.png</img>\nWhere is the <ref>liver</ref>?", "<box>(10,20),(30,40)</box>"],
        ["And the spleen?", "<ref>spleen</ref><box>(50,60),(70,80)</box>"],
    ]
    path = write(tmp_path / "test.json", {"id": "ct_00--x", "conversations": talk})
    first, second = read("med-grit", path, task="vg", split="test", image_root="images", boxes_as="qwen2-vl")
    assert first.extra["messages"] == [{"role": "user", "content": "<image>\nWhere is the <ref>liver</ref>?"}]
    assert first.text == "<|box_start|>(10,20),(30,40)<|box_end|>"
    assert (first.domain, first.split, first.image) == ("vg/ct", "test", tmp_path / "images" / "ct_00--x.png")
    assert second.extra["boxes"] == [(0.05, 0.06, 0.07, 0.08)]
    assert [m["role"] for m in second.extra["messages"]] == ["user", "assistant", "user"]
    assert first.id.startswith("vg/ct_00--x/")
    assert first.id != second.id
    write(path, {"id": "ct_00--x", "conversations": [{"from": "user", "value": "x"}]})
    with raises_error("KD-SRC-016", mentions=("pairs",)) as error:
        read("med-grit", path, task="vg", split="test")
    assert error.value.where == f"{path}:2"


RAD = {"qid": 1, "image_name": "synpic54610.jpg", "image_organ": "HEAD", "answer": "Yes", "answer_type": "CLOSED",
       "question_type": "PRES",
       "question": "Are regions of the brain infarcted?", "phrase_type": "freeform"}  # fmt: skip


def test_vqa_rad(tmp_path: Path) -> None:
    rows = [{**RAD, "qid": n, "image_name": f"synpic{n % 40}.jpg"} for n in range(200)]
    test = {**RAD, "qid": 900, "phrase_type": "test_para", "answer": 3, "answer_type": "OPEN "}
    path = write(tmp_path / "VQA_RAD.json", *rows, test)
    *others, last = read("vqa-rad", path, image_root="images", calibration=0.3)
    assert (last.id, last.split, last.text, last.domain) == ("vqa-rad/900", "test", "3", "vqa/head")
    assert last.extra["answer_type"] == "OPEN"
    assert last.extra["messages"][0]["content"] == "<image>\nAre regions of the brain infarcted?"
    by_image = {sample.image: sample.split for sample in others}
    assert all(by_image[sample.image] == sample.split for sample in others)
    assert {sample.split for sample in others} == {"train", "calibration"}
    with raises_error("KD-SRC-034", mentions=("needs 'image_organ'",)):
        read("vqa-rad", write(path, {k: v for k, v in RAD.items() if k != "image_organ"}))


SLAKE = {"img_id": 1, "img_name": "xmlab1/source.jpg", "question": "What modality is used?", "answer": "MRI",
         "q_lang": "en", "location": "Abdomen", "modality": "MRI", "answer_type": "OPEN", "base_type": "vqa",
         "content_type": "Modality", "triple": ["vhead", "_", "_"], "qid": 0}  # fmt: skip


def test_slake(tmp_path: Path) -> None:
    write(
        tmp_path / "train.json", SLAKE, {**SLAKE, "qid": 1, "q_lang": "zh", "question": "这张图像是用什么模态拍摄的?"}
    )
    write(tmp_path / "validate.json", {**SLAKE, "qid": 2, "answer_type": "CLOSED", "answer": "No"})
    write(tmp_path / "test.json", {**SLAKE, "qid": 3, "modality": "X-Ray"})
    samples = read("slake", tmp_path)
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
    write(tmp_path / "train.json", SLAKE)
    with raises_error("KD-SRC-073", mentions=("'zh'",)):
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
    assert read("llava-med-qa", path)[0].extra == sample.extra  # their own code takes the mark away wherever it is
    path.write_text(json.dumps({**row, "domain": {}}) + "\n", encoding="utf-8")
    with raises_error("KD-SRC-074") as error:
        read("llava-med-qa", path)
    assert error.value.where == f"{path}:1"
    with raises_error("KD-SRC-020", mentions=("'val'",)):
        read("llava-med-qa", path, split="val")
