"""The documentation builds without warnings and covers errors, hooks, commands, exit codes and variables."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import BaseModel
from typer.core import TyperGroup
from typer.main import get_command

import kdkit
from docs.generate import errors, generate, hooks, written_by_hand
from kdkit.cli.main import app
from kdkit.core.base.errors import ExitCode
from kdkit.core.base.yaml_model import read_model
from kdkit.core.contracts import hookspecs, specs
from kdkit.core.plugin_system.catalogue import FAMILY_OF
from kdkit.core.plugin_system.discovery import HOOKS, load_catalogue
from kdkit.core.project.recipe import CorrectionPart, IncrementPart, Recipe
from kdkit.core.project.recipe_file import RecipeFile, read_recipe, recipe_file
from kdkit.core.project.registry.load import check_registry
from kdkit.core.project.registry.schema import (
    DataEntry,
    GuardEntry,
    InputsEntry,
    OptimizerEntry,
    Registry,
    StudentEntry,
    TeacherEntry,
)

ROOT = Path(__file__).parents[1]
CLI = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("examples/*.md"), *written_by_hand()]


@pytest.fixture(scope="session")
def generated() -> dict[str, str]:
    """Path below docs/ -> text of the pages that are generated at each build."""
    return generate()


def sections(text: str, level: str) -> dict[str, str]:
    """Heading -> the text under it."""
    parts = re.split(rf"^{level} (.+)$", text, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


# -------------------------------------------------------------------------------------- build


def test_the_documentation_builds_without_warnings(tmp_path: Path) -> None:
    copy = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", copy, ignore=shutil.ignore_patterns("__pycache__", "_build", "hooks"))
    options = ["-q", "-W", "--keep-going", "-n", "-b", "html"]
    command = [sys.executable, "-m", "sphinx", *options, str(copy), str(tmp_path / "html")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for page in ("index", "reference/commands", "reference/errors", "reference/python", "explanation/architecture"):
        assert (tmp_path / "html" / f"{page}.html").is_file()
    reference = (tmp_path / "html/reference/python.html").read_text(encoding="utf-8")
    documented = set(re.findall(r'class="sig sig-object py" id="[\w.]*?(\w+)"', reference))
    assert {*kdkit.__all__} - documented == {"__version__", "hookimpl"}


# ------------------------------------------------------------------------------------- errors


def test_every_error_has_a_literal_unique_id() -> None:
    sites = errors.error_sites()
    assert [f"{site.path}:{site.line}" for site in sites if not errors.ID.fullmatch(site.id or "")] == []
    assert {id: count for id, count in Counter(site.id for site in sites).items() if count > 1} == {}


def test_every_error_is_on_the_page_with_message_and_exit_code(generated: dict[str, str]) -> None:
    headings = sections(generated["reference/errors.md"], "###")
    sites = errors.error_sites()
    assert set(headings) == {site.id for site in sites}
    for site in sites:
        section = headings[str(site.id)]
        assert site.message, f"{site.path}:{site.line}"
        assert f"```text\n{site.message}\n```" in section
        assert f"Exit code {' or '.join(map(str, site.codes))}, `{site.path}`" in section
        assert set(site.codes) <= set(ExitCode)


def test_an_error_site_is_read_from_the_source(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text(
        "def load(path, kind, known):\n"
        "    reason = f'{kind} expected'\n"
        "    raise KdkitError('KD-AB-001', f\"'{path.name}' has {len(known)} {', '.join(sorted(known))}\" ' lines',\n"
        "                     why=reason, fix='a' if kind else did_you_mean(kind, known),\n"
        "                     code=ExitCode.MISSING if kind else ExitCode.DENIED)\n"
    )
    (site,) = errors.error_sites(package)
    assert (site.id, site.message, site.line) == ("KD-AB-001", "'{name}' has {count} {known} lines", 3)
    assert (site.cause, site.remedy, site.codes) == ("{kind} expected", "a / did you mean '{name}'?", (3, 4))


# ------------------------------------------------------------------------------------ plugins


DECLARED = sorted(name for name in vars(hookspecs) if name.startswith("kdkit_"))


def test_every_hook_has_a_page_with_an_example(generated: dict[str, str]) -> None:
    index = generated["reference/hooks/index.md"]
    assert sorted(re.findall(r"^\| \[`(\w+)`\]\(\w+\.md\)", index, flags=re.M)) == DECLARED
    for hook in DECLARED:
        page = generated[f"reference/hooks/{hook}.md"]
        assert page.startswith(f"# `{hook}(")
        code = re.findall(r"^```python\n(.*?)^```$", page, flags=re.M | re.S)
        assert any(f"def {hook}(" in block for block in code)
        for block in code:
            compile(block, hook, "exec")


def test_a_hook_page_follows_signature_and_spec(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = "kdkit_losses"
    before = hooks.page(hook)

    def kdkit_losses(device: str) -> None:
        """Losses that recipes can name."""

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class LossSpec(specs.LossSpec):
        """As it is, and one more."""

        weight: float = 1.0
        """Of the loss."""

    with monkeypatch.context() as patch:
        patch.setattr(hookspecs, hook, kdkit_losses)
        assert hooks.page(hook).startswith("# `kdkit_losses(device: str) -> None`")
    with monkeypatch.context() as patch:
        patch.setitem(cast(dict[str, Any], HOOKS), hook, LossSpec)
        patch.setitem(cast(dict[Any, str], FAMILY_OF), LossSpec, "loss")
        assert "| `weight` | `float` | `1.0` | Of the loss. |" in hooks.page(hook)
    assert hooks.page(hook) == before


# --------------------------------------------------------------------------------- YAML


def yaml_blocks() -> list[tuple[str, str]]:
    """(page, text) of every YAML example."""
    pages = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
    return [
        (name, text) for name, page in pages.items() for text in re.findall(r"^```yaml\n(.*?)^```$", page, re.M | re.S)
    ]


@pytest.mark.parametrize(("page", "text"), yaml_blocks())
def test_a_yaml_example_is_understood(page: str, text: str) -> None:
    """Completed to a whole file, it is a valid registry or a valid recipe."""
    catalogue = load_catalogue()
    keys = {key.split(":")[0] for key in text.splitlines() if re.match(r"\w", key)}
    if keys <= {*Registry.model_fields}:
        check_registry(text if "version" in keys else f"version: 1\n{text}", page)
    elif "stages" in keys:
        read_recipe(RecipeFile(page, text), catalogue)
    else:
        assert keys <= {*Recipe.model_fields}, page
        rest = recipe_file("kdkit", catalogue).text
        for key in keys:
            rest = re.sub(rf"^{key}:.*\n(?:(?:[ -].*|#.*)?\n)*", "", rest, flags=re.M)
        read_model(Recipe, rest + text, page)


def test_every_key_is_on_the_schema_page(generated: dict[str, str]) -> None:
    page = generated["reference/schema.md"]
    for model in (Registry, TeacherEntry, GuardEntry, Recipe, IncrementPart, CorrectionPart):
        for name, field in model.model_fields.items():
            assert f"| `{field.alias or name}` |" in page, f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    "model", [Registry, TeacherEntry, GuardEntry, DataEntry, StudentEntry, OptimizerEntry, InputsEntry]
)
def test_every_key_of_the_registry_is_explained(model: type[BaseModel]) -> None:
    page = (ROOT / "docs/reference/registry.md").read_text(encoding="utf-8")
    names = [field.alias or name for name, field in model.model_fields.items()]
    assert [name for name in names if not re.search(rf"`(?:\w+\.)?{name}[`.]", page)] == []


# --------------------------------------------------------------------------------- command line


def commands(group: TyperGroup, prefix: str = "kdkit") -> Iterator[tuple[str, set[str]]]:
    """Every command with its options (long names)."""
    for name, command in group.commands.items():
        options = {o for parameter in command.params for o in (*parameter.opts, *parameter.secondary_opts)}
        yield f"{prefix} {name}", {option for option in options if option.startswith("--")}
        if isinstance(command, TyperGroup):
            yield from commands(command, f"{prefix} {name}")


def app_commands() -> dict[str, set[str]]:
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    return dict(commands(group))


def test_every_command_has_one_section_with_its_options(generated: dict[str, str]) -> None:
    page = generated["reference/commands.md"]
    found = re.split(r"^#{3,4} `kdkit ([^`]+)`$", page, flags=re.M)
    documented = {f"kdkit {name}": text for name, text in zip(found[1::2], found[2::2], strict=True)}
    assert len(documented) == len(found[1::2])
    assert set(documented) == set(app_commands())
    for command, options in app_commands().items():
        assert {option for option in options if option not in documented[command]} == set(), command


def test_the_exit_codes_are_documented() -> None:
    table = {int(number) for number in re.findall(r"^\| (\d+) \|", CLI, flags=re.M)}
    assert table == {*ExitCode, 141}


def test_every_variable_is_documented() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "kdkit").rglob("*.py"))
    used = set(re.findall(r"\bKDKIT_(?!API\b)[A-Z_]+\b", sources))
    assert used
    assert used == set(re.findall(r"^\| `(KDKIT_[A-Z_]+)", CLI, flags=re.M))


# -------------------------------------------------------------------------------------- links


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_within_the_project_lead_somewhere(document: Path, generated: dict[str, str]) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text(encoding="utf-8"))
    inside = [target for target in targets if "://" not in target and not target.startswith("mailto:")]
    known = {ROOT / "docs" / path for path in generated}
    paths = [Path(os.path.normpath(document.parent / target)) for target in inside]
    assert [str(path) for path in paths if not path.exists() and path not in known] == []
