"""Replace a data entry in the text of ``registry.yaml``; all bytes outside the entry stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from kdkit.core.base.errors import KdkitError
from kdkit.core.project.registry.load import check_registry
from kdkit.core.project.registry.render import flow


def replace_data_entry(text: str, number: int, entry: Mapping[str, Any]) -> str:
    """``text`` with the data entry ``number``, from 0, replaced.

    Args:
        text: a registry, with its own line endings.
        number: of an entry that exists.
        entry: ``source``, ``path``, and perhaps ``license`` and ``options``.

    Raises:
        KdkitError: its layout cannot be edited safely.
    """
    check_registry(text)
    before = YAML(typ="safe", pure=True).load(text)
    plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in entry.items()}
    expected = {**before, "data": [*before["data"][:number], plain, *before["data"][number + 1 :]]}
    if before == expected:
        return text
    try:
        changed = _replaced(text, number, entry)
        same = YAML(typ="safe", pure=True).load(changed) == expected
    except (YAMLError, IndexError):
        same = False
    if not same:
        raise KdkitError(
            "KD-REG-510",
            "this layout of the registry cannot be edited safely",
            where="registry.yaml",
            fix=f"write this in the place of data entry {number + 1}: - {flow(entry)}",
        )
    check_registry(changed)
    return changed


def _replaced(text: str, number: int, entry: Mapping[str, Any]) -> str:
    """The text with other lines from the entry's first key to its last value."""
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    body = text[len(mark) :]
    root = YAML(typ="safe", pure=True).compose(body)
    data = next(value for key, value in root.value if key.value == "data")
    item = data.value[number]
    start = int(item.start_mark.index)
    end = start + len(body[start : _end(item)].rstrip())  # a block of text ends at the next line that is none of it
    pad = "\r\n" if "\r\n" in body else "\n"
    lines: list[str] = [f"{flow(name)}: {flow(value)}" for name, value in entry.items()]
    if item.flow_style or data.flow_style:
        lines = [flow(entry)]
    new = (pad + " " * int(item.start_mark.column)).join(lines)
    return f"{mark}{body[:start]}{new}{body[end:]}"


def _end(node: Any) -> int:
    """Offset after the last character of a value; the end mark of a block is behind the comments after it."""
    while not getattr(node, "flow_style", True) and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return int(node.end_mark.index)
