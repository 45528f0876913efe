"""Recipes: the built-in ones, and errors of wrong files."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import RecipeSpec
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.recipe import OptimizerPart, Recipe
from kdkit.core.project.recipe_file import load_recipe, recipe_file
from kdkit.core.project.registry.schema import OptimizerEntry, Registry
from tests.errors import raises_error

BUILT_IN = ("captions", "clip", "clipkd", "clinkd", "kdkit", "mmkd-paper", "mmkd-released", "sft")
GOOD = """\
name: mine
summary: a test
losses:
  - name: fd
    weight: 2
  - {name: icl, options: {exp: false}}
trust: {policy: threshold}
optimizer:
  lr: 1e-3
  batch_size: 8
  steps: 10
"""


def load(text: str, folder: Path) -> Recipe:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return load_recipe("mine.yaml", load_catalogue(), folder)


@pytest.mark.parametrize("name", BUILT_IN)
def test_names_and_options_of_built_in_recipes_exist(name: str) -> None:
    catalogue = load_catalogue()
    recipe = load_recipe(name, catalogue)
    assert recipe.name == name
    assert recipe.summary == catalogue.spec(RecipeSpec, name).summary
    for loss in recipe.losses:
        catalogue.make("loss", loss.name, **loss.options)
    for previous in (recipe.increment.previous, recipe.increment.without_replay):
        catalogue.make("loss", previous.loss, **previous.options)
    catalogue.make("policy", recipe.trust.policy, **recipe.trust.options)
    if recipe.aligner:
        catalogue.make("aligner", recipe.aligner.name, in_dim=4, out_dim=4, **recipe.aligner.options)


def test_every_file_in_the_folder_is_declared() -> None:
    found = {file.name for file in files("kdkit.plugins.recipes").iterdir() if file.name.endswith(".yaml")}
    assert found == {f"{name}.yaml" for name in BUILT_IN}


def test_mmkd_released_follows_its_code() -> None:
    recipe = load_recipe("mmkd-released", load_catalogue())
    assert [(loss.name, loss.weight) for loss in recipe.losses] == [("clip", 1), ("fd", 50), ("icl", 1)]
    made = load_catalogue().make("loss", "icl", **recipe.losses[2].options)
    assert float(made.scale) == pytest.approx(2.659, abs=1e-3)
    assert not made.exp
    assert not list(made.parameters())
    assert (recipe.targets.normalize, recipe.teachers_per_sample, recipe.space) == ("none", "one", "shared")


def test_a_file_is_read_relative_to_the_root(tmp_path: Path) -> None:
    recipe = load(GOOD, tmp_path)
    assert recipe.losses[1].options == {"exp": False}
    assert recipe.optimizer.lr == 1e-3
    assert recipe.space == "heads"
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe


def test_shown_text_is_the_file_byte_for_byte() -> None:
    text = recipe_file("kdkit", load_catalogue()).text
    assert text == (files("kdkit.plugins.recipes") / "kdkit.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "where", "what", "fix"),
    [
        ("    weight: 2", "    wieght: 2", ":5", "unknown key 'losses.0.wieght'", "did you mean 'weight'?"),
        ("summary:", "sumary:", ":2", "unknown key 'sumary'", "did you mean 'summary'?"),
        ("name: icl", "name: icll", ":6", "unknown loss 'icll'", "did you mean 'icl'?"),
        ("threshold}", "treshold}", ":7", "unknown policy 'treshold'", "did you mean 'threshold'?"),
        ("lr: 1e-3", "lr: fast", ":9", "optimizer.lr: ", ""),
        ("lr: 1e-3", "lr: -1", ":9", "optimizer.lr: ", ""),
        ("  steps: 10", "  steps: 10\n  lr: 3", ":12", "'lr' is given twice", "keep one"),
        ("  steps: 10\n", "", ":8", "exactly one of 'epochs' and 'steps'", ""),
        ("  steps: 10", "  steps: 10\n  epochs: 3", ":8", "exactly one of 'epochs' and 'steps'", ""),
        ("  lr: 1e-3\n", "", ":8", "'optimizer.lr' is missing", ""),
        ("trust: {", "space: shared\ntrust: {", ":1", "needs an 'aligner'", ""),
        ("trust: {", "aligner: {name: pca}\ntrust: {", ":1", "belongs to 'space: shared'", ""),
        (
            "trust: {",
            "space: shared\naligner: {name: pcaa}\ntrust: {",
            ":8",
            "unknown aligner 'pcaa'",
            "did you mean 'pca'?",
        ),
        (
            "losses:\n",
            "increment: {previous: {loss: cdr}}\nlosses:\n",
            ":3",
            "unknown loss 'cdr'",
            "did you mean 'crd'?",
        ),
        ("losses:\n", "increment: {repair: {interpolate: [1.5]}}\nlosses:\n", ":3", "repair.interpolate", ""),
        ("losses:\n", "increment: {repair: {interpolate: [], rehearse: 0}}\nlosses:\n", ":3", "'repair: null'", ""),
        ("trust: {", "trust: [", ":", "not valid YAML", ""),
    ],
)
def test_errors_name_the_line(old: str, new: str, where: str, what: str, fix: str, tmp_path: Path) -> None:
    assert old in GOOD
    with pytest.raises(KdkitError) as caught:
        load(GOOD.replace(old, new), tmp_path)
    assert caught.value.code == ExitCode.USAGE
    assert what in caught.value.what
    assert caught.value.where.startswith(f"mine.yaml{where}")
    assert where == ":" or caught.value.where == f"mine.yaml{where}"
    assert fix in caught.value.fix


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words\n"])
def test_a_file_that_is_no_mapping(text: str, tmp_path: Path) -> None:
    with raises_error("KD-BASE-003", where="mine.yaml:1", mentions=("1",)):
        load(text, tmp_path)


def test_several_problems_are_counted(tmp_path: Path) -> None:
    with raises_error("KD-BASE-007", where="mine.yaml:1", mentions=("3 more",)):
        load("name: x\n", tmp_path)


def test_yaml_tags_make_no_objects(tmp_path: Path) -> None:
    with raises_error("KD-BASE-007", where="mine.yaml:2"):
        load(GOOD.replace("summary: a test", "summary: !!python/object/apply:os.getcwd []"), tmp_path)


def test_no_such_recipe(tmp_path: Path) -> None:
    with raises_error("KD-PROJ-003") as caught:
        load_recipe("nowhere.yaml", load_catalogue(), tmp_path)
    assert caught.value.code == ExitCode.MISSING
    with raises_error("KD-PLUG-003", mentions=("'clpkd'", "'clipkd'")):
        load_recipe("clpkd", load_catalogue(), tmp_path)


def test_the_registry_overrides_rate_and_length() -> None:
    recipe = load_recipe("kdkit", load_catalogue())
    changed = recipe.with_optimizer(OptimizerEntry(lr=0.5, steps=7))
    assert (changed.optimizer.lr, changed.optimizer.steps, changed.optimizer.epochs) == (0.5, 7, None)
    assert changed.losses == recipe.losses
    assert recipe.with_optimizer(OptimizerEntry()) is recipe
    with pytest.raises(ValueError, match=r"'epochs'.*'steps'"):
        OptimizerEntry(steps=7, epochs=2)


def test_few_samples_take_the_fewest_steps_unless_the_registry_gives_a_length() -> None:
    recipe = load_recipe("kdkit", load_catalogue())
    optimizer = recipe.optimizer.model_copy(update={"batch_size": 64, "epochs": 10, "min_steps": 900, "max_epochs": 60})
    assert [optimizer.length(samples) for samples in (1, 64, 640, 960, 5_760, 6_400)] == [60, 60, 600, 900, 900, 1_000]
    recipe = recipe.model_copy(update={"optimizer": optimizer})
    assert recipe.with_optimizer(OptimizerEntry(lr=0.5)).optimizer.length(960) == 900
    assert recipe.with_optimizer(OptimizerEntry(epochs=2)).optimizer.length(640) == 20
    assert recipe.with_optimizer(OptimizerEntry(steps=7)).optimizer.length(640) == 7
    with pytest.raises(ValueError, match="min_steps"):
        OptimizerPart(lr=0.1, batch_size=4, steps=7, min_steps=3)
    for limits in ({"max_epochs": 20}, {"min_steps": 9, "max_epochs": 5}):
        with pytest.raises(ValueError, match="max_epochs"):
            OptimizerPart.model_validate({"lr": 0.1, "batch_size": 4, "epochs": 10, **limits})


def test_the_registry_changes_trust() -> None:
    recipe = load_recipe("kdkit", load_catalogue())

    def trust(**given: object) -> dict[str, object]:
        registry = Registry.model_validate({"version": 1, "trust": given})
        return recipe.changed_by(registry).trust.model_dump(exclude_none=True)

    own = recipe.trust.model_dump(exclude_none=True)
    assert trust(by="caption", per="sample") == {**own, "by": "caption", "per": "sample"}
    assert trust(policy="top-k") == {"policy": "top-k", "options": {}}
    assert trust(policy="top-k", options={"k": 2}, by="list") == {"policy": "top-k", "options": {"k": 2}, "by": "list"}
    with pytest.raises(ValueError, match="'options' need 'policy'"):
        trust(options={"k": 2})
    with pytest.raises(ValueError, match="'by: list' is per sample"):
        trust(by="list", per="domain")
