"""``kdkit recipes``."""

from __future__ import annotations

from kdkit.core.base.errors import ExitCode
from kdkit.core.project.registry.lock import Lock
from tests.conftest import Cli


def test_list_show_copy_and_check(kdkit_cli: Cli) -> None:
    listed = kdkit_cli("recipes", "--json")
    assert listed.code == 0
    assert {row["name"] for row in listed.json} >= {"kdkit", "clipkd", "mmkd-paper", "mmkd-released"}

    assert {row["name"]: row["stages"] for row in listed.json}["mmkd-paper"] == ["clip", "mmkd-paper-distill"]

    shown = kdkit_cli("recipes", "show", "clipkd")
    assert shown.code == 0
    assert shown.stdout.startswith("# clipkd")

    mine = kdkit_cli.folder / "mine.yaml"
    mine.write_text(shown.stdout.replace("weight: 2000", "weight: 3"), encoding="utf-8")
    copied = kdkit_cli("recipes", "show", "mine.yaml", "--json")
    assert [loss["weight"] for loss in copied.json["losses"]] == [1, 1, 1, 3]

    mine.write_text(shown.stdout.replace("normalize: unit", "normalise: unit"), encoding="utf-8")
    line = 1 + mine.read_text(encoding="utf-8").splitlines().index("  normalise: unit")
    wrong = kdkit_cli("recipes", "show", "mine.yaml")
    assert (wrong.code, wrong.stdout, wrong.error) == (2, "", "KD-BASE-007")
    assert f"mine.yaml:{line}: " in wrong.stderr
    assert "'normalize'" in wrong.stderr


def test_a_project_uses_the_recipe_of_the_pinned_plugin(kdkit_cli: Cli) -> None:
    (kdkit_cli.folder / "registry.yaml").write_text("version: 1\n", encoding="utf-8")
    Lock(providers={"recipe": {"clipkd": "kdkit-gone"}}).save(kdkit_cli.folder / "registry.lock")
    refused = kdkit_cli("recipes", "show", "clipkd")
    assert (refused.code, refused.error) == (ExitCode.MISSING, "KD-PLUG-002")
    assert "kdkit-gone" in refused.stderr


def test_listing_needs_no_torch(kdkit_cli: Cli) -> None:
    code = (
        "import sys; from kdkit.core.plugin_system.discovery import load_catalogue;"
        "from kdkit.core.project.recipe_file import load_recipe;"
        "c = load_catalogue(); [load_recipe(n, c) for n in c.names('recipe')]; sys.exit('torch' in sys.modules)"
    )
    assert kdkit_cli.python("-c", code).code == 0
