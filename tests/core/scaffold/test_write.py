"""Names are normalised, nothing is overwritten, nothing is left half-written."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdkit.core.catalogue import normal
from kdkit.core.discovery import discover, installed
from kdkit.core.errors import ExitCode, KdkitError
from kdkit.core.scaffold.kinds import KINDS
from kdkit.core.scaffold.naming import LONGEST, Names, names_for
from kdkit.core.scaffold.write import render, write_plugin

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
def test_names_are_normalised(given: str, short: str) -> None:
    names = names_for(given, "loss", CATALOGUE)
    assert (names.short, names.distribution) == (short, f"kdkit-{short}")
    assert names.module == f"kdkit_{short.replace('-', '_')}"


@pytest.mark.parametrize(
    "name", ["", "kdkit", "kdkit-", "2x", "-x", "x-", "a b", "ä", "a/b", "../x", "x;y", "$module", "x" * (LONGEST + 1)]
)
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(KdkitError, match="is not a name for a plugin"):
        names_for(name, "loss", CATALOGUE)


def test_a_built_in_keeps_its_name() -> None:
    with pytest.raises(KdkitError, match="'clip' is a loss of kdkit itself") as caught:
        names_for("CLIP", "loss", CATALOGUE)
    assert "my-clip" in caught.value.fix
    with pytest.raises(KdkitError, match="'open_clip' is a student of kdkit itself"):
        names_for("open-clip", "student", CATALOGUE)
    assert names_for("clip", "aligner", CATALOGUE).short == "clip"


@settings(max_examples=40)
@given(
    st.from_regex(rf"[a-z][a-z0-9]{{0,{LONGEST - 4}}}(-[a-z0-9]{{1,3}})?", fullmatch=True), st.sampled_from([*KINDS])
)
def test_any_name_gives_a_whole_package(name: str, kind: str) -> None:
    names = Names(name)
    assert normal(names.distribution) == names.distribution
    for path, content in render(names, kind).items():  # type: ignore[arg-type]
        assert "$" not in path
        assert not path.endswith(".tmpl")
        if path.endswith(".safetensors"):
            continue
        text = content.decode()
        left = re.findall(r"\$\w+", text)
        assert left == [], path
        if path.endswith(".py"):
            ast.parse(text)


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(KdkitError, match="exists already"):
        write_plugin("huber", "loss", tmp_path / "mine", catalogue=CATALOGUE)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(KdkitError, match="exists already"):
        write_plugin("huber", "loss", tmp_path / "link", catalogue=CATALOGUE)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["link", "mine"]


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KdkitError, match="no kind of plugin 'teachers'") as caught:
        write_plugin("huber", "teachers", tmp_path / "x", catalogue=CATALOGUE)
    assert caught.value.fix == "did you mean 'teacher'?"
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


def test_a_disk_that_fills_up_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> int:
        if path.name == "LICENSE":
            raise OSError(28, "No space left on device", str(path))
        with open(path, "wb") as handle:
            return handle.write(content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(KdkitError, match="no disk space left"):
        write_plugin("huber", "loss", tmp_path / "x", catalogue=CATALOGUE)
    assert list(tmp_path.iterdir()) == []
