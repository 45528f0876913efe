"""A registry entry as YAML text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError


def render_entry(name: str, fields: Mapping[str, Any], indent: int) -> list[str]:
    """Lines (without line endings) of ``name: {fields}``, the key at column ``indent``."""
    pad = " " * indent
    if not fields:
        return [f"{pad}{_scalar(name)}: {{}}"]
    inner = [f"{pad}  {_scalar(key)}: {flow(value)}" for key, value in fields.items()]
    return [f"{pad}{_scalar(name)}:", *inner]


def flow(value: Any) -> str:
    """A value on one line, as YAML."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """Plain if YAML reads the same string back, else in double quotes."""
    if not isinstance(value, str):
        return json.dumps(value)
    plain = all(char.isalnum() or char in "._/@:+-" for char in value) and ": " not in value
    if plain and _reads_back(value):
        return value
    return '"' + "".join(_escaped(char) for char in value) + '"'


def _escaped(char: str) -> str:
    """Not JSON's escapes, because YAML has no surrogate pairs."""
    if char in '"\\':
        return "\\" + char
    return char if char.isprintable() and ord(char) < 0xD800 else f"\\U{ord(char):08x}"


def _reads_back(word: str) -> bool:
    try:
        return bool(YAML(typ="safe", pure=True).load(f"{{{word}: [{word}]}}") == {word: [word]})
    except (YAMLError, TypeError):
        return False
