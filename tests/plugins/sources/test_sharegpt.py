"""LLaMA-Factory's sharegpt format."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import Sample, Skipped
from tests.errors import raises_error
from tests.plugins.sources.files import read, read_all, write_records

CLINKD: dict[str, Any] = {
    "file_name": "Train_sharegpt_final.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}
"""The entry of ClinKD's own dataset_info.json, with a relative file_name."""
BOX = "<|object_ref_start|>liver<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|>"
TURNS: list[tuple[str, str]] = [("user", "<image>Where is the liver?"), ("assistant", BOX)]


def record(*turns: tuple[str, str], images: object = ("ct_1.png",), **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": r, "content": c} for r, c in turns or TURNS], "images": images, **more}


def sharegpt(
    folder: Path, *records: Mapping[str, Any], entry: Mapping[str, Any] = CLINKD, **options: Any
) -> list[Sample]:
    return [item for item in sharegpt_all(folder, *records, entry=entry, **options) if isinstance(item, Sample)]


def sharegpt_all(
    folder: Path, *records: Mapping[str, Any], entry: Mapping[str, Any] = CLINKD, **options: Any
) -> list[Sample | Skipped]:
    info = folder / "dataset_info.json"
    info.write_text(json.dumps({"qwen2vl_data": entry}), encoding="utf-8")
    write_records(folder / "Train_sharegpt_final.json", *records)
    given = {"task": "vg", "modality": "ct", "split": "train", **options}
    return read_all("sharegpt", info, **{name: value for name, value in given.items() if value is not None})


def test_the_format_of_clinkd_is_read(tmp_path: Path) -> None:
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


def test_boxes_are_converted_everywhere(tmp_path: Path) -> None:
    question = ("user", "<image>What is <|box_start|>(0,0),(500,500)<|box_end|>?")
    (sample,) = sharegpt(tmp_path, record(question, ("assistant", BOX)), boxes="qwen2-vl", boxes_as="qwen-vl")
    assert sample.text == "<ref>liver</ref><box>(100,200),(300,400)</box>"
    assert sample.extra["messages"][0]["content"] == "<image>What is <box>(0,0),(500,500)</box>?"
    assert sample.extra["boxes"] == [(0.1, 0.2, 0.3, 0.4)]


def test_without_a_target_texts_stay_as_they_are(tmp_path: Path) -> None:
    spaced = BOX.replace("),(", "), (")
    (sample,) = sharegpt(tmp_path, record(TURNS[0], ("assistant", spaced)), boxes="qwen2-vl")
    assert sample.text == spaced
    question = ("user", "<image>What is <|box_start|>(0,0),(5000,500)<|box_end|>?")
    with raises_error("KD-ANS-006"):
        sharegpt(tmp_path, record(question, ("assistant", BOX)), boxes="qwen2-vl")


def test_defaults_are_those_of_llama_factory(tmp_path: Path) -> None:
    """Without tags: from, value, human, gpt, system; every turn gives a sample."""
    entry = {"file_name": "Train_sharegpt_final.json", "formatting": "sharegpt",
             "columns": {"messages": "conversations", "images": "pictures", "system": "prompt"}}  # fmt: skip
    turns = [("human", "<image>One?"), ("gpt", "1"), ("human", "<image>Two?"), ("gpt", "2")]
    talk_turns = [{"from": r, "value": c} for r, c in turns]
    talk = {"conversations": talk_turns, "pictures": ["ct_1.png", "sub/ct_2.png"], "prompt": "Be brief."}
    first, second = sharegpt(tmp_path, talk, entry=entry, task="mia")
    assert (first.text, second.text) == ("1", "2")
    assert [m["role"] for m in second.extra["messages"]] == ["system", "user", "assistant", "user"]
    assert "images" not in first.extra
    assert second.extra["images"] == [tmp_path / "sub" / "ct_2.png"]
    assert (first.id[:-2], first.id[-2:], second.id[-2:]) == (second.id[:-2], "/1", "/2")
    talk_turns.insert(0, {"from": "system", "value": "Be long."})
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


def test_columns_can_hold_task_modality_and_split(tmp_path: Path) -> None:
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


def test_entries_and_files_can_be_chosen(tmp_path: Path) -> None:
    sharegpt(tmp_path, record())
    info = tmp_path / "dataset_info.json"
    info.write_text(json.dumps({"a": CLINKD, "b": {**CLINKD, "file_name": "/elsewhere/x.json"}}), encoding="utf-8")
    options = {"task": "vg", "modality": "ct", "split": "train"}
    assert len(read("sharegpt", info, dataset="a", **options)) == 1
    with raises_error("KD-SRC-057", mentions=("2",)):
        read("sharegpt", info, **options)
    with raises_error("KD-SRC-058", mentions=("'c'",)):
        read("sharegpt", info, dataset="c", **options)
    with raises_error("KD-SRC-036", mentions=("file",)):
        read("sharegpt", info, dataset="b", **options)
    assert len(read("sharegpt", info, dataset="b", file="Train_sharegpt_final.json", **options)) == 1


def test_text_alone_is_skipped_and_counted(tmp_path: Path) -> None:
    alone = record(("user", "Hello?"), ("assistant", "Hi."), images=None)
    later = record(("user", "Hello?"), ("assistant", "Hi."), ("user", "<image>Where?"), ("assistant", BOX))
    first, text, early, second = sharegpt_all(tmp_path, record(), alone, later)
    assert isinstance(first, Sample)
    assert isinstance(second, Sample)
    assert isinstance(text, Skipped)
    assert isinstance(early, Skipped)
    assert [(text.level, text.where[-2:]), (early.level, early.where[-2:])] == [("warning", ":3"), ("warning", ":4")]
    assert (len(second.extra["messages"]), second.id[-2:]) == (3, "/2")
    with raises_error("KD-SRC-026", mentions=("1",)):
        sharegpt(tmp_path, alone)


def test_a_broken_turn_drops_its_record(tmp_path: Path) -> None:
    turns = [("user", "<image>Where?"), ("assistant", BOX), ("user", "And?"), ("assistant", BOX.replace("300", "1300"))]
    sample, skipped = sharegpt_all(tmp_path, record(), record(*turns), boxes="qwen2-vl", skip_broken=True)
    assert isinstance(sample, Sample)
    assert isinstance(skipped, Skipped)


def test_records_of_one_line_have_their_number(tmp_path: Path) -> None:
    sharegpt(tmp_path, record())
    file = tmp_path / "Train_sharegpt_final.json"
    file.write_text(json.dumps([record(), record(USER)]), encoding="utf-8")
    with raises_error("KD-SRC-024", where=f"{file}:1, record 2"):
        read("sharegpt", tmp_path / "dataset_info.json", task="vg", modality="ct", split="train")


def test_alpaca(tmp_path: Path) -> None:
    names = {"prompt": "instruction", "query": "input", "response": "output", "images": "images", "history": "history"}
    entry = {"file_name": "Train_sharegpt_final.json", "columns": names}
    talk = {"instruction": "<image>Where?", "input": "Be brief.", "output": "Left.", "images": ["ct_1.png"]}
    past = {**talk, "instruction": "And?", "history": [["<image>What?", "A liver."]]}
    one, two, three = sharegpt(tmp_path, talk, past, entry=entry, task="vqa")
    assert (one.text, one.extra["messages"][0]["content"]) == ("Left.", "<image>Where?\nBe brief.")
    assert [two.text, three.text] == ["A liver.", "Left."]
    for broken in ({**talk, "output": 7}, {**talk, "instruction": "", "input": ""}, {**talk, "history": ["x"]}):
        with raises_error("KD-SRC-061" if "history" in broken else "KD-SRC-064"):
            sharegpt(tmp_path, broken, entry=entry, task="vqa")


OPENAI = {**CLINKD, "formatting": "openai", "columns": {"messages": "messages", "images": "images", "tools": "tools"}}
OPENAI["tags"] = {**CLINKD["tags"], "observation_tag": "tool", "function_tag": "tool_calls", "system_tag": "system"}


def test_openai_with_parts(tmp_path: Path) -> None:
    parts = [{"type": "image"}, {"type": "text", "text": "Where?"}]
    named = [{"type": "text", "text": "Or "}, {"type": "image_url", "image_url": {"url": "ct_2.png"}}]
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Brief."}, {"role": "user", "content": parts}]
    messages.append({"role": "assistant", "content": [{"type": "text", "text": "Left."}]})
    (sample,) = sharegpt(tmp_path, {"messages": messages, "images": ["ct_1.png"]}, entry=OPENAI, task="vqa")
    assert [message["content"] for message in sample.extra["messages"]] == ["Brief.", "<image>Where?"]
    assert (sample.image.name, sample.text) == ("ct_1.png", "Left.")
    messages[1]["content"] = named
    (sample,) = sharegpt(tmp_path, {"messages": messages}, entry=OPENAI, task="vqa")
    assert (sample.image.name, sample.extra["messages"][1]["content"]) == ("ct_2.png", "Or <image>")
    with raises_error("KD-SRC-067"):
        sharegpt(tmp_path, {"messages": messages, "images": ["ct_1.png"]}, entry=OPENAI, task="vqa")
    messages[1]["content"] = [{"type": "video"}]
    with raises_error("KD-SRC-063"):
        sharegpt(tmp_path, {"messages": messages}, entry=OPENAI, task="vqa")


def test_tools_become_the_text_of_qwens_template(tmp_path: Path) -> None:
    call = {"name": "measure", "arguments": {"organ": "liver"}}
    messages = [
        {"role": "user", "content": "<image>How large?"},
        {"role": "assistant", "content": None, "tool_calls": [{"type": "function", "function": call}]},
        {"role": "tool", "content": "14"},
        {"role": "tool", "content": "cm"},
        {"role": "assistant", "content": "14 cm."},
    ]
    talk = {"messages": messages, "images": ["ct_1.png"], "tools": json.dumps([{"name": "measure"}])}
    called, answered = sharegpt(tmp_path, talk, entry=OPENAI, task="vqa")
    assert called.text == f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
    system, _, _, response = answered.extra["messages"]
    assert system["role"] == "system"
    assert json.dumps({"type": "function", "function": {"name": "measure"}}) in system["content"]
    assert response["role"] == "user"
    assert response["content"] == "<tool_response>\n14\n</tool_response>\n<tool_response>\ncm\n</tool_response>"
    no_tools: tuple[Any, ...] = ("[]", [], "", None)
    for absent in no_tools:
        _, answered = sharegpt(tmp_path, {**talk, "tools": absent}, entry=OPENAI, task="vqa")
        assert answered.extra["messages"][0]["role"] == "user"
    with raises_error("KD-SRC-059"):
        sharegpt(tmp_path, {**talk, "tools": "measure"}, entry=OPENAI, task="vqa")
    share = {**CLINKD, "tags": {**CLINKD["tags"], "observation_tag": "observation", "function_tag": "function_call"}}
    turns = [("user", "<image>How large?"), ("function_call", json.dumps(call)), ("observation", "14"), MODEL]
    called, _ = sharegpt(tmp_path, record(*turns), entry=share)
    assert called.text == f"<tool_call>\n{json.dumps(call)}\n</tool_call>"


USER, MODEL = ("user", "<image>Where?"), ("assistant", BOX)


@pytest.mark.parametrize(
    ("broken", "id"),
    [
        (record(USER, MODEL, images=[]), "KD-SRC-022"),
        (record(USER, MODEL, images=["a.png", "b.png"]), "KD-SRC-022"),
        (record(("user", "Where?"), MODEL), "KD-SRC-022"),
        (record(("user", "Where?"), ("assistant", "<image>")), "KD-SRC-022"),
        (record(USER, USER, MODEL), "KD-SRC-024"),
        (record(USER), "KD-SRC-024"),
        (record(MODEL, USER), "KD-SRC-024"),
        (record(("system", "Hi"), USER, MODEL), "KD-SRC-063"),
        (record(USER, ("function_call", "{}")), "KD-SRC-063"),
        (record(USER, MODEL, images=["../x.png"]), "KD-SRC-036"),
        (record(USER, MODEL, images=["/etc/passwd"]), "KD-SRC-036"),
        (record(USER, MODEL, images=[7]), "KD-SRC-035"),
        (record(USER, MODEL, videos=["v.mp4"]), "KD-SRC-060"),
        ({"images": ["a.png"]}, "KD-SRC-062"),
        (record(USER, ("assistant", "nowhere")), "KD-SRC-019"),
        (record(USER, ("assistant", BOX.replace("300", "1300"))), "KD-ANS-006"),
        (record(USER, ("assistant", '{"bbox_2d": [1, 2, 3, 4]}')), "KD-ANS-005"),
    ],
)
def test_broken_records_are_reported_or_skipped(tmp_path: Path, broken: dict[str, Any], id: str) -> None:
    with raises_error(id, where=f"{tmp_path / 'Train_sharegpt_final.json'}:3"):
        sharegpt(tmp_path, record(), broken, boxes="qwen2-vl")
    _, skipped = sharegpt_all(tmp_path, record(), broken, boxes="qwen2-vl", skip_broken=True)
    assert isinstance(skipped, Skipped)
    assert (skipped.where.rpartition(":")[2], skipped.level) == ("3", "warning")
    with raises_error(id):  # without any valid record
        sharegpt(tmp_path, broken, boxes="qwen2-vl", skip_broken=True)


@pytest.mark.parametrize(
    ("change", "id"),
    [
        ({"formatting": "sharegpt4"}, "KD-SRC-051"),
        ({"formatting": "alpaca"}, "KD-SRC-054"),
        ({"ranking": True}, "KD-SRC-051"),
        ({"file_name": None}, "KD-SRC-052"),
        ({"columns": {"images": "images"}}, "KD-SRC-054"),
        ({"columns": {"messages": 7}}, "KD-SRC-053"),
        ({"tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user"}}, "KD-SRC-054"),
        ({"tags": "chatml"}, "KD-SRC-053"),
    ],
)
def test_unsupported_entries_are_refused(tmp_path: Path, change: dict[str, Any], id: str) -> None:
    entry = {name: value for name, value in {**CLINKD, **change}.items() if value is not None}
    with raises_error(id):
        sharegpt(tmp_path, record(), entry=entry)


@pytest.mark.parametrize(
    ("options", "id"),
    [
        ({"task": "grounding"}, "KD-SRC-025"),
        ({"task": None}, "KD-SRC-065"),
        ({"modality": None}, "KD-SRC-065"),
        ({"modality": None, "modality_pattern": "^x_"}, "KD-SRC-066"),
        ({"modality": None, "modality_pattern": "^(x)?ct"}, "KD-SRC-066"),
        ({"modality": None, "modality_pattern": "(["}, "KD-SRC-056"),
        ({"split": None}, "KD-SRC-021"),
        ({"split_fractions": {"train": 1.0}}, "KD-SRC-021"),
        ({"split": "val"}, "KD-SRC-020"),
        ({"columns": {"label": "x"}}, "KD-SRC-055"),
        ({"boxes": "yolo"}, "KD-SRC-018"),
        ({"boxes": "qwen2.5-vl"}, "KD-SRC-018"),
        ({"boxes_as": "qwen-vl"}, "KD-SRC-017"),
    ],
)
def test_invalid_options_are_refused(tmp_path: Path, options: dict[str, Any], id: str) -> None:
    with raises_error(id):
        sharegpt(tmp_path, record(), **options)
