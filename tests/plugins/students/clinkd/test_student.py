"""The student: what it is given and gives; training; answers."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForImageTextToText

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Answering, Decoding
from kdkit.plugins.students.clinkd.byte_tokenizer import byte_tokenizer_files
from kdkit.plugins.students.clinkd.chat import prompt_of
from kdkit.plugins.students.clinkd.images import ImageSettings
from kdkit.plugins.students.clinkd.settings import Settings
from kdkit.plugins.students.clinkd.tokens import Tokens
from kdkit.testing.contracts.student import StudentContract
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import (
    FAMILIES,
    PICTURES,
    SIZES,
    SMALL,
    WORDS,
    answer_logits,
    make,
    picture,
    sample,
    samples,
    stacked,
    stock_arguments,
)

TOKENS = Tokens(byte_tokenizer_files(WORDS), "here")


class TestContract(StudentContract):
    """With RoPE-TV, so that positions are fractional, and a trained vision tower."""

    name = "clinkd"
    options = {  # noqa: RUF012
        **SMALL,
        "sizes": {**SIZES, "words": [*WORDS]},
        "rope": {"name": "mcg-rope", "options": {"alpha": 1.5}},
        "vision_rope": "rope-mixed",
    }

    def samples(self) -> Any:
        """Short answers: longer ones than the context are refused, not cut."""
        answers = ("(12,30),(70,88)", "", "lung", "Zebra! 冠")
        return [sample(text, "<image>Where?") for text in answers]


# ---------------------------------------------------------------------------------------- inputs


def test_the_prompt_is_qwens_chat_template() -> None:
    """Written out; as the template of Qwen2-VL-Instruct gives it with a generation prompt."""
    one = sample("x", "<image>\nWhere?")
    assert prompt_of(one, images=1, system="You are a helpful assistant.", question="") == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>\nWhere?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    plain = sample("x", messages=None)
    assert prompt_of(plain, images=1, system="", question="What?") == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What?<|im_end|>\n<|im_start|>assistant\n"
    )


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_survives_the_tokenizer(text: str) -> None:
    if not any(token in text for token in ("<|im_end|>", "<|endoftext|>")):
        assert TOKENS.decode(TOKENS.encode(text)) == text


def test_words_and_marks_are_single_tokens() -> None:
    for text in (*WORDS, *(f" {word}" for word in WORDS), "<|box_start|>", "<|image_pad|>"):
        assert len(TOKENS.encode(text)) == 1, text
    boxes = "<|object_ref_start|>the lung<|object_ref_end|><|box_start|>(12,30),(70,88)<|box_end|>"
    assert TOKENS.decode([*TOKENS.encode(boxes), TOKENS.ends[0], 5]) == boxes
    nested = Tokens(byte_tokenizer_files(["is", "this", "his", "thistle", "box", "boxes"]), "here")
    for word in ("is", "this", "his", "thistle", "box", "boxes"):
        assert [len(nested.encode(text)) for text in (word, f" {word}")] == [1, 1], word
    for wrong in (["a b"], [""], ["a", "a"]):
        with raises_error("KD-STUD-005", where="student.config.sizes.words"):
            byte_tokenizer_files(wrong)


@pytest.mark.parametrize("size", [(112, 56), (30, 30), (61, 47), (90, 200), (300, 200), (500, 28), (9, 9), (57, 83)])
def test_images_are_those_of_the_stock_processor(size: tuple[int, int]) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    ours = ImageSettings(max_pixels=112 * 112)
    image = picture(*size)
    stock = Qwen2VLImageProcessorPil(**ours.config())(images=[image], return_tensors="pt")
    patches, grid = ours.patches(image)
    assert patches.dtype == torch.uint8
    assert stock["image_grid_thw"].tolist() == [list(grid)]
    assert torch.allclose(ours.normalized(patches), stock["pixel_values"], atol=1e-5)


def test_images_never_exceed_their_place() -> None:
    settings = ImageSettings.from_config({}, max_pixels=5 * 28 * 28)
    for size in ((3000, 17), (17, 3000), (28, 28), (1, 1), (1000, 1000), (140, 28)):
        patches, (_, rows, columns) = settings.patches(Image.new("RGB", size))
        assert len(patches) == rows * columns <= settings.most_patches
    with raises_error("KD-STUD-021", mentions=("too thin",)):
        settings.patches(Image.new("RGB", (1000, 2)))
    with raises_error("KD-STUD-020"):
        ImageSettings.from_config({}, max_pixels=700)


def test_settings_of_both_transformers() -> None:
    four = {"min_pixels": 3136, "max_pixels": 12845056, "image_mean": [0.5] * 3, "patch_size": 14}
    five = {"size": {"shortest_edge": 3136, "longest_edge": 12845056}, "image_mean": [0.5] * 3}
    found = [ImageSettings.from_config(config, max_pixels=50176) for config in (four, five)]
    assert found[0] == found[1]
    assert (found[0].min_pixels, found[0].max_pixels, found[0].image_mean) == (3136, 50176, (0.5,) * 3)
    assert found[0].config()["size"] == {"shortest_edge": 3136, "longest_edge": 50176}


# --------------------------------------------------------------------------------------- outputs


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_token_of_the_answer_counts(family: str, tmp_path: Path) -> None:
    """Cross entropy of the outputs is the loss that stock transformers computes of labels on the answer."""
    student = make(family)
    inputs = stacked(student, samples(tmp_path))
    logits, ids = answer_logits(student, inputs), inputs["answer_ids"]
    given = stock_arguments(student, inputs)
    place = torch.arange(given["input_ids"].shape[1])
    answer = (place >= inputs["start"][:, None]) & (place < inputs["length"][:, None])
    with torch.no_grad():
        wanted = student.base(**given, labels=given["input_ids"].where(answer, -100)).loss
    assert abs(float(F.cross_entropy(logits.flatten(0, 1), ids.flatten()) - wanted)) < 1e-4
    assert [int((row >= 0).sum()) for row in ids] == [int(n) for n in inputs["length"] - inputs["start"]]
    assert student.preparation.tokens.decode([int(i) for i in ids[0] if i >= 0]) == "(12,30),(70,88)"
    assert bool((student(inputs)["answer_hidden"][ids < 0] == 0).all())


def test_the_output_embedding_is_the_parameter() -> None:
    student = make()
    inputs = stacked(student, [sample("lung")])
    outputs = student(inputs)
    assert outputs["output_embedding"] is student.base.lm_head.weight
    assert isinstance(outputs["output_embedding"], torch.nn.Parameter)
    assert outputs["answer_ids"].dtype == torch.int64


def test_frozen_and_trained_parts() -> None:
    frozen = {name for name, p in make().named_parameters() if not p.requires_grad}
    assert frozen
    assert all(".visual." in name and ".merger." not in name for name in frozen)
    assert not [p for p in make(freeze_vision=False).parameters() if not p.requires_grad]


@pytest.mark.parametrize("family", FAMILIES)
def test_gradient_checkpointing_changes_no_gradient(family: str, tmp_path: Path) -> None:
    found = []
    for checkpointing in (False, True):
        student = make(
            family,
            rope="mcg-rope",
            vision_rope="rope-mixed",
            freeze_vision=False,
            gradient_checkpointing=checkpointing,
        ).train()
        assert student.base.model.language_model.gradient_checkpointing == checkpointing
        student(stacked(student, samples(tmp_path)))["answer_hidden"].pow(2).sum().backward()
        found.append({name: p.grad for name, p in student.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.allclose(gradient, found[1][name], atol=1e-5, rtol=1e-4), name


def test_bfloat16_leaves_positions_alone(tmp_path: Path) -> None:
    """Broken numbers do not survive bfloat16, so neither autocast nor weights in it may touch them."""
    exact, rough = make(rope="mcg-rope"), make(rope="mcg-rope", dtype="bfloat16")
    inputs = stacked(exact, samples(tmp_path))
    inputs["positions"] += 257.5
    wanted = exact(inputs)["answer_hidden"].detach()
    with torch.autocast("cpu", torch.bfloat16):
        cast = exact(inputs)["answer_hidden"]
    for found in (cast, rough(inputs)["answer_hidden"]):
        assert found.dtype == torch.float32
        assert float((found.detach() - wanted).abs().mean()) < 0.05 * float(wanted.abs().mean()) + 0.02
    for rope in ("mcg-rope", "rope-2d"):
        one = make(rope=rope, dtype="bfloat16").base.model.language_model.rotary_emb
        two = make(rope=rope).base.model.language_model.rotary_emb
        positions = torch.tensor([257.0, 300.5, 1297.0]).expand(3, 1, -1)
        pairs = zip(one(torch.zeros(1), positions), two(torch.zeros(1), positions), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_a_copy_hooks_its_own_frequencies(tmp_path: Path) -> None:
    """An average of weights is a copy: its vision tower must not turn by the original's frequencies."""
    student = make(vision_rope="rope-mixed")
    twin = copy.deepcopy(student)
    inputs = stacked(student, samples(tmp_path))
    before = student(inputs)["answer_hidden"].detach()
    assert twin.vision_turns is not None
    with torch.no_grad():
        for parameter in twin.vision_turns.parameters():
            parameter.mul_(3)
    assert torch.equal(student(inputs)["answer_hidden"], before)
    assert not torch.allclose(twin(inputs)["answer_hidden"], before, atol=1e-4)


# --------------------------------------------------------------------------------------- answers


def test_answers_do_not_depend_on_batches(tmp_path: Path) -> None:
    student, chosen = make(rope="mcg-rope").train(), samples(tmp_path)
    assert isinstance(student, Answering)
    whole = student.answer(PICTURES, chosen, Decoding(max_new=6))
    alone = student.answer(PICTURES[::-1], chosen[::-1], Decoding(max_new=6, batch_size=1))[::-1]
    assert [[a.ids for a in row] for row in whole] == [[a.ids for a in row] for row in alone]
    assert student.training, "as it was before"


@pytest.mark.parametrize("room", [1, 2])
def test_a_batch_that_does_not_fit_is_answered_in_parts(
    tmp_path: Path, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, chosen = make(), samples(tmp_path)
    whole = student.answer(PICTURES, chosen, Decoding(max_new=6))
    generate, sizes, given_before = student.base.generate, list[int](), list[ReferenceType[Any]]()

    def in_little_memory(**given: Any) -> Any:
        sizes.append(len(given["attention_mask"]))
        assert not any(mask() is not None for mask in given_before), "a larger batch is still in memory"
        given_before[:] = [ref(given["attention_mask"])] if isinstance(given["attention_mask"], Tensor) else []
        if sizes[-1] > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(**given)

    monkeypatch.setattr(student.base, "generate", in_little_memory)
    parts = student.answer(PICTURES, chosen, Decoding(max_new=6))
    assert sizes[0] == len(chosen) > room
    assert [[a.ids for a in row] for row in parts] == [[a.ids for a in row] for row in whole]
    monkeypatch.setattr(student.base, "generate", lambda **_: in_little_memory(attention_mask=[0] * 9))
    with pytest.raises(torch.OutOfMemoryError):
        student.answer(PICTURES, chosen, Decoding(max_new=6))


def test_beam_search_is_that_of_stock_generate(tmp_path: Path) -> None:
    student = make()
    chosen = samples(tmp_path)[1]
    prompt = student.preparation.prompt(PICTURES[1], chosen)
    wanted = student.base.generate(
        input_ids=prompt.ids[None],
        attention_mask=torch.ones_like(prompt.ids)[None],
        mm_token_type_ids=(prompt.ids == student.base.config.image_token_id).int()[None],
        pixel_values=student.preparation.images.normalized(prompt.patches),
        image_grid_thw=prompt.grids,
        max_new_tokens=5,
        num_beams=3,
        num_return_sequences=3,
        do_sample=False,
    )[:, len(prompt.ids) :]
    found = student.answer([PICTURES[1]], [chosen], Decoding(max_new=5, beams=3, scored=True))[0]
    assert [a.ids for a in found] == [tuple(row.tolist())[: len(a.ids)] for a, row in zip(found, wanted, strict=True)]
    means = [float(np.mean(a.log_probs)) for a in found]
    assert means == sorted(means, reverse=True), "the likeliest first"
    greedy = student.answer([PICTURES[1]], [chosen], Decoding(max_new=5, scored=True))[0][0]
    assert means[0] >= float(np.mean(greedy.log_probs)) - 1e-5


def test_sampling_is_seeded(tmp_path: Path) -> None:
    student, chosen = make(), samples(tmp_path)

    def draw(**options: Any) -> list[list[tuple[int, ...]]]:
        found = student.answer(PICTURES, chosen, Decoding(max_new=5, samples=4, **options))
        return [[a.ids for a in row] for row in found]

    before = torch.random.get_rng_state()
    first = draw(seed=1)
    assert torch.equal(torch.random.get_rng_state(), before), "the run's own numbers go on as they would"
    assert draw(seed=1) == first
    assert draw(seed=2) != first
    assert len(set(first[0])) > 1
    assert len({ids for row in draw(temperature=0.01) for ids in row}) <= 3 + 1, "nearly greedy"


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_are_those_of_stock_transformers(family: str, tmp_path: Path) -> None:
    """Two options of different lengths to each question: the sums choose by likelihood, the means per token."""
    student = make(family)
    student.save(tmp_path)
    stock = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    asked = [replace(one, text=text) for one in samples(tmp_path)[::2] for text in ("the lung", "nodule")]
    images = [PICTURES[0], PICTURES[0], PICTURES[2], PICTURES[2]]
    found = student.log_likelihoods(images, asked)
    for image, one, values in zip(images, asked, found, strict=True):
        inputs = {name: x[None] for name, x in student.prepare(image, one).items()}
        given = stock_arguments(student, inputs)
        with torch.no_grad():
            log_p = stock(**given).logits[0].log_softmax(-1)
        ids, start = given["input_ids"][0], int(inputs["start"][0])
        wanted = [float(log_p[place - 1, ids[place]]) for place in range(start, len(ids))]
        assert student.preparation.tokens.decode(ids[start:-1].tolist()) == one.text
        assert values == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    "options", [{"beams": 0}, {"samples": 2, "beams": 2}, {"temperature": 0}, {"top_p": 1.5}, {"max_new": 0}]
)
def test_decoding_that_means_nothing(options: dict[str, Any]) -> None:
    with pytest.raises(KdkitError):
        Decoding(**options)


def test_a_short_config_is_completed() -> None:
    student = make(rope="mcg-rope")
    assert student.config["rope"] == {
        "name": "mcg-rope",
        "options": {"alpha": 1.0, "layout": "sections", "section": [2, 3, 3]},
    }
    assert Settings.of({n: v for n, v in student.config.items() if n != "sizes"}) == student.settings
