"""Edits of registry.yaml change exactly the entry."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from kdkit.core.project.registry.edit import add_entry, remove_entry
from kdkit.core.project.registry.load import check_registry
from tests.errors import raises_error

NEW = {"from": "hf:org/repo@main", "domains": ["ct", "no", "1e3"], "options": {"size": 224, "deep": {"a": [1.5, None]}}}

# What may stand behind ``name:``, as lines relative to the key's column (the first goes behind the colon).
BODIES = (
    [""],
    [" {}"],
    [" # only a comment"],
    [" {loader: open_clip}  # one line"],
    [" {loader: open_clip,", "    domains: [ct,", "      mri]}"],
    ["", "  loader: open_clip"],
    ["", "  # its own comment", "  loader: open_clip  # trailing", "", "  domains:", "  - ct", "  - mri # last"],
    ["", "    options: {a: 'it''s # not a comment'}", "    # deeper, after the last key"],
    ["", "  license: >-", "    folded", "    # part of the text", "", "  domains: [ct]"],
    ["", "  license: |", "    literal", "", "    # part of the text", ""],
    ["", '  license: "two', '    lines"', "", "   # deeper comment after a blank line"],
)
NAMES = ("a", "biomedclip", "x-1", "y.2", "zz_top", "plip")


@st.composite
def registries(draw: st.DrawFn) -> tuple[str, list[str]]:
    """(text of a valid registry with a block of teachers, the teachers' names)."""
    indent = " " * draw(st.integers(1, 6))
    junk = st.lists(st.sampled_from(["", "# far left", f"{indent}# level", f"{indent}# plip: {{}}"]), max_size=3)
    names = draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5))
    lines = draw(st.sampled_from([["version: 1"], ["# top", "", "version: 1   # one", "use: research"]]))
    lines = [*lines, f"teachers:{draw(st.sampled_from(['', '  # mine']))}"]
    for name in names:
        body = draw(st.sampled_from(BODIES))
        key = draw(st.sampled_from([name, f'"{name}"']))
        lines += [*draw(junk), f"{indent}{key}:{body[0]}", *(indent + line if line else "" for line in body[1:])]
    lines += draw(junk)
    lines += draw(st.sampled_from([[], ["recipe: kdkit", "# end"], ["data:", "  - source: folder", "    path: x"]]))
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    bom = draw(st.sampled_from(["", "\ufeff"]))
    return bom + newline.join(lines) + draw(st.sampled_from(["", newline])), names


def data(text: str) -> dict[str, object]:
    parsed: dict[str, object] = YAML(typ="safe", pure=True).load(text)
    return parsed


@settings(max_examples=50, deadline=None)
@given(registries())
def test_adding_then_removing_gives_the_same_bytes(registry: tuple[str, list[str]]) -> None:
    text, names = registry
    added = add_entry(text, "new", NEW)
    assert list(check_registry(added).teachers) == [*names, "new"]
    assert remove_entry(added, "new") == text


@settings(max_examples=50, deadline=None)
@given(registries())
def test_adding_keeps_every_line_in_its_order(registry: tuple[str, list[str]]) -> None:
    text, _ = registry
    before, after = text.splitlines(), add_entry(text, "new", NEW).splitlines()
    start = next(i for i, line in enumerate(after) if line.strip() == "new:")
    assert after[:start] + after[start + 1 + len(NEW) :] == before
    assert data(add_entry(text, "new", NEW))["teachers"]["new"] == NEW  # type: ignore[index]


@settings(max_examples=50, deadline=None)
@given(registries(), st.data())
def test_removing_keeps_comments_of_neighbors(registry: tuple[str, list[str]], pick: st.DataObject) -> None:
    text, names = registry
    if not names:
        return
    gone = pick.draw(st.sampled_from(names))
    after = remove_entry(text, gone)
    left = {name: entry for name, entry in data(text)["teachers"].items() if name != gone}  # type: ignore[attr-defined]
    assert (data(after)["teachers"] or {}) == left
    assert {**data(after), "teachers": 0} == {**data(text), "teachers": 0}
    lost = text.splitlines()
    for line in after.splitlines():  # what is left is a subsequence of what was there
        while lost.pop(0) != line:
            pass
    column = len(text.splitlines()[_key_line(text, gone)]) - len(text.splitlines()[_key_line(text, gone)].lstrip())
    shallow = [line for line in text.splitlines() if _is_comment(line) and len(line) - len(line.lstrip()) <= column]
    assert [line for line in after.splitlines() if line in shallow] == shallow


def _key_line(text: str, name: str) -> int:
    return next(i for i, line in enumerate(text.splitlines()) if line.strip().startswith((f"{name}:", f'"{name}":')))


def _is_comment(line: str) -> bool:
    return line.strip().startswith("#")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version: 1\n", "version: 1\nteachers:\n  a: {}\n"),
        ("version: 1", "version: 1\nteachers:\n  a: {}"),
        (
            "version: 1\nteachers: {}  # none\nuse: research\n",
            "version: 1\nteachers:  # none\n  a: {}\nuse: research\n",
        ),
        ("version: 1\nteachers: {}\n", "version: 1\nteachers:\n  a: {}\n"),
        ("version: 1\nteachers: # none\n  # later: {}\n", "version: 1\nteachers: # none\n  # later: {}\n  a: {}\n"),
    ],
)
def test_the_first_teacher(text: str, expected: str) -> None:
    assert add_entry(text, "a", {}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nteachers: {b: {}}\n",
        "version: 1\nteachers: {b: {},\n  c: {}}\n",
        "{version: 1, teachers: {b: {}}}\n",
    ],
)
def test_an_uneditable_layout_is_refused_with_the_lines_to_add(text: str) -> None:
    with raises_error("KD-REG-008", where="registry.yaml") as caught:
        add_entry(text, "a", {"loader": "open_clip"})
    assert "teachers:\n  a:\n    loader: open_clip" in caught.value.fix


def test_anchors_in_use_are_not_removed() -> None:
    text = "version: 1\nteachers:\n  a: &shared {loader: open_clip}\n  b: *shared\n"
    with raises_error("KD-REG-008", where="registry.yaml"):
        remove_entry(text, "a")
    assert remove_entry(text, "b") == text.replace("  b: *shared\n", "")


def test_wrong_names_are_refused() -> None:
    text = "version: 1\nteachers:\n  biomedclip: {}\n"
    with raises_error("KD-REG-006", mentions=("already",)):
        add_entry(text, "biomedclip", {})
    with raises_error("KD-REG-007", mentions=("'biomedclip'",)):
        remove_entry(text, "biomedclp")
    with raises_error("KD-BASE-007", where="registry.yaml:4"):
        add_entry(text, "Bio Med", {})
    with raises_error("KD-BASE-007", where="registry.yaml:5", mentions=("unknown key",)):
        add_entry(text, "b", {"form": "x"})


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.text(max_size=8), st.text(max_size=20) | st.integers() | st.booleans() | st.none(), max_size=4)
)
def test_every_option_reads_back(options: dict[str, object]) -> None:
    added = add_entry("version: 1\n", "a", {"options": options})
    assert check_registry(added).teachers["a"].options == options
