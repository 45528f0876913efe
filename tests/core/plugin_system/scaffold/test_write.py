"""Names are normalized, nothing is overwritten, nothing is left half-written."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.plugin_system.catalogue import Family
from kdkit.core.plugin_system.discovery import discover
from kdkit.core.plugin_system.installed import installed, normal
from kdkit.core.plugin_system.scaffold.kinds import KINDS
from kdkit.core.plugin_system.scaffold.naming import LONGEST, Names, names_for
from kdkit.core.plugin_system.scaffold.write import TEMPLATES, render, write_plugin
from tests.errors import raises_error

ROOT = Path(__file__).parents[4]
CATALOGUE = discover(plugin for plugin in installed() if plugin.built_in)


@pytest.mark.parametrize(
    ("given", "short"),
    [
        ("huber", "huber"),
        ("kdkit-huber", "huber"),
        ("KDKit_Huber", "huber"),
        ("My.Own__Loss", "my-own-loss"),
        ("v2", "v2"),
        ("kdkit-kdkit-x", "kdkit-x"),
    ],
)
def test_names_are_normalized(given: str, short: str) -> None:
    names = names_for(given, "loss", CATALOGUE)
    assert (names.short, names.distribution) == (short, f"kdkit-{short}")
    assert names.module == f"kdkit_{short.replace('-', '_')}"


@pytest.mark.parametrize(
    "name", ["", "kdkit", "kdkit-", "2x", "-x", "x-", "a b", "ä", "a/b", "../x", "x;y", "$module", "x" * (LONGEST + 1)]
)
def test_an_invalid_name_is_refused(name: str) -> None:
    with raises_error("KD-PLUG-016", mentions=(f"'{name}'",)):
        names_for(name, "loss", CATALOGUE)


def test_a_built_in_keeps_its_name() -> None:
    with raises_error("KD-PLUG-017", mentions=("'clip'",)) as caught:
        names_for("CLIP", "loss", CATALOGUE)
    assert "my-clip" in caught.value.fix
    with raises_error("KD-PLUG-017", mentions=("'open_clip'",)):
        names_for("open-clip", "student", CATALOGUE)
    assert names_for("clip", "aligner", CATALOGUE).short == "clip"


@settings(max_examples=40)
@given(
    st.from_regex(rf"[a-z][a-z0-9]{{0,{LONGEST - 4}}}(-[a-z0-9]{{1,3}})?", fullmatch=True), st.sampled_from([*KINDS])
)
def test_any_name_gives_a_whole_package(name: str, kind: Family) -> None:
    names = Names(name)
    assert normal(names.distribution) == names.distribution
    for path, content in render(names, kind).items():
        assert "$" not in path
        assert not path.endswith(".tmpl")
        if path.endswith(".safetensors"):
            continue
        text = content.decode()
        left = re.findall(r"\$\w+", text)
        assert left == [], path
        if path.endswith(".py"):
            ast.parse(text)


DISTRIBUTIONS = {"PIL": "pillow"}
"""Import name -> distribution, where they differ."""


@pytest.mark.parametrize("kind", KINDS)
def test_imported_distributions_are_required(kind: Family) -> None:
    files = render(Names("mine"), kind)
    project = tomllib.loads(files["pyproject.toml"].decode())["project"]
    assert project["entry-points"] == {"kdkit": {"mine": "kdkit_mine"}}
    imported = set()
    for path, content in files.items():
        if path.startswith("kdkit_mine/") and path.endswith(".py"):
            for node in ast.walk(ast.parse(content)):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
                imported |= {name.partition(".")[0] for name in names}
    foreign = imported - set(sys.stdlib_module_names) - {"kdkit_mine"}
    assert {DISTRIBUTIONS.get(name, name) for name in foreign} == set(project["dependencies"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_light_module_imports_kdkit_alone(kind: Family) -> None:
    tree = ast.parse(render(Names("mine"), kind)["kdkit_mine/__init__.py"])
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert all(isinstance(node, ast.ImportFrom) for node in imports)
    assert {getattr(node, "module", None) for node in imports} <= {"kdkit", "__future__"}


def test_the_workflows_are_yaml_that_tests_and_publishes() -> None:
    files = render(Names("mine"), "loss")
    test, publish = (YAML().load(files[f".github/workflows/{name}.yml"].decode()) for name in ("test", "publish"))
    steps = [str(step.get("run")) for step in test["jobs"]["test"]["steps"]]
    assert ["kdkit", "plugins", "verify", "kdkit-mine"] in [step.split()[-4:] for step in steps]
    assert test["jobs"]["test"]["steps"][1]["with"]["python-version"] == "${{ matrix.python }}"
    assert publish["jobs"]["publish"]["permissions"] == {"id-token": "write"}


def test_the_templates_are_in_the_wheel(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = {path for path in TEMPLATES.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    with ZipFile(wheel) as archive:
        assert {path.relative_to(ROOT).as_posix() for path in files} <= set(archive.namelist())


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with raises_error("KD-PLUG-018", mentions=("overwritten",)):
        write_plugin("huber", "loss", tmp_path / "mine", catalogue=CATALOGUE)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with raises_error("KD-PLUG-018", mentions=("overwritten",)):
        write_plugin("huber", "loss", tmp_path / "link", catalogue=CATALOGUE)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "mine"]


def test_the_same_package_again_is_written_already(tmp_path: Path) -> None:
    made = [write_plugin("huber", "loss", tmp_path / "made", catalogue=CATALOGUE) for _ in range(2)]
    assert made[0] == made[1]
    (tmp_path / "made" / "README.md").write_text("mine", encoding="utf-8")
    with raises_error("KD-PLUG-018"):
        write_plugin("huber", "loss", tmp_path / "made", catalogue=CATALOGUE)


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with raises_error("KD-PLUG-019", mentions=("'teachers'",)) as caught:
        write_plugin("huber", "teachers", tmp_path / "x", catalogue=CATALOGUE)
    assert "'teacher'" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_clear_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(KdkitError, match="no permission") as caught:
            write_plugin("huber", "loss", tmp_path / "x", catalogue=CATALOGUE)
    finally:
        tmp_path.chmod(0o700)
    assert caught.value.code == ExitCode.DENIED


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        if path.name == "LICENSE":
            raise OSError(28, "No space left on device", str(path))
        with open(path, "wb") as handle:
            return handle.write(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with raises_error("KD-BASE-002"):
        write_plugin("huber", "loss", tmp_path / "x", catalogue=CATALOGUE)
    assert list(tmp_path.iterdir()) == []
