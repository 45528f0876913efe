"""Recipes with stages in files, and errors of wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.lineage import Lineage
from kdkit.core.project.recipe import Recipe, teaching_stage
from kdkit.core.project.recipe_file import load_recipe, recipe_file, stage_recipes
from kdkit.core.project.registry.pins import names_of
from kdkit.core.project.registry.schema import Registry
from tests.errors import raises_error
from tests.lineages import lineage

STAGED = """\
name: two
summary: captions, then teachers
stages:
  - {recipe: captions, optimizer: {steps: 5, lr: 1.0e-3}}
  - name: own
    losses: [{name: fd}]
    trust: {policy: all}
    optimizer: {lr: 0.01, batch_size: 8, steps: 7}
"""


def load(text: str, folder: Path) -> Recipe:
    (folder / "two.yaml").write_text(text, encoding="utf-8")
    return load_recipe("two.yaml", load_catalogue(), folder)


def test_a_stage_is_the_named_recipe_with_its_own_keys(tmp_path: Path) -> None:
    recipe, captions = load(STAGED, tmp_path), load_recipe("captions", load_catalogue())
    assert [stage.name for stage in recipe.stages] == ["captions", "own"]
    first, last = recipe.stages
    changed = captions.optimizer.model_dump() | {"steps": 5, "lr": 1e-3}
    changed |= dict.fromkeys(("epochs", "min_steps", "max_epochs"))
    assert first.optimizer.model_dump() == changed
    assert first.model_copy(update={"optimizer": captions.optimizer}) == captions
    assert (recipe.losses, recipe.optimizer, recipe.trust) == (last.losses, last.optimizer, last.trust)
    assert captions.in_order == (captions,)
    assert teaching_stage(recipe, load_catalogue()) == last
    assert {("loss", "clip"), ("loss", "fd"), ("policy", "all"), ("policy", "soft")} <= set(names_of(recipe))
    assert stage_recipes(recipe_file("two.yaml", load_catalogue(), tmp_path)) == ("captions",)


def test_json_has_all_stages_and_comes_back(tmp_path: Path) -> None:
    recipe = load(STAGED, tmp_path)
    data: dict[str, Any] = recipe.model_dump(mode="json")
    assert sorted(data) == ["name", "source", "stages", "summary"]
    assert "stages" not in data["stages"][0]
    assert Recipe.model_validate(data) == recipe
    record = lineage(recipe=recipe)
    assert Lineage.from_bytes(record.to_bytes()).recipe == recipe
    assert "stages" not in load_recipe("kdkit", load_catalogue()).model_dump()


def test_the_registry_changes_every_stage(tmp_path: Path) -> None:
    registry = Registry.model_validate({"version": 1, "optimizer": {"batch_size": 3}, "trust": {"policy": "top-k"}})
    changed = load(STAGED, tmp_path).changed_by(registry)
    assert [stage.optimizer.batch_size for stage in changed.in_order] == [3, 3]
    assert {stage.trust.policy for stage in changed.in_order} == {"top-k"}
    assert (changed.optimizer.steps, changed.name) == (7, "two")


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("recipe: captions,", "recipe: captoins,", ":4", "unknown recipe 'captoins'"),
        ("recipe: captions,", "recipe: ./none.yaml,", ":4", "cannot be read"),
        ("steps: 5,", "stepz: 5,", ":4", "unknown key 'stages.0.optimizer.stepz'"),
        ("name: fd", "name: ffd", ":6", "unknown loss 'ffd'"),
        ("steps: 7", "warmup: 0", ":8", "stages.1.optimizer: give exactly one of 'epochs' and 'steps'"),
        ("steps: 5,", "steps: 0,", ":4", "stages.0.optimizer.steps"),
        ("    losses: [{name: fd}]\n", "", ":5", "'stages.1.losses' is missing"),
        ("  - name: own\n", "  - naem: own\n", ":5", "unknown key 'stages.1.naem'"),
        ("summary: captions, then teachers", "summary: x\nspace: heads", ":3", "unknown key 'space'"),
        ("    trust: {policy: all}\n", "    trust: {policy: all}\n    stages: []\n", ":8", "stages of its own"),
        ("recipe: captions,", "recipe: ./two.yaml,", ":4", "stages of its own"),
    ],
)
def test_errors_name_the_line_in_the_stage(old: str, new: str, where: str, what: str, tmp_path: Path) -> None:
    assert old in STAGED
    with pytest.raises(KdkitError) as caught:
        load(STAGED.replace(old, new), tmp_path)
    assert what in caught.value.what
    assert caught.value.where == f"two.yaml{where}"


def test_one_stage_or_two_corrections_are_refused(tmp_path: Path) -> None:
    with raises_error("KD-BASE-007", mentions=("stages",)):
        load(STAGED.partition("  - name: own")[0], tmp_path)
    corrected = STAGED.replace("steps: 5,", "steps: 5},correction: {").replace(" lr: 1.0e-3}}", "}}")
    with raises_error("KD-BASE-007", mentions=("correction",)):
        load(corrected.replace("    trust:", "    correction: {}\n    trust:"), tmp_path)
