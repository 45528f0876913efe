"""Every kind of generated plugin, really installed: listed, conformant, tested by its own tests, used to train."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from kdkit.core.plugin_system.catalogue import FAMILIES
from kdkit.core.plugin_system.scaffold.kinds import KINDS
from kdkit.core.plugin_system.scaffold.naming import LONGEST
from kdkit.core.plugin_system.scaffold.write import NewPlugin, write_plugin
from tests.core.plugin_system.scaffold.fresh import FreshEnvironment

COLORS = {"black": (-1, -1, -1), "red": (1, -1, -1), "cyan": (-1, 1, 1), "blue": (-1, -1, 1), "white": (1, 1, 1)}
VERIFY = """
import json, sys
from kdkit.testing.verify import verify_plugin
reports = {name: verify_plugin(name) for name in sys.argv[1:]}
print(json.dumps({name: [[c.status, c.subject, c.name, c.message] for c in r.checks] for name, r in reports.items()}))
"""
CHOOSE = """
import json
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.base.errors import KdkitError
catalogue, answers = load_catalogue(), []
for name in ("shared", "kdkit-one:shared", "kdkit_two:shared"):
    try:
        answers.append(catalogue.get("loss", name).provider)
    except KdkitError as error:
        answers.append([error.id, error.why, error.fix])
print(json.dumps(answers))
"""
OWN_RECIPE = """\
name: own
summary: every part is generated
space: shared
aligner: {name: an-aligner}
losses: [{name: a-loss, weight: 10, options: {delta: 0.5}}]
trust: {policy: a-policy}
optimizer: {lr: 5.0e-3, batch_size: 32, steps: 60}
increment: {steps: 0.5}
"""
REGISTRY = """\
version: 1
student: {family: a-student, config: {width: 16, hidden: 32, image_size: 16}}
teachers: {}
data:
  - {source: a-source, path: ../scans, options: {held_out: 0.5}}
prompts: {default: ["a {label} picture"]}
recipe: RECIPE
guard: {tolerance: 20}
"""


@pytest.fixture(scope="module")
def plugins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, NewPlugin]:
    """One package of each kind: ``kdkit-a-teacher``, ``kdkit-an-aligner``, ..."""
    folder = tmp_path_factory.mktemp("packages")
    names = {kind: "an-aligner" if kind == "aligner" else f"a-{kind}" for kind in KINDS}
    return {kind: write_plugin(name, kind, folder / name) for kind, name in names.items()}


@pytest.fixture(scope="module")
def environment(plugins: dict[str, NewPlugin], tmp_path_factory: pytest.TempPathFactory) -> FreshEnvironment:
    made = FreshEnvironment(tmp_path_factory.mktemp("environment") / "venv")
    made.install(*(plugin.folder for plugin in plugins.values()))
    return made


def test_there_is_a_kind_for_every_family() -> None:
    assert set(KINDS) == set(FAMILIES)


def test_they_are_listed(plugins: dict[str, NewPlugin], environment: FreshEnvironment, tmp_path: Path) -> None:
    command = ("-m", "kdkit", "plugins", "--json")
    outcome = environment.python(*command, folder=tmp_path, variables={"KDKIT_STRICT": "1"})
    assert (outcome.code, outcome.stderr) == (0, "")
    records = {record["distribution"]: record for record in json.loads(outcome.stdout)["plugins"]}
    for kind, plugin in plugins.items():
        record = records[plugin.names.distribution]
        assert (record["name"], record["version"], record["status"]) == (plugin.names.short, "0.1.0", "ok")
        assert record["provides"][kind] == [plugin.names.short]
        assert record["notes"] == []


def test_verify_passes(plugins: dict[str, NewPlugin], environment: FreshEnvironment) -> None:
    reports = environment.answer(VERIFY, *(plugin.names.distribution for plugin in plugins.values()))
    for kind, plugin in plugins.items():
        checks = reports[plugin.names.distribution]
        assert [check for check in checks if check[0] == "failed"] == []
        subjects = {subject for status, subject, *_ in checks if status == "passed"}
        needs_an_example = kind in ("loader", "source", "reader")
        assert subjects > {plugin.names.distribution} or needs_an_example, kind


def test_the_command_verifies(plugins: dict[str, NewPlugin], environment: FreshEnvironment) -> None:
    """A source needs an example; its own tests hold one."""
    plugin = plugins["source"]
    tests = plugin.folder / "tests" / f"test_{plugin.names.module}.py"
    outcome = environment.kdkit("plugins", "verify", plugin.names.distribution, "--tests", str(tests), "--json")
    assert outcome.code == 0, outcome.stdout
    assert {check["status"] for check in json.loads(outcome.stdout)["checks"]} == {"passed"}


def test_their_own_tests_pass(plugins: dict[str, NewPlugin], environment: FreshEnvironment) -> None:
    """Except the two checks that start interpreters: 'verify' runs them above."""
    folders = [str(plugin.folder / "tests") for plugin in plugins.values()]
    options = ["-q", "-rs", "-p", "no:cacheprovider", "-k", "not test_light and not test_quick"]
    outcome = environment.warm("-m", "pytest", *options, *folders)
    assert outcome.code == 0, outcome.stdout
    assert "skipped" not in outcome.stdout


@pytest.mark.parametrize("name", ["x", "as-long-as-the-name-of-one-can"])
def test_they_are_clean(name: str, tmp_path: Path) -> None:
    """By their own configuration of ruff, whatever the length of the name."""
    assert len(name) in (1, LONGEST)
    for kind in KINDS:
        write_plugin(name, kind, tmp_path / kind)
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--no-cache", "."]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@dataclass(frozen=True)
class Projects:
    """``parts`` was distilled with generated parts, and a teacher added; ``recipe`` with the generated recipe."""

    parts: Path
    recipe: Path


@pytest.fixture(scope="module")
def projects(
    plugins: dict[str, NewPlugin], environment: FreshEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> Projects:
    root = tmp_path_factory.mktemp("projects")
    draw(root / "scans")
    for name, recipe in (("parts", "./own.yaml"), ("recipe", "a-recipe\noptimizer: {steps: 4, batch_size: 16}")):
        (root / name).mkdir()
        (root / name / "registry.yaml").write_text(REGISTRY.replace("RECIPE", recipe), encoding="utf-8")
    (root / "parts" / "own.yaml").write_text(OWN_RECIPE, encoding="utf-8")
    script = f"{plugins['loader'].names.module}.make_weights"
    assert environment.warm("-m", script, "colors", folder=root / "parts").code == 0
    environment.commands(
        root,
        ["add-teacher", "a-teacher", "-C", "parts"],
        ["distill", "-C", "parts"],
        ["add-teacher", "another", "--from", "local:colors", "--loader", "a-loader", "-C", "parts"],
        ["distill", "--incremental", "-C", "parts"],
        ["add-teacher", "a-teacher", "-C", "recipe"],
        ["distill", "-C", "recipe"],
    )
    return Projects(root / "parts", root / "recipe")


def draw(folder: Path) -> None:
    """Pictures of five colors with their captions, as the generated source reads them."""
    rng = random.Random(0)
    for color, axes in COLORS.items():
        place = folder / "color" / color
        place.mkdir(parents=True)
        for number in range(24):
            shade = tuple(int(127 + axis * rng.uniform(40, 120)) for axis in axes)
            Image.new("RGB", (20, 20), shade).save(place / f"{number}.png")
            (place / f"{number}.txt").write_text(f"a {color} picture\n", encoding="utf-8")


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_they_distil_together(projects: Projects) -> None:
    """Source, teacher, loss, aligner, policy and student of ours."""
    lineage = read(projects.parts / "versions/v1/lineage.json")
    assert [teacher["name"] for teacher in lineage["teachers"]] == ["a-teacher"]
    assert read(projects.parts / "registry.lock")["teachers"]["a-teacher"]["provider"] == "kdkit-a-teacher@0.1.0"
    (student,) = [m for m in read(projects.parts / "versions/v1/evaluation.json")["models"] if m["role"] == "student"]
    assert student["means"]["accuracy"] > 0.8  # guessing is right in one of five


def test_a_teacher_of_the_loader_is_added(projects: Projects) -> None:
    assert read(projects.parts / "registry.lock")["teachers"]["another"]["loader"] == "a-loader"
    lineage = read(projects.parts / "versions/v2/lineage.json")
    assert {teacher["name"] for teacher in lineage["teachers"]} == {"a-teacher", "another"}


def test_the_recipe_can_be_chosen(projects: Projects) -> None:
    assert read(projects.recipe / "versions/v1/lineage.json")["recipe"]["name"] == "a-recipe"


def test_two_distributions_may_offer_one_name(tmp_path: Path) -> None:
    """Both are listed; the short name is an error that names both; the full name works."""
    environment = FreshEnvironment(tmp_path / "venv")
    for name in ("one", "two"):
        plugin = write_plugin(name, "loss", tmp_path / name)
        light = plugin.folder / plugin.names.module / "__init__.py"
        light.write_text(light.read_text().replace(f'name="{name}"', 'name="shared"'))
    environment.install(tmp_path / "one", tmp_path / "two")
    listing = environment.kdkit("plugins").stdout
    assert any("kdkit-two" in line and "'kdkit-one:shared'" in line for line in listing.splitlines())
    short, first, second = environment.answer(CHOOSE)
    assert short[0] == "KD-PLUG-001"
    assert short[1].split(", ") == ["kdkit-one 0.1.0", "kdkit-two 0.1.0"]
    assert all(name in short[2] for name in ("'kdkit-one:shared'", "'kdkit-two:shared'"))
    assert (first, second) == ("kdkit-one", "kdkit-two")
