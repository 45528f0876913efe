"""``kdkit recipes`` in a process of its own."""

from __future__ import annotations

import json

from kdkit.core.base.errors import ExitCode
from kdkit.core.project.registry.lock import Lock
from tests.conftest import Cli


def test_list_show_copy_and_check(kdkit_cli: Cli) -> None:
    listed = kdkit_cli("recipes", "--json")
    assert listed.code == 0
    assert {row["name"] for row in json.loads(listed.stdout)} >= {"kdkit", "clipkd", "mmkd-paper", "mmkd-released"}

    shown = kdkit_cli("recipes", "show", "clipkd")
    assert shown.code == 0
    assert shown.stdout.startswith("# clipkd")

    # what 'show' prints is a recipe: '> mine.yaml' copies it
    mine = kdkit_cli.folder / "mine.yaml"
    mine.write_text(shown.stdout.replace("weight: 2000", "weight: 3"), encoding="utf-8")
    copied = kdkit_cli("recipes", "show", "mine.yaml", "--json")
    assert [loss["weight"] for loss in json.loads(copied.stdout)["losses"]] == [1, 1, 1, 3]

    mine.write_text(shown.stdout.replace("normalize: unit", "normalize: unit"), encoding="utf-8")
    line = 1 + mine.read_text(encoding="utf-8").splitlines().index("  normalize: unit")
    wrong = kdkit_cli("recipes", "show", "mine.yaml")
    assert wrong.code == 2
    assert wrong.stdout == ""
    assert f"mine.yaml:{line}: unknown key 'targets.normalize'" in wrong.stderr
    assert "did you mean 'normalize'?" in wrong.stderr


def test_inside_a_project_a_recipe_comes_from_where_it_was_pinned(kdkit_cli: Cli) -> None:
    (kdkit_cli.folder / "registry.yaml").write_text("version: 1\n", encoding="utf-8")
    Lock(providers={"recipe": {"clipkd": "kdkit-gone"}}).save(kdkit_cli.folder / "registry.lock")
    refused = kdkit_cli("recipes", "show", "clipkd")
    assert refused.code == ExitCode.MISSING
    assert "the recipe 'clipkd' comes from kdkit-gone in this project" in refused.stderr


def test_listing_needs_no_torch(kdkit_cli: Cli) -> None:
    code = (
        "import sys; from kdkit.core.plugin_system.discovery import load_catalogue;"
        "from kdkit.core.project.recipe import load_recipe;"
        "c = load_catalogue(); [load_recipe(n, c) for n in c.names('recipe')]; sys.exit('torch' in sys.modules)"
    )
    assert kdkit_cli.python("-c", code).code == 0
