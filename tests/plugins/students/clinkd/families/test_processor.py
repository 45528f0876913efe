"""What is refused: unknown families, templates that drop, contexts too short, boxes of others, quantized weights."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from torch import Tensor

from kdkit.plugins.loaders import IMAGE_TEXT_TO_TEXT
from kdkit.plugins.students.clinkd.families.known import FAMILIES
from kdkit.plugins.students.clinkd.tokens import Marks, Tokens
from tests.errors import raises_error
from tests.plugins.students.clinkd.hub import TEMPLATES
from tests.plugins.students.clinkd.stock import create, folder_of, student_of
from tests.plugins.students.clinkd.tiny import PICTURES, answer_logits, picture, sample


def changed(family: str, tmp_path: Path, name: str, content: dict[str, Any] | str) -> Path:
    """A copy of a model folder with another file, or other keys in one."""
    folder = tmp_path / "model"
    shutil.copytree(folder_of(family), folder)
    if isinstance(content, str):
        (folder / name).write_text(content, encoding="utf-8")
    else:
        (folder / name).write_text(json.dumps(json.loads((folder / name).read_text()) | content))
    return folder


@pytest.mark.parametrize(
    ("config", "mentions"),
    [
        ({"model_type": "paligemma", "text_config": {"model_type": "gemma"}}, ("PaliGemma", "gemma", "one number")),
        ({"model_type": "glm4v", "text_config": {"rope_scaling": {"mrope_section": [8, 12, 12]}}}, ("qwen2_vl",)),
        ({"model_type": "bert"}, ("no image-text-to-text",)),
    ],
)
def test_a_family_that_is_not_known(config: dict[str, Any], mentions: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    with raises_error("KD-STUD-420", mentions=(config["model_type"], "FamilySpec", *mentions)):
        create("llava", tmp_path)


def test_a_family_of_a_plugin() -> None:
    """A third party adds one by a factory of its own, which passes the spec."""
    mine = {"llava": replace(FAMILIES["llava"], boxes="json")}
    student = create("llava", families=mine)
    assert student.settings.boxes == "json"
    with raises_error("KD-STUD-420", mentions=("llava",)):
        create("gemma3", families=mine)


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (TEMPLATES["llava"].replace("<image>\n", ""), "0 of 1 images"),
        (TEMPLATES["llava"].replace("{{ c['text'] }}", ""), "drops a text of the user"),
        ("{{ raise_exception('only one turn') }}", "refuses"),
    ],
)
def test_a_template_that_drops_what_it_is_given(template: str, what: str, tmp_path: Path) -> None:
    folder = changed("llava", tmp_path, "chat_template.jinja", template)
    with raises_error("KD-STUD-424", mentions=(what,)):
        create("llava", folder)


def test_a_folder_without_a_template(tmp_path: Path) -> None:
    folder = changed("llava", tmp_path, "chat_template.jinja", "x")
    (folder / "chat_template.jinja").unlink()
    with raises_error("KD-STUD-422", where=str(folder)):
        create("llava", folder)
    (folder / "preprocessor_config.json").write_text("{")
    with raises_error("KD-STUD-423", where=str(folder)):
        create("llava", folder)


def test_the_token_that_ends_an_answer(tmp_path: Path) -> None:
    """LLaVA with another language model: its template ends turns, the tokenizer's end token ends documents."""
    folder = changed("llava", tmp_path, "chat_template.jinja", TEMPLATES["llava_onevision"])
    tokens = create("llava", folder).preparation.tokens
    assert tokens.marks.end == "<|im_end|>"
    assert tokens.id("</s>") in tokens.ends
    usual = student_of("llava").preparation.tokens
    assert usual.marks.end == "</s>"
    assert tokens.digest() != usual.digest(), "answers begin with a blank there, so they are other tokens"


def test_a_tokenizer_without_an_end(tmp_path: Path) -> None:
    folder = changed("llava", tmp_path, "tokenizer_config.json", {"eos_token": None, "pad_token": None})
    with raises_error("KD-STUD-481", where=str(folder)):
        create("llava", folder)


def test_a_context_that_is_shorter_than_an_image() -> None:
    with raises_error("KD-STUD-427", mentions=("max_tokens is 8",)):
        create("llava", max_tokens=8)
    long = sample("the lung", "<image>" + "is " * 200)
    with raises_error("KD-STUD-035", mentions=("image tokens", "max_tokens")):
        student_of("llava").prepare(PICTURES[0], long)


def test_quantized_weights_are_not_trained(tmp_path: Path) -> None:
    quantized = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    folder = changed("llava", tmp_path, "config.json", quantized)
    with raises_error("KD-STUD-426", mentions=("bitsandbytes", "lora")):
        create("llava", folder)


def test_logits_that_are_changed_after_the_embedding(tmp_path: Path) -> None:
    config = json.loads((folder_of("gemma3") / "config.json").read_text())
    folder = changed(
        "gemma3", tmp_path, "config.json", {"text_config": {**config["text_config"], "final_logit_softcapping": 30.0}}
    )
    with raises_error("KD-STUD-429", mentions=("softcapping",)):
        create("gemma3", folder)


def test_boxes_in_the_notation_of_another_family() -> None:
    given = {"box_family": "qwen2-vl"}
    student = student_of("internvl")
    box = "<|object_ref_start|>lung<|object_ref_end|><|box_start|>(100,250),(500,750)<|box_end|>"
    row = create("internvl", max_answer=80, max_tokens=240).prepare(PICTURES[0], sample(box, **given))
    text = student.preparation.tokens.decode([int(i) for i in row["answer_ids"] if i >= 0])
    assert text == "<ref>lung</ref><box>[[100, 250, 500, 750]]</box>"
    with raises_error("KD-ANS-009", mentions=("internvl",)):
        student.prepare(PICTURES[0], sample("<box>[[100, 250, 500, 750]]</box>", **given))


def test_a_tokenizer_without_the_tokens_of_its_class(tmp_path: Path) -> None:
    folder = changed("gemma3", tmp_path, "tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer"})
    with raises_error("KD-STUD-432", where=str(folder), mentions=("unk",)):
        create("gemma3", folder)


def test_images_of_one_row_are_read() -> None:
    for family in ("internvl", "llava_onevision", "smolvlm"):
        for size in ((600, 1), (1, 600)):
            assert int(create(family, max_tokens=240).prepare(picture(*size), sample("lung"))["length"]) > 0


def test_tiles_of_internvl_that_its_file_denies(tmp_path: Path) -> None:
    """Files of the Hub say ``crop_to_patches: false``, and transformers' processor crops all the same."""
    folder = changed("internvl", tmp_path, "preprocessor_config.json", {"crop_to_patches": False})
    one, given = sample("lung"), {name: x[None] for name, x in _row("internvl").items()}
    student = create("internvl", folder)
    row = {name: x[None] for name, x in student.prepare(PICTURES[0], one).items()}
    assert torch.equal(row["tokens"], given["tokens"])
    assert torch.equal(answer_logits(student, row), answer_logits(student_of("internvl"), given))


def _row(family: str) -> dict[str, Tensor]:
    return dict(student_of(family).prepare(PICTURES[0], sample("lung")))


def test_more_tiles_than_expected_are_an_error() -> None:
    """A plugin's family that names the wrong bound must not lose tiles."""
    mine = {"internvl": replace(FAMILIES["internvl"], tiles="one")}
    with raises_error("KD-STUD-480", where="internvl", mentions=("pixel_values", "tiles")):
        create("internvl", families=mine, max_images=1).prepare(picture(84, 28, 3), sample("lung"))


@pytest.mark.parametrize("family", [name for name in TEMPLATES if name != "smolvlm"])
def test_answers_follow_prompts_as_in_the_template(family: str) -> None:
    """What is learned is what the template makes of a conversation with this answer: SmolVLM's begin with a blank."""
    tokens, processor = (
        student_of(family).preparation.tokens,
        transformers.AutoProcessor.from_pretrained(folder_of(family)),
    )
    given = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Where?"}]}]
    answered = [*given, {"role": "assistant", "content": [{"type": "text", "text": "the lung"}]}]
    prompt = processor.apply_chat_template(given, add_generation_prompt=True, tokenize=False)
    whole = tokens.encode(processor.apply_chat_template(answered, tokenize=False))
    wanted = [*tokens.encode(prompt), *tokens.encode_answer("the lung")]
    assert whole[: len(wanted)] == wanted
    assert tokens.decode(tokens.encode_answer("the lung")) == "the lung"


def test_a_tokenizer_that_writes_a_blank_of_its_own() -> None:
    """As Llama's: a text alone begins with a blank, so a blank before it would be a second one."""
    words = ("<unk>", "</s>", "▁", "▁ASSISTANT:", "▁yes")
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    marks = Marks("</s>", "</s>", ("</s>",))
    made = Tokens({}, "here", marks, tokenizer.to_str(), turn=("ASSISTANT:", " "))
    assert made.encode(" yes") == [2, 4]
    assert made.encode_answer("yes") == [4]


def test_settings_that_only_qwen_has() -> None:
    with raises_error("KD-STUD-428", mentions=("max_pixels", "gemma3")):
        create("gemma3", max_pixels=3136)


def test_texts_with_special_tokens_are_refused() -> None:
    for text in ("a<end_of_turn>", "<start_of_image>"):
        with raises_error("KD-STUD-006", mentions=(text.lstrip("a"),)):
            student_of("gemma3").prepare(PICTURES[0], sample(text))


def test_the_loader_names_the_known_families() -> None:
    assert sorted(FAMILIES) == list(IMAGE_TEXT_TO_TEXT)
