"""Attention rollout: against the whole matrix product, and against the weights that stock transformers returns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from kdkit.plugins.students.clinkd.attention import attention_map, roll_out
from kdkit.plugins.students.clinkd.families.known import FAMILIES
from tests.errors import raises_error
from tests.plugins.students.clinkd.tiny import PICTURES, make, sample


def product(weights: list[np.ndarray]) -> np.ndarray:
    """``A_L ... A_1`` in full, float64."""
    rolled = np.eye(len(weights[0]))
    for layer in weights:
        rolled = (0.5 * layer + 0.5 * np.eye(len(layer))) @ rolled
    return rolled


def test_rows_are_those_of_the_whole_product() -> None:
    torch.manual_seed(0)
    layers = [torch.rand(12, 12).tril().double() for _ in range(4)]
    layers = [layer / layer.sum(dim=1, keepdim=True) for layer in layers]
    rolled = roll_out([layer.float() for layer in layers], 7, 10)
    assert np.abs(rolled.numpy() - product([layer.numpy() for layer in layers])[7:10]).max() < 1e-6
    assert rolled.sum(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_weights_are_those_of_stock_transformers() -> None:
    student = make()
    asked = sample("the lung (12,30)", box_family="qwen-vl")
    found = student.attention(PICTURES[0], asked)
    prompt = student.preparation.prompt(PICTURES[0], asked)
    ids = student.preparation.read_answer(asked, prompt.sizes)
    assert found.weights.shape == (len(ids) - 1, *(prompt.grids[0, 1:] // 2).tolist())
    assert "".join(found.tokens) == "the lung (12,30)"
    assert found.boxes == ()  # no box of this family: the picture has none
    base = student.base
    base.set_attn_implementation("eager")
    given = student.preparation.batch(base, [prompt]).continued(base, ids[None], torch.ones_like(ids)[None])
    with torch.no_grad():
        every = base.model(**given, use_cache=False, output_attentions=True).attentions
    whole = product([layer[0].double().mean(dim=0).numpy() for layer in every])
    places = torch.nonzero(prompt.ids == student.preparation.image_token)[:, 0].numpy()
    rows = whole[len(prompt.ids) - 1 : len(prompt.ids) + len(ids) - 2][:, places]
    assert np.abs(found.weights.reshape(rows.shape) - rows).max() < 1e-5


def test_attention_of_any_implementation_is_eager() -> None:
    """Nothing of the model changes meanwhile."""
    long: dict[str, Any] = {"max_answer": 64, "max_tokens": 160}
    student = make(attn_implementation="sdpa", **long)
    before = student.base.config.get_text_config()._attn_implementation
    boxed = sample("<ref>lung</ref><box>(100,250),(500,750)</box>", box_family="qwen-vl")
    found = student.attention(PICTURES[1], boxed)
    assert student.base.config.get_text_config()._attn_implementation == before == "sdpa"
    assert found.boxes == ((0.1, 0.25, 0.5, 0.75),)
    cut = make(max_answer=len(found.tokens), max_tokens=160).attention(PICTURES[1], boxed)
    assert cut.tokens == found.tokens, "an answer that was cut has no room for the end token"
    eager = make(attn_implementation="eager", **long).attention(PICTURES[1], boxed)
    assert np.abs(found.weights - eager.weights).max() < 1e-5  # the vision tower rounds otherwise


def test_families_without_a_grid_are_refused() -> None:
    student = make()
    prompt = student.preparation.prompt(PICTURES[0], sample("lung"))
    for name in ("mllama", "internvl", "llava"):
        with raises_error("KD-STUD-570", mentions=(FAMILIES[name].summary,)):
            attention_map(student.base, FAMILIES[name], student.preparation, prompt, sample("lung"))
