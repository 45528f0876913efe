"""registry.yaml: every mistake is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.project.registry.load import check_registry, line_of, load_registry, placed
from tests.errors import raises_error

GOOD = """\
version: 1
use: commercial
student:
  config: {arch: ViT-B-32}
teachers:
  # the generalizt
  biomedclip: {}
  mine:
    from: local:models/mine
    loader: transformers
    options: {precision: bf16}
    domains: [ct, mri]
    license: mit
  later:
data:
  - {source: csv, path: pairs.csv}
prompts:
  default: ["a {domain} image of {label}"]
guard: {tolerance: 0.5, domains: {ct: 2}}
"""


def test_a_whole_registry(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text(GOOD, encoding="utf-8")
    registry = load_registry(path)
    assert list(registry.teachers) == ["biomedclip", "mine", "later"]
    mine = registry.teachers["mine"]
    assert (mine.source, mine.loader, mine.domains) == ("local:models/mine", "transformers", ["ct", "mri"])
    assert registry.teachers["later"] == registry.teachers["biomedclip"]
    assert (registry.use, registry.guard.domains) == ("commercial", {"ct": 2.0})
    lines = {name: line_of(path, "teachers", name) for name in registry.teachers}
    assert lines == {"biomedclip": "registry.yaml:7", "mine": "registry.yaml:8", "later": "registry.yaml:14"}


def test_sections_without_content_are_empty() -> None:
    registry = check_registry("version: 1\nteachers:\ndata:\nprompts:\nstudent:\nguard:\n")
    assert (registry.teachers, registry.data, registry.prompts) == ({}, [], {})
    assert registry == check_registry("version: 1\n")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("version: 1\nteacher: {}\n", 2, ["unknown key", "teacher", "'teachers'"]),
        ("version: 1\nteachers:\n  a:\n    form: x\n", 4, ["unknown key", "form", "'from'"]),
        ("version: 1\ndata:\n- source: csv\n  path: x\n  option: {}\n", 5, ["unknown key", "'options'"]),
        ("version: 2\n", 1, ["version"]),
        ("use: research\n", 1, ["version", "missing"]),
        ("version: 1\nuse: profit\n", 2, ["'research' or 'commercial'"]),
        ("version: 1\n\nteachers:\n  Bad Name: {}\n", 4, ["'Bad Name' is not a name"]),
        ("version: 1\nteachers:\n  a: 3\n", 3, ["teachers.a"]),
        ("version: 1\nteachers:\n  a:\n    domains: ct\n", 4, ["domains", "list"]),
        ("version: 1\nteachers:\n  a:\n    options:\n      when: 2020-01-01\n", 4, ["options"]),
        ("version: 1\nteachers:\n  a: {}\n  a: {}\n", 4, ["'a'", "twice"]),
        ("version: 1\nteachers:\n  a: {\n", 4, ["YAML"]),
        ("version: 1\ndata:\n- source: csv\n  path: x\n  columns: {}\n", 5, ["columns", "under 'options'"]),
        ("version: 1\nteachers:\n\ta: {}\n", 3, ["YAML"]),
        ("version: 1\nprompts:\n  ct:\n  - no class\n", 4, ["{label}"]),
        ("version: 1\nprompts:\n  ct: ['{label} {x}']\n", 3, ["{label}"]),
        ("version: 1\nprompts:\n  ct: ['{label:>999999999}']\n", 3, ["{label}"]),
        ("version: 1\nguard: {tolerance: -1}\n", 2, ["guard.tolerance"]),
        ("version: 1\nguard:\n  by: {sex: -1}\n", 3, ["guard.by.sex"]),
        ("version: 1\nprompts:\n  ct:\n    mass:\n    - '{x}'\n", 5, ["prompts.ct.mass.0"]),
        ("version: 1\nprompts:\n  ct:\n    mass: {negative: [a]}\n", 4, ["prompts.ct.mass.positive"]),
        ("- version: 1\n", 1, ["mapping"]),
        ("", 1, ["mapping"]),
    ],
)
def test_a_mistake_is_reported_with_its_line(text: str, line: int, words: list[str]) -> None:
    with pytest.raises(KdkitError) as caught:
        check_registry(text)
    error = caught.value
    assert error.where == f"registry.yaml:{line}"
    said = f"{error.what} {error.why} {error.fix}"
    assert [word for word in words if word not in said] == []
    assert error.code == ExitCode.USAGE


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with raises_error("KD-REG-010") as caught:
        load_registry(tmp_path / "registry.yaml")
    assert caught.value.code == ExitCode.MISSING
    (tmp_path / "registry.yaml").write_bytes(b"version: 1 # \xff\n")
    with raises_error("KD-REG-011", where="registry.yaml", mentions=("UTF-8",)):
        load_registry(tmp_path / "registry.yaml")


def test_the_registry_line_is_added_to_errors_without_location(tmp_path: Path) -> None:
    path = tmp_path / "registry.yaml"
    path.write_text("version: 1\nstudent:\n  family: x\n", encoding="utf-8")
    for place, expected in (("", "registry.yaml:2"), ("x.csv:7", "x.csv:7")):
        with pytest.raises(KdkitError) as caught, placed(path, "student"):
            raise KdkitError("X-001", "no", where=place, why="because", fix="do", code=ExitCode.MISSING)
        error = caught.value
        assert (error.where, error.what, error.why, error.fix, error.code) == (expected, "no", "because", "do", 3)
