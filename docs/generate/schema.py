"""The page of all keys of ``registry.yaml`` and of recipes, made from their pydantic models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from docs.generate.hooks import comments, escaped, prose
from kdkit.core.project.recipe import Recipe
from kdkit.core.project.registry.schema import Registry

INTRODUCTION = """\
# Keys of the registry and of recipes

*This page is generated from the code.* [Registry and lock](registry.md) and [Recipes](recipes.md) explain the files.
Unknown keys, wrong types and values out of range are errors with file and line.
"""


def page() -> str:
    """A section per model, the outer ones first."""
    lines = [INTRODUCTION]
    for heading, root in (("registry.yaml", Registry), ("A recipe", Recipe)):
        lines += [f"## {heading}", ""]
        schema = root.model_json_schema(by_alias=True)
        for place, model, fields in _sections(root, schema):
            lines += [f"### `{place}`", ""] if place else []
            lines += ["| key | type | default | |", "|---|---|---|---|", *_rows(model, fields, schema), ""]
    return "\n".join(lines)


def _sections(root: type[BaseModel], schema: dict[str, Any]) -> Iterator[tuple[str, type[BaseModel], dict[str, Any]]]:
    """(path of keys, model, JSON schema of its fields) of a model and of all within it."""
    models = {model.__name__: model for model in _models(BaseModel)}
    waiting, seen = [("", root.__name__, schema)], set()
    while waiting:
        place, name, described = waiting.pop(0)
        if "$ref" in described:  # a model that contains itself
            described = schema["$defs"][name]
        yield place, models[name], described
        for key, field in described["properties"].items():
            for inner, suffix in _references(field):
                if inner not in seen and inner != root.__name__:
                    seen.add(inner)
                    waiting.append((f"{place}.{key}".lstrip(".") + suffix, inner, schema["$defs"][inner]))


def _models(base: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for model in base.__subclasses__():
        if model.__module__.startswith("kdkit.core.project"):
            yield model
        yield from _models(model)


def _references(field: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(model, suffix of the key) of the models that a field holds."""
    if "$ref" in field:
        yield field["$ref"].rpartition("/")[2], ""
    for part in (*field.get("anyOf", ()), *field.get("allOf", ())):
        yield from _references(part)
    for key, suffix in (("additionalProperties", ".NAME"), ("items", "[]")):
        if isinstance(field.get(key), dict):
            yield from ((model, suffix + rest) for model, rest in _references(field[key]))


def _rows(model: type[BaseModel], described: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    documented = {name: text for owner in reversed(model.__mro__) for name, text in _documented(owner).items()}
    names = {field.alias or name: name for name, field in model.model_fields.items()}
    for key, field in described["properties"].items():
        info = model.model_fields[names[key]]
        default = "required" if info.is_required() else f"`{_default(info.get_default(call_default_factory=True))}`"
        text = prose(documented.get(names[key], "")).replace("\n", " ")
        yield f"| `{key}` | {escaped(_type(field, schema))} | {f'`{default}`' if default else ''} | {escaped(text)} |"


def _documented(owner: type[Any]) -> dict[str, str]:
    return comments(owner) if owner.__module__.startswith("kdkit.") else {}


def _default(value: Any) -> str:
    """A default as YAML has it."""
    if isinstance(value, BaseModel):
        return "{}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(list(value) if isinstance(value, tuple) else value) or '""'


def _type(field: dict[str, Any], schema: dict[str, Any]) -> str:
    """A JSON schema in words: ``number, > 0``; ``one of a, b``; ``list of strings``."""
    if "$ref" in field:
        return "section"
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return "one of " + ", ".join(f"`{value}`" for value in field["enum"])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(_type(part, schema) for part in field["anyOf"] if part.get("type") != "null"))
    kind = str(field.get("type", "any"))
    if kind == "array":
        return f"list of {_type(field['items'], schema)}s" if "items" in field else "list"
    if kind == "object":
        inner = field.get("additionalProperties")
        return f"names -> {_type(inner, schema)}" if isinstance(inner, dict) and inner else "mapping"
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    return ", ".join([kind, *(f"{sign} {field[name]:g}" for name, sign in signs.items() if name in field)])
