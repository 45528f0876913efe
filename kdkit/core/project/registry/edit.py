"""Add and remove a teacher in the text of ``registry.yaml``; all bytes outside the entry stay.

The YAML parser gives the positions, and the edit is a slice of the text. The result is parsed again: if it differs from
the original by more than the entry, nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import CollectionNode

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.project.registry.load import check_registry
from kdkit.core.project.registry.render import render_entry

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

TEACHERS = "teachers"


def add_entry(text: str, name: str, fields: Mapping[str, Any]) -> str:
    """``text`` with the teacher ``name`` added after the last one.

    Args:
        text: a registry, with its own line endings.
        name: the new teacher.
        fields: its keys as in the file (``from``, ``loader``, ``domains`` ...).

    Raises:
        KdkitError: the registry has the teacher, or its layout cannot be edited safely.
    """
    check_registry(text)
    data = _data(text)
    if name in (data.get(TEACHERS) or {}):
        raise KdkitError(
            "KD-REG-006",
            f"the registry already has a teacher '{name}'",
            where="registry.yaml",
            fix=f"kdkit remove-teacher {name}",
        )
    changed = _with_bom_aside(text, lambda body: _insert(body, name, fields))
    expected = {**data, TEACHERS: {**(data.get(TEACHERS) or {}), name: _plain(fields)}}
    by_hand = "\n".join(["add this by hand:", f"{TEACHERS}:", *render_entry(name, fields, 2)])
    return _checked(changed, expected, fix=by_hand)


def has_entry(text: str, name: str, fields: Mapping[str, Any]) -> bool:
    """Whether ``text`` has the teacher ``name`` with exactly these fields."""
    teachers = _data(text).get(TEACHERS) or {}
    return name in teachers and (teachers[name] or {}) == _plain(fields)


def remove_entry(text: str, name: str) -> str:
    """``text`` without the teacher ``name``; comments above it and above the next entry stay.

    Raises:
        KdkitError: no such teacher, or the layout cannot be edited safely.
    """
    check_registry(text)
    data = _data(text)
    teachers = data.get(TEACHERS) or {}
    if name not in teachers:
        raise KdkitError(
            "KD-REG-007",
            f"no teacher '{name}' in the registry",
            where="registry.yaml",
            why=did_you_mean(name, tuple(teachers)),
            fix="'kdkit teachers' lists them",
        )
    changed = _with_bom_aside(text, lambda body: _cut(body, name))
    left = {key: value for key, value in teachers.items() if key != name}
    return _checked(changed, {**data, TEACHERS: left or None}, fix=f"remove '{name}' by hand")


def _with_bom_aside(text: str, edit: Callable[[str], str]) -> str:
    bom = "\ufeff" if text.startswith("\ufeff") else ""
    return bom + edit(text[len(bom) :])


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _checked(changed: str, expected: Mapping[str, Any], fix: str) -> str:
    refusal = KdkitError(
        "KD-REG-008",
        "this layout of the registry cannot be edited safely",
        where="registry.yaml",
        why="kdkit edits 'teachers' only as a block with one key per line",
        fix=fix,
    )
    try:
        got = _data(changed)
    except YAMLError:
        raise refusal from None
    # Order matters as well as content.
    same_order = list(got.get(TEACHERS) or {}) == list(expected[TEACHERS] or {})
    if got != expected or not same_order:
        raise refusal
    check_registry(changed)
    return changed


def _data(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


# ------------------------------------------------------------------------------------ where to cut


def _insert(text: str, name: str, fields: Mapping[str, Any]) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    key, value = _item(YAML(typ="safe", pure=True).compose(text), TEACHERS)
    if key is None:
        lines = [f"{TEACHERS}:", *render_entry(name, fields, 2)]
        return _splice(text, len(text), lines, newline)
    if _is_block(value):
        indent = value.value[-1][0].start_mark.column
        _, end = _span(text, *value.value[-1])
        return _splice(text, end, render_entry(name, fields, indent), newline)
    if value.end_mark.index > value.start_mark.index:
        # Only the empty flow mapping ``{}`` can become a block; _checked refuses all else.
        text = text[: value.start_mark.index].rstrip(" ") + text[value.end_mark.index :]
    end = _after_comments(text, _line_end(text, key.end_mark.index), key.start_mark.column)
    return _splice(text, end, render_entry(name, fields, key.start_mark.column + 2), newline)


def _splice(text: str, at: int, lines: list[str], newline: str) -> str:
    """Insert lines at ``at``: the start of a line, or the end of a text without final line ending."""
    block = newline.join(lines)
    if at == 0 or text[at - 1] == "\n":
        return text[:at] + block + newline + text[at:]
    return text[:at] + newline + block + text[at:]


def _cut(text: str, name: str) -> str:
    _, value = _item(YAML(typ="safe", pure=True).compose(text), TEACHERS)
    key, entry = _item(value, name)
    start, end = _span(text, key, entry)
    if end == len(text) and not text.endswith("\n"):
        # Without a final line ending before, there is none after.
        start -= 2 if text[:start].endswith("\r\n") else 1
    return text[:start] + text[end:]


def _span(text: str, key: Node, value: Node) -> tuple[int, int]:
    """(start, end) of the entry's lines, including comments that are indented deeper than its key."""
    start = text.rfind("\n", 0, key.start_mark.index) + 1
    return start, _after_comments(text, _line_end(text, _content_end(key, value)), key.start_mark.column)


def _after_comments(text: str, at: int, column: int) -> int:
    """End of the last comment line after ``at`` that is indented deeper than ``column``."""
    end = at
    while at < len(text):
        stop = _line_end(text, at)
        line = text[at:stop]
        stripped = line.lstrip(" ")
        if stripped.startswith("#") and len(line) - len(stripped) > column:
            end = stop
        elif line.strip():
            break
        at = stop
    return end


def _content_end(key: Any, value: Any) -> int:
    """Offset of the last character of an entry; the end mark of a block is behind the comments after it."""
    while _is_block(value):
        last = value.value[-1]
        key, value = last if isinstance(last, tuple) else (last, last)
    end = max(int(value.end_mark.index), int(key.end_mark.index))
    if getattr(value, "style", None) in ("|", ">"):
        return end - 1
    if value.end_mark.index == value.start_mark.index:
        return int(key.end_mark.index)  # nothing after the colon
    return end


def _line_end(text: str, at: int) -> int:
    """Offset just after the line ending at or after ``at``; the end of the text if there is none."""
    found = text.find("\n", at)
    return len(text) if found < 0 else found + 1


def _is_block(node: Any) -> bool:
    return isinstance(node, CollectionNode) and not node.flow_style and bool(node.value)


def _item(mapping: Any, name: str) -> tuple[Any, Any]:
    """(key node, value node) of ``name``, or (None, None)."""
    for key, value in getattr(mapping, "value", []):
        if key.value == name:
            return key, value
    return None, None
