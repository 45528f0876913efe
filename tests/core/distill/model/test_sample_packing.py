"""A recipe that packs samples, and students that cannot."""

from __future__ import annotations

import pytest

from kdkit.core.distill.model.sample_packing import pack_samples
from kdkit.core.project.recipe import OptimizerPart, Recipe
from tests.errors import raises_error
from tests.toys import ToyEncoder


def recipe(tokens: int | None) -> Recipe:
    optimizer = OptimizerPart(lr=1e-3, batch_size=4, steps=2, pack_tokens=tokens)
    losses, trust = [{"name": "answer-ce"}], {"policy": "soft"}
    return Recipe.model_validate(
        {"name": "r", "summary": "s", "losses": losses, "trust": trust, "optimizer": optimizer.model_dump()}
    )


def test_a_student_without_sequences_is_refused() -> None:
    pack_samples(recipe(None), ToyEncoder(4))
    with raises_error("KD-DIST-550", where="optimizer.pack_tokens", mentions=("ToyEncoder",)):
        pack_samples(recipe(512), ToyEncoder(4))


def test_the_student_gets_the_tokens_of_the_recipe() -> None:
    given: list[int] = []

    class Packs(ToyEncoder):
        def pack_samples(self, tokens: int) -> None:
            given.append(tokens)

    pack_samples(recipe(512), Packs(4))
    assert given == [512]


def test_a_row_of_few_tokens_is_no_recipe() -> None:
    with pytest.raises(ValueError, match="pack_tokens"):
        recipe(8)
