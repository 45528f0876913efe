"""Options of another type are refused with their line, and invalid texts with their record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from kdkit.core.data import load_index
from kdkit.core.data.option_types import check_types
from kdkit.core.project.project import Project
from tests.core.features.small import paint
from tests.errors import raises_error


class Foreign:
    """A type that pydantic does not know."""


def factory(
    location: Path,
    *,
    task: str | None = None,
    share: float = 0.1,
    limit: int = 3,
    skip: bool = False,
    split: Literal["train", "test"] | None = None,
    columns: Mapping[str, str] | None = None,
    names: Sequence[str] = (),
    anything: Any = None,
    path: Path | str = "x",
    foreign: Foreign | None = None,
) -> None:
    """A source with options of all kinds."""


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("task", 3, "string"),
        ("share", "0.1", "number"),
        ("limit", 0.5, "integer"),
        ("limit", True, "integer"),
        ("skip", "yes", "boolean"),
        ("split", 1, "'train'"),
        ("split", "training", "'train'"),
        ("columns", ["task"], "object"),
        ("columns", {"task": 1}, "string"),
        ("names", "abc", "array"),
        ("path", 7, "path"),
    ],
)
def test_values_of_another_type_are_refused(option: str, value: object, wanted: str) -> None:
    with raises_error("KD-DATA-012", mentions=(f"'{option}'", wanted)):
        check_types("source 'x'", factory, {option: value})


@pytest.mark.parametrize(
    "options",
    [
        {"task": None, "share": 1, "limit": 2, "skip": True, "split": "train", "columns": {"a": "b"}, "names": ["a"]},
        {"anything": 3, "path": "a/b", "names": ("a",), "unknown": 1, "foreign": 3},
    ],
)
def test_fitting_values_and_unknown_types_pass(options: Mapping[str, Any]) -> None:
    check_types("source 'x'", factory, options)


def folder(root: Path, options: str, record: Mapping[str, Any]) -> Project:
    paint(root / "a.png", seed=0)
    (root / "data.json").write_text(json.dumps([record]), encoding="utf-8")
    (root / "registry.yaml").write_text(
        f"version: 1\ndata:\n- source: med-grit\n  path: data.json\n  options: {{{options}}}\n", encoding="utf-8"
    )
    return Project(root)


def test_errors_name_the_line_of_the_entry_or_the_record(tmp_path: Path) -> None:
    good = {"id": "a", "conversations": [["Where?", "left"]]}
    project = folder(tmp_path, "task: vqa, split: train, modality: 3", good)
    with raises_error("KD-DATA-012", where="registry.yaml:3", mentions=("'modality'", "3")) as caught:
        load_index(project)
    assert caught.value.where == "registry.yaml:3"
    half = {"id": "a", "conversations": [["Where?", "left \ud800"]]}
    with raises_error("KD-DATA-006") as caught:
        load_index(folder(tmp_path, "task: vqa, split: train", half))
    assert caught.value.where == f"{tmp_path / 'data.json'}:1, record 1"
    with raises_error("KD-SRC-035", where=f"{tmp_path / 'data.json'}:1, record 1"):
        load_index(folder(tmp_path, "task: vqa, split: train", {**good, "id": "a\0"}))


class Reader:
    """Its attribute has another type than its option."""

    columns: Mapping[str, str]

    def __init__(self, location: Path, columns: str = "", limit: int = 3, level: Literal[1, 2] = 1) -> None:
        self.columns = dict.fromkeys(columns.split(","), "")
        self.rest = (location, limit, level)


def test_options_of_a_class_are_those_of_its_init() -> None:
    check_types("source 'x'", Reader, {"columns": "a,b", "limit": 4, "level": 2})
    with raises_error("KD-DATA-012", mentions=("'limit'", "'x'")):
        check_types("source 'x'", Reader, {"limit": "x"})
