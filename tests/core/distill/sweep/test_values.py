"""Keys of a recipe on the command line."""

from __future__ import annotations

import pytest

from kdkit.core.distill.sweep.values import grid, parse_keys, with_student_values, with_values
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.recipe import Recipe
from kdkit.core.project.recipe_file import load_recipe
from tests.errors import raises_error


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("kdkit", load_catalogue())


def rows(recipe: Recipe, *words: str) -> list[Recipe]:
    keys = parse_keys(words)
    return [with_values(recipe, keys, chosen) for chosen in grid(keys)]


def test_any_key_and_a_grid(recipe: Recipe) -> None:
    found = rows(recipe, "losses.crd.weight=0.5,2", "optimizer.betas=[0.9, 0.98],[0.8, 0.9]")
    assert [(r.losses[1].weight, r.optimizer.betas[0]) for r in found] == [(0.5, 0.9), (0.5, 0.8), (2, 0.9), (2, 0.8)]
    assert rows(recipe, "losses.1.weight=0.5") == rows(recipe, "losses.crd.weight=0.5")
    assert rows(recipe, "losses.1.options.temperature=0.1")[0].losses[1].options["temperature"] == 0.1
    assert rows(recipe, "augment.crop=[0.5, 1]")[0].augment is not None, "a part that is switched off in the file"


def test_steps_replace_epochs_and_a_policy_its_options(recipe: Recipe) -> None:
    (changed,) = rows(recipe, "optimizer.steps=7")
    assert (changed.optimizer.steps, changed.optimizer.epochs, changed.optimizer.min_steps) == (7, None, None)
    assert [r.trust.options for r in rows(recipe, "trust.policy=soft,evidence")] == [{}, recipe.trust.options]
    (both,) = rows(recipe, "trust.options.k=2", "trust.policy=top-k")
    assert both.trust.options == {"k": 2}


@pytest.mark.parametrize(
    ("words", "error", "mentions"),
    [
        (("losses.crd.wieght=1",), "KD-DIST-384", ("wieght", "'weight'")),
        (("optimiser.lr=1",), "KD-DIST-384", ("'optimizer'",)),
        (("losses.7.weight=1",), "KD-DIST-384", ("argument 1", "crd")),
        (("optimizer.lr.x=1",), "KD-DIST-384", ("optimizer.lr",)),
        (("sampling.domain_power=0", "optimizer.lr=1e-3,hot"), "KD-DIST-385", ("argument 2", "value 2", "'hot'")),
        (("optimizer.lr=-1",), "KD-DIST-385", ("argument 1",)),
        (("space=shared",), "KD-DIST-385", ("aligner",)),
        (("augment.corp=1",), "KD-DIST-385", ("augment.corp",)),
        (("optimizer.steps=3", "optimizer.epochs=3"), "KD-DIST-382", ()),
        (("optimizer.lr",), "KD-DIST-380", ("optimizer.lr",)),
        (("optimizer.lr=[1",), "KD-DIST-383", ("[1",)),
        (("optimizer.lr=1,,2",), "KD-DIST-383", ("value 2",)),
        (("optimizer.lr=1,1",), "KD-DIST-381", ("1",)),
        (("optimizer.lr=1", "optimizer.lr=2"), "KD-DIST-381", ("argument 2",)),
    ],
)
def test_bad_arguments(recipe: Recipe, words: tuple[str, ...], error: str, mentions: tuple[str, ...]) -> None:
    with raises_error(error, mentions=mentions):
        rows(recipe, *words)


def test_config_of_a_student() -> None:
    keys = parse_keys(["student.rope.options.alpha=2.0"])
    config = {"rope": "mcg-rope", "lora": {"r": 4}}
    assert with_student_values(config, keys, {keys[0].key: 0}) == {
        "rope": {"name": "mcg-rope", "options": {"alpha": 2.0}},
        "lora": {"r": 4},
    }
    assert config["rope"] == "mcg-rope"
