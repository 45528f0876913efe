"""RoPE variants inside a model: stock positions, caches, padding, packing; nothing leaks, nothing is patched."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Decoding
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.plugins.students.clinkd.attach import attach
from kdkit.plugins.students.clinkd.rotary import AxisRotary, position_rows
from kdkit.plugins.students.clinkd.student import ClinkdStudent
from kdkit.plugins.students.clinkd.vision_turns import LayerTurn
from tests.errors import raises_error
from tests.plugins.rope import reference
from tests.plugins.students.clinkd.tiny import (
    FAMILIES,
    PICTURES,
    ROPES,
    answer_logits,
    make,
    samples,
    stacked,
    stock_arguments,
)

NEAR = 2e-4
"""Logits here are between -10 and 10."""
FAR = 0.02


def at(student: ClinkdStudent, inputs: dict[str, Tensor], **arguments: Any) -> Tensor:
    """(B, A, V) logits of stock ``forward``, at the places that predict the answer."""
    with torch.no_grad():
        logits: Tensor = student.base(**stock_arguments(student, inputs), **arguments).logits
    rows = [logits[row, start - 1 :][: inputs["answer_ids"].shape[1]] for row, start in enumerate(inputs["start"])]
    return torch.stack([torch.nn.functional.pad(x, (0, 0, 0, inputs["answer_ids"].shape[1] - len(x))) for x in rows])


def apart(a: Tensor, b: Tensor, inputs: dict[str, Tensor]) -> float:
    known = inputs["answer_ids"] >= 0
    return float((a[known] - b[known]).abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_mrope_is_what_the_model_does_by_itself(family: str, tmp_path: Path) -> None:
    """Position ids and logits; right-padded, two images in one sample, w != h."""
    student = make(family)
    inputs = stacked(student, samples(tmp_path))
    given = stock_arguments(student, inputs)
    wanted, _ = student.base.model.get_rope_index(
        given["input_ids"], given["mm_token_type_ids"], image_grid_thw=given["image_grid_thw"],
        attention_mask=given["attention_mask"],
    )  # fmt: skip
    found = inputs["positions"].transpose(0, 1)[..., : wanted.shape[-1]]
    assert torch.equal(found * given["attention_mask"], wanted * given["attention_mask"])
    assert not isinstance(student.base.model.language_model.rotary_emb, AxisRotary), "nothing was exchanged"
    assert apart(answer_logits(student, inputs), at(student, inputs), inputs) < NEAR


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rope", ROPES)
def test_cached_generation_is_an_uncached_forward(family: str, rope: str, tmp_path: Path) -> None:
    """Step by step: the tokens of a cached, left-padded, batched run are the likeliest of fresh, unpadded forwards."""
    student = make(family, rope=rope)
    found = student.answer(PICTURES, samples(tmp_path), Decoding(max_new=7, scored=True))
    for image, sample, answers in zip(PICTURES, samples(tmp_path), found, strict=True):
        prompt = student.preparation.prompt(image, sample)
        alone: Any = student.preparation.batch(student.base, [prompt])
        embeddings, positions = alone.embeddings, alone.positions
        for step, (token, score) in enumerate(zip(answers[0].ids, answers[0].log_probs, strict=True)):
            with torch.no_grad():
                logits = student.base(
                    inputs_embeds=embeddings, position_ids=positions, use_cache=False
                ).logits[0, -1]  # fmt: skip
                log_p = logits.float().log_softmax(-1)
            assert float(log_p.max() - log_p[token]) < NEAR, step
            assert abs(float(log_p[token]) - score) < NEAR
            following = student.base.get_input_embeddings()(torch.tensor([[token]]))
            embeddings = torch.cat([embeddings, following.detach()], dim=1)
            positions = torch.cat([positions, prompt.positions[:, None, -1:] + step], dim=-1)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rope", ["mcg-rope", "clinkd-repo", "videorope"])
def test_padded_is_alone(family: str, rope: str, tmp_path: Path) -> None:
    student = make(family, rope=rope)
    inputs = stacked(student, samples(tmp_path))
    whole = answer_logits(student, inputs)
    for row in range(3):
        alone = {name: x[row : row + 1] for name, x in inputs.items()}
        assert apart(answer_logits(student, alone), whole[row : row + 1], alone) < NEAR


@pytest.mark.parametrize("rope", ["mrope", "mcg-rope", "rope-2d"])
def test_packed_is_separate(rope: str, tmp_path: Path) -> None:
    """With a row of text positions, without mask and cache; see ``refuse_packed`` for what leaks."""
    student = make(rope=rope)
    inputs = stacked(student, samples(tmp_path))
    lengths = inputs["length"].tolist()
    given = stock_arguments(student, inputs)
    ids = torch.cat([row[:n] for row, n in zip(given["input_ids"], lengths, strict=True)])[None]
    positions = torch.cat([row[:, :n] for row, n in zip(inputs["positions"], lengths, strict=True)], dim=1)
    text = torch.cat([torch.arange(n) for n in lengths]).to(positions.dtype)[None]
    images = {name: given[name] for name in ("pixel_values", "image_grid_thw")}
    packed = torch.cat([text, positions])[:, None]
    with torch.no_grad():
        logits = student.base(input_ids=ids, position_ids=packed, use_cache=False, **images).logits[0]
    first = 0
    wanted = answer_logits(student, inputs)
    for row, (start, length) in enumerate(zip(inputs["start"].tolist(), lengths, strict=True)):
        count = length - start
        found = logits[first + start - 1 : first + length - 1]
        assert float((found - wanted[row, :count]).abs().max()) < NEAR
        first += length


def test_variants_differ_and_only_where_images_are(tmp_path: Path) -> None:
    chosen = samples(tmp_path)
    text = torch.randint(0, 200, (1, 9), generator=torch.Generator().manual_seed(0))
    plain = make("qwen2_vl", rope="rope-1d")
    with torch.no_grad():
        wanted = plain.base(input_ids=text).logits
    seen = []
    for rope in ROPES:
        student = make("qwen2_vl", rope=rope)
        with torch.no_grad():
            assert float((student.base(input_ids=text).logits - wanted).abs().max()) < NEAR, "text is 1-D RoPE"
        seen.append(answer_logits(student, stacked(student, chosen)))
    inputs = stacked(plain, chosen)
    for i in range(len(seen)):
        for j in range(i):
            assert apart(seen[i], seen[j], inputs) > FAR, (ROPES[i], ROPES[j])


@pytest.mark.parametrize("shift", [1, 40, 2.5])
def test_a_constant_shift_changes_nothing(shift: float, tmp_path: Path) -> None:
    student = make(rope="mcg-rope", gradient_checkpointing=False)
    inputs = stacked(student, samples(tmp_path))
    moved = {**inputs, "positions": inputs["positions"] + shift}
    assert apart(answer_logits(student, moved), answer_logits(student, inputs), inputs) < 2e-3


def test_broken_numbers_survive() -> None:
    assert position_rows(torch.tensor([[0.5, 4_194_303.5]], dtype=torch.float64)).tolist() == [[0.5, 4_194_303.5]] * 3


# ------------------------------------------------------------------------------- code that is not ours


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rope", ["mcg-rope", "clinkd-repo", "videorope"])
def test_attached_to_a_stock_model(family: str, rope: str, tmp_path: Path) -> None:
    """Stock forward, and stock generate without any position ids, agree with the student's own."""
    student, other = make(family, rope=rope), make(family)
    attach(other.base, load_catalogue().make("rope", rope), rope)
    inputs = stacked(student, samples(tmp_path))
    wanted = answer_logits(student, inputs)
    assert apart(at(other, inputs), wanted, inputs) < NEAR
    chosen = samples(tmp_path)[0]
    prompt = student.preparation.prompt(PICTURES[0], chosen)
    found = other.base.generate(
        input_ids=prompt.ids[None],
        attention_mask=torch.ones_like(prompt.ids)[None],
        mm_token_type_ids=(prompt.ids == other.base.config.image_token_id).int()[None],
        pixel_values=other.preparation.images.normalized(prompt.patches),
        image_grid_thw=prompt.grids,
        max_new_tokens=6,
        do_sample=False,
    )[0, len(prompt.ids) :]
    wanted_ids = student.answer(PICTURES[:1], [chosen], Decoding(max_new=6))[0][0].ids
    assert tuple(found.tolist())[: len(wanted_ids)] == wanted_ids


def test_a_model_of_an_unknown_type_is_refused() -> None:
    model = SimpleNamespace(config=SimpleNamespace(model_type="glm4v"))
    with raises_error("KD-STUD-038", mentions=("glm4v", "qwen2_vl")):
        attach(model, load_catalogue().make("rope", "mcg-rope"))


def test_attached_models_refuse_packed_rows(tmp_path: Path) -> None:
    student = make()
    attach(student.base, load_catalogue().make("rope", "mcg-rope"), "mcg-rope")
    inputs = stacked(student, samples(tmp_path))
    given = stock_arguments(student, inputs)
    packed = given["attention_mask"] * torch.tensor([[1], [2], [1]])
    with raises_error("KD-STUD-004"):
        student.base.model.get_rope_index(given["input_ids"], given["mm_token_type_ids"], attention_mask=packed)
    ids = torch.arange(10)[None]
    two = torch.cat([torch.arange(5), torch.arange(5)]).expand(4, 1, -1)
    for positions, arguments in ((two, {}), (two[:3], {"use_cache": False}), (two[0], {"use_cache": False})):
        with raises_error("KD-STUD-004"):
            student.base(input_ids=ids, position_ids=positions, **arguments)
    with torch.no_grad():
        student.base(input_ids=ids, position_ids=two, use_cache=False)
        student.base(input_ids=ids, position_ids=torch.arange(10).expand(3, 1, -1))


# ---------------------------------------------------------------------------------- the vision tower


@pytest.mark.parametrize("family", FAMILIES)
def test_rope_mixed_starts_where_the_tower_is_and_learns(family: str, tmp_path: Path) -> None:
    plain, mixed = make(family), make(family, vision_rope="rope-mixed")
    inputs = stacked(plain, samples(tmp_path))
    assert apart(answer_logits(mixed, inputs), answer_logits(plain, inputs), inputs) < NEAR
    rotated = make(family, vision_rope={"name": "rope-mixed", "options": {"theta": 10.0, "rotate": True}})
    assert apart(answer_logits(rotated, inputs), answer_logits(plain, inputs), inputs) > FAR
    mixed.train()(inputs)["answer_hidden"].pow(2).sum().backward()
    assert mixed.vision_turns is not None
    for name, parameter in mixed.vision_turns.named_parameters():
        assert parameter.ndim == 1, "vectors have no weight decay"
        assert parameter.grad is not None, name
        assert bool(parameter.grad.any()), name


def test_every_head_turns_by_its_own_frequencies() -> None:
    """The hooks against complex numbers, head by head."""
    torch.manual_seed(0)
    frequencies, patches = torch.randn(2, 3, 4), torch.tensor([[0.0, 0.0], [2.0, 5.0], [7.0, 1.0]])
    turn = LayerTurn(frequencies, trainable=True)
    _, kwargs = turn.before(turn, (), {"position_embeddings": (patches, patches)})
    cosine, sine = kwargs["position_embeddings"]
    assert bool((cosine == 1).all())
    assert bool((sine == 0).all())
    qkv = torch.randn(3, 3 * 3 * 8)
    found = turn.after(turn, (), qkv).detach().reshape(3, 3, 3, 8)
    for n in range(3):
        for part in range(3):
            for head in range(3):
                x = qkv.reshape(3, 3, 3, 8)[n, part, head].double()
                wanted = x if part == 2 else reference.turn(x, patches[n].double(), frequencies[:, head].double())
                assert torch.allclose(found[n, part, head].double(), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"rope": "rope-mixed"}, "belongs to a vision tower"),
        ({"vision_rope": "mrope"}, "belongs to a language tower"),
        ({"rope": "mrop"}, "unknown rope 'mrop'"),
        ({"rope": {"name": "mrope", "options": {"section": [1, 1, 1]}}}, "do not share 8 frequencies"),
        ({"rope": {"name": "mcg-rope", "options": {"aplha": 1}}}, "has no option 'aplha'"),
    ],
)
def test_a_variant_that_the_model_cannot_take(config: dict[str, Any], message: str) -> None:
    with pytest.raises(KdkitError) as caught:
        make(**config)
    assert message in f"{caught.value.what} {caught.value.why}"
