"""Every family against stock transformers: prompts, positions, logits, answers, adapters, files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from kdkit.core.contracts import Decoding
from kdkit.plugins.loaders.generating import load_generating
from kdkit.plugins.students.clinkd.create import load_student
from kdkit.plugins.students.clinkd.families.known import FAMILIES
from tests.errors import raises_error
from tests.plugins.students.clinkd.stock import (
    DISTINCT,
    LIMITS,
    NAMES,
    PROCESSED,
    create,
    folder_of,
    lengthened,
    positions_in,
    qwen_inputs,
    qwen_prompt,
    samples,
    stock_inputs,
    stock_of,
    student_of,
)
from tests.plugins.students.clinkd.tiny import PICTURES, answer_logits, picture, stacked


@pytest.mark.parametrize("family", NAMES)
def test_prompts_positions_and_logits_are_stocks(family: str) -> None:
    student, stock, chosen = student_of(family), stock_of(family), samples()
    end = student.preparation.tokens.marks.end
    together = answer_logits(student, stacked(student, chosen))
    for number, one in enumerate(chosen):
        row = {name: x[None] for name, x in student.prepare(PICTURES[number], one).items()}
        chatml = FAMILIES[family].reader == "chatml"
        given = qwen_inputs(family, number, one) if chatml else stock_inputs(family, number, one, one.text + end)
        size, start, count = int(row["length"]), int(row["start"]), int((row["answer_ids"] >= 0).sum())
        assert row["tokens"][0, :size].tolist() == given["input_ids"][0].tolist()
        wanted, positions = positions_in(stock, family, given)
        own = {"input_ids": row["tokens"][:, :size], "attention_mask": torch.ones(1, size, dtype=torch.int64)}
        found, own_positions = positions_in(student.base, family, own | dict(student.preparation.arguments(row, size)))
        assert torch.equal(positions.expand_as(own_positions), own_positions)
        assert float((found - wanted).abs().max()) <= 1e-6
        alone = answer_logits(student, row)[0, :count]
        assert float((alone - wanted[0, start - 1 : start - 1 + count]).abs().max()) <= 1e-6
        assert float((alone - together[number, :count]).abs().max()) <= 2e-5, "padded = alone"
        assert student.preparation.tokens.decode([int(i) for i in row["answer_ids"][0] if i >= 0]) == one.text
        assert float(wanted.std()) > 0.05
    other = student.prepare(picture(*PICTURES[0].size, seed=9), chosen[0])
    changed_image = answer_logits(student, {name: x[None] for name, x in other.items()})
    assert float((changed_image - together[:1]).abs().max()) > 1e-3, "images count"


@pytest.mark.parametrize("family", NAMES)
def test_a_saved_folder_is_stocks(family: str, tmp_path: Path) -> None:
    """Weights and processor files that stock transformers reads as it read the original; kdkit does too."""
    student, one = student_of(family), samples()[0]
    copy.deepcopy(student).save(tmp_path)
    original, kept = folder_of(family), json.loads((tmp_path / "config.json").read_text())
    assert kept["model_type"] == family
    if family in PROCESSED:
        for path in original.iterdir():
            if path.name not in ("config.json", "generation_config.json", "model.safetensors"):
                assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    again = transformers.AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    given = stock_inputs(family, 0, one, "", tmp_path) if family in PROCESSED else qwen_inputs(family, 0, one)
    with torch.no_grad():
        assert torch.equal(again(**given).logits, stock_of(family)(**given).logits)
    loaded = load_student(tmp_path)
    assert loaded.identity() == student.identity()
    assert loaded.config == {**student.config, "init": str(tmp_path)}
    inputs = stacked(student, [one])
    assert torch.equal(answer_logits(loaded, inputs), answer_logits(student, inputs))


@pytest.mark.parametrize("family", NAMES)
def test_answers_are_stocks(family: str) -> None:
    """Greedy ones of a padded batch; beams score what a plain forward scores; the teacher gives the same."""
    student, stock, chosen = student_of(family), stock_of(family), samples()
    found = student.answer(PICTURES, chosen, Decoding(max_new=4))
    for number, one in enumerate(chosen):
        given = qwen_prompt(family, number, one) if family not in PROCESSED else stock_inputs(family, number, one, "")
        length = given["input_ids"].shape[1]
        ends = list(student.preparation.tokens.ends)
        config = transformers.GenerationConfig(
            max_new_tokens=4, do_sample=False, eos_token_id=ends, pad_token_id=ends[0]
        )
        wanted = stock.generate(**given, generation_config=config)[0, length:].tolist()
        assert list(found[number][0].ids) == wanted[: len(found[number][0].ids)]
    beams = student.answer(PICTURES, chosen, Decoding(max_new=3, beams=2, scored=True))
    for number, answers in enumerate(beams):
        one = chosen[number]
        alone = student.answer([PICTURES[number]], [one], Decoding(max_new=3, beams=2, scored=True))[0]
        assert [a.ids for a in alone] == [a.ids for a in answers]
        given = qwen_prompt(family, number, one) if family not in PROCESSED else stock_inputs(family, number, one, "")
        for answer in answers[:1] if number else answers:
            ids = torch.tensor([answer.ids])
            with torch.no_grad():
                logits = stock(**lengthened(given, ids)).logits[0, -ids.shape[1] - 1 : -1]
            scores = logits.log_softmax(-1).gather(1, ids.T)[:, 0]
            assert float((scores - torch.tensor(answer.log_probs)).abs().max()) <= 2e-5


@pytest.mark.parametrize("family", ["qwen3_vl", "gemma3", "internvl", "mllama"])
def test_beams_see_the_images_of_their_own_sample(family: str) -> None:
    """``generate`` repeats image arguments for beams: its own scores are those of a plain forward."""
    student, one = student_of(family), samples()[1]
    batch = student.preparation.batch(student.base, [student.preparation.prompt(PICTURES[1], one)])
    config = transformers.GenerationConfig(
        max_new_tokens=3,
        num_beams=3,
        num_return_sequences=3,
        pad_token_id=0,
        output_scores=True,
        return_dict_in_generate=True,
    )
    given = batch.arguments()
    found = student.base.generate(**given, generation_config=config)
    ids = found.sequences[:, given["input_ids"].shape[1] if "input_ids" in given else 0 :]
    whole = batch.repeated(3).continued(student.base, ids, torch.ones_like(ids))
    with torch.no_grad():
        states = student.base.model(**whole, use_cache=False).last_hidden_state[:, -ids.shape[1] - 1 : -1]
        scores = student.head(states).log_softmax(-1).gather(2, ids[..., None])[..., 0].mean(1)
    assert float((scores - found.sequences_scores).abs().max()) <= 1e-5


@pytest.mark.parametrize("family", DISTINCT)
def test_a_teacher_gives_stocks_distributions(family: str) -> None:
    options: dict[str, Any] = {"max_pixels": 2 * 56 * 56} if family not in PROCESSED else {}
    teacher = load_generating(folder_of(family), k=5, **LIMITS, **options)
    one = samples()[0]
    found = teacher.compute([teacher.prepare(PICTURES[0], one)])
    end = student_of(family).preparation.tokens.marks.end
    given = qwen_inputs(family, 0, one) if family not in PROCESSED else stock_inputs(family, 0, one, one.text + end)
    count = int((found["tokens"][0] >= 0).sum())
    with torch.no_grad():
        wanted = stock_of(family)(**given).logits[0, -count - 1 : -1].log_softmax(-1).topk(5)
    assert torch.equal(found["topk_ids"][0, :count].long(), wanted.indices)
    assert float((found["topk"][0, :count].float() - wanted.values).abs().max()) < 5e-3, "they are stored as float16"


@pytest.mark.parametrize("family", DISTINCT)
def test_adapters_are_in_the_language_tower_and_are_pefts(family: str, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    student = create(family, lora={"r": 2, "targets": ["q_proj", "v_proj"]})
    adapted = [name for name, p in student.named_parameters() if p.requires_grad]
    assert adapted
    assert all(f".{FAMILIES[family].language}." in name and "lora_" in name for name in adapted)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in student.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    student.save(tmp_path)
    one = samples()[0]
    given = qwen_inputs(family, 0, one) if family not in PROCESSED else stock_inputs(family, 0, one, one.text)
    inputs = stacked(student, [one])
    assert torch.equal(answer_logits(load_student(tmp_path), inputs), answer_logits(student, inputs))
    fresh = transformers.AutoModelForImageTextToText.from_pretrained(folder_of(family))
    merged = peft.PeftModel.from_pretrained(fresh, tmp_path).eval()
    with torch.no_grad():
        first = merged(**given).logits[0, int(inputs["start"][0]) - 1]
    assert float((first - answer_logits(student, inputs)[0, 0]).abs().max()) <= 1e-6


@pytest.mark.parametrize("family", DISTINCT)
def test_what_is_frozen_and_that_it_learns(family: str) -> None:
    student = create(family, gradient_checkpointing=family in ("gemma3", "internvl")).train()
    frozen = [name for name, p in student.named_parameters() if not p.requires_grad]
    assert frozen
    assert all(f".{FAMILIES[family].vision}." in name for name in frozen)
    student(stacked(student, samples()))["answer_hidden"].pow(2).sum().backward()
    grown = {name for name, p in student.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    language = f".{FAMILIES[family].language}."
    assert any(language in name for name in grown)
    assert any(language not in name and "head" not in name for name in grown), "the projection of images learns too"


# ------------------------------------------------------------------------------------------ variants


@pytest.mark.parametrize("rope", ["mcg-rope", "mrope"])
def test_variants_attach_to_qwen3(rope: str, tmp_path: Path) -> None:
    """Cached answers = an uncached forward; the saved student keeps the variant."""
    student, one = create("qwen3_vl", rope=rope), samples()[1]
    inputs = stacked(student, [samples()[0]])
    assert not torch.allclose(answer_logits(student, inputs), answer_logits(student_of("qwen3_vl"), inputs), atol=1e-3)
    (answer,) = student.answer([PICTURES[1]], [one], Decoding(max_new=4, scored=True))[0]
    prompt: Any = student.preparation.prompt(PICTURES[1], one)
    batch: Any = student.preparation.batch(student.base, [prompt])
    for count in range(1, len(answer.ids)):
        ids = torch.tensor([answer.ids[:count]])
        with torch.no_grad():
            given = batch.continued(student.base, ids, torch.ones_like(ids))
            state = student.base.model(**given, use_cache=False).last_hidden_state[:, -1]
        assert int(student.head(state).argmax()) == answer.ids[count]
    student.save(tmp_path)
    assert torch.equal(answer_logits(load_student(tmp_path), inputs), answer_logits(student, inputs))
    assert student_of("qwen3_vl").config["rope"]["name"] == "mrope-interleaved"
    assert student_of("qwen3_vl").config["rope"]["options"]["section"] == [4, 2, 2]


def test_variants_that_a_family_cannot_take() -> None:
    for rope in ("mcg-rope", "mrope", "rope-2d"):
        with raises_error("KD-STUD-425", mentions=("llava", rope, "one number for each token")):
            create("llava", rope=rope)
    assert create("llava", rope="rope-1d").config["rope"]["name"] == "rope-1d"
    with raises_error("KD-STUD-428", mentions=("vision_rope",)):
        create("llava", vision_rope="rope-mixed")
    with raises_error("KD-STUD-038", mentions=("qwen3_vl",)):
        create("qwen3_vl", vision_rope="rope-mixed")
