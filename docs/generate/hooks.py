"""The pages of all hooks, made from the hookspecs, specs, protocols and the templates of ``new-plugin``."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from types import ModuleType
from typing import Any

from kdkit.core import contracts
from kdkit.core.contracts import hookspecs, protocols
from kdkit.core.plugin_system.catalogue import FAMILY_OF, Family
from kdkit.core.plugin_system.discovery import discover
from kdkit.core.plugin_system.loading import HOOKS
from kdkit.core.plugin_system.scaffold.naming import names_for
from kdkit.core.plugin_system.scaffold.write import render
from kdkit.testing.verify import CONTRACTS

PARTS: dict[Family, tuple[str, ...]] = {
    "loader": ("DualEncoder", "TextEncoder", "SignalSource", "SignalSpec", "Sample"),
    "teacher": (),
    "student": ("Student", "Published", "PinnedBase"),
    "aligner": ("Aligner",),
    "loss": ("Loss", "LossInput", "TeacherView"),
    "rope": ("RopeVariant",),
    "source": ("Sample", "ImageLocation"),
    "reader": ("ImageReader", "DecodesImages", "ImageLocation"),
    "policy": ("TrustPolicy", "TrustTable"),
    "task": ("EvaluationTask", "ExplainsSkips", "ModelFeatures", "DomainScore"),
    "recipe": (),
    "suite": (),
}
"""Names of ``kdkit.core.contracts`` that describe the objects of a family."""
MORE: dict[Family, str] = {
    "loader": "`factory` reads the folder only, without network and without pickle. A teacher is a `DualEncoder` (one "
    "vector per image and text), a `TextEncoder` (one per text) or a `SignalSource` (any named arrays per sample).",
    "source": "Always the same samples in the same order, with ids that stay the same; errors name `file:line`.",
    "teacher": "Facts, no code: the loader named by `loader` makes the teacher from the files of `source`.",
    "task": "A task may use `kdkit.core.evaluation.metrics` (accuracy, macro AUC, stratified bootstrap) and "
    "`zero_shot` (class embeddings, probabilities), `retrieval` (exact ranks) and `sampling` (groups, few labels) of "
    "the same package.",
    "recipe": "[Recipes](../recipes.md) describes the file.",
    "suite": "[Suites](../suites.md) describes the file.",
}


INTRODUCTION = """\
# Hooks

*This page is generated from the code.* [Write a plugin](../../howto/write-plugin.md) shows a complete plugin.

A hook takes no argument and returns an iterable of specs, or is a generator. Every spec has a `name` and a one-line
`summary`. A `factory` is called with the options of the spec; a recipe or the registry may override them. An unknown
option is an error before the call. The page of a hook has the fields of its spec, the protocol of the objects and a
complete example.

| hook | returns | content |
|---|---|---|"""


def signature(hook: str) -> str:
    """``kdkit_losses() -> Iterable[LossSpec]``, with the hook's own arguments."""
    return f"{hook}{inspect.signature(getattr(hookspecs, hook))}".replace("'", "").replace("c.", "")


def index() -> str:
    """The list of all hooks."""
    rows = []
    for hook in HOOKS:
        content = _summary(hook).rstrip(".")
        rows.append(f"| [`{hook}`]({hook}.md) | `{signature(hook).partition(' -> ')[2]}` | {content} |")
    return "\n".join([INTRODUCTION, *rows, "", "```{toctree}", ":hidden:", "", *HOOKS, "```", ""])


def _summary(hook: str) -> str:
    """The first line of its docstring."""
    return prose((inspect.getdoc(getattr(hookspecs, hook)) or "").partition("\n")[0])


def page(hook: str) -> str:
    """The whole page, as Markdown."""
    kind = HOOKS[hook]
    family = FAMILY_OF[kind]
    lines = [
        f"# `{signature(hook)}`",
        "",
        _summary(hook),
        "",
        "*This page is generated from the code.* [All hooks](index.md).",
        "",
        f"## `{kind.__name__}`",
        "",
        prose(inspect.getdoc(kind) or ""),
        "",
        *([MORE[family], ""] if family in MORE else []),
        "| field | type | default | |",
        "|---|---|---|---|",
        *_fields(kind),
        "",
    ]
    for name in PARTS[family]:
        lines += [f"## `{name}`", "", *_part(name), ""]
    contract = f"`kdkit.testing.{CONTRACTS[family]}`"
    lines += [
        "## Example",
        "",
        f"`kdkit new-plugin mine --kind {family}` writes this. {contract} checks it, and so does `kdkit plugins verify "
        "kdkit-mine` ([Test a plugin](../../howto/test-plugin.md)).",
        "",
        *_example(family),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _fields(kind: type[Any]) -> Iterator[str]:
    documented = {name: text for owner in reversed(kind.__mro__) for name, text in comments(owner).items()}
    for field in dataclasses.fields(kind):
        if field.name not in documented:
            raise ValueError(f"{kind.__name__}.{field.name} has no docstring")
        default = "required" if _default(field) is dataclasses.MISSING else f"`{_default(field)!r}`"
        text = prose(documented[field.name]).replace("|", "\\|")
        yield f"| `{field.name}` | `{escaped(str(field.type))}` | {default} | {text} |"


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def escaped(text: str) -> str:
    return text.replace("|", "\\|")


def _part(name: str) -> Iterator[str]:
    """A protocol with its methods, or a data class or an alias with its docstring."""
    found: Any = getattr(contracts, name)
    if not inspect.isclass(found):
        yield f"{prose(comments(protocols)[name])}"
        return
    if dataclasses.is_dataclass(found):
        yield f"`{name}({', '.join(f'{field.name}: {field.type}' for field in dataclasses.fields(found))})`"
        yield ""
    yield prose(inspect.getdoc(found) or "")
    if dataclasses.is_dataclass(found):
        return
    yield ""
    for member, value in vars(found).items():
        if isinstance(value, property) or inspect.isfunction(value):
            if member.startswith("_") and member != "__call__":
                continue
            function = value.fget if isinstance(value, property) else value
            assert function is not None
            yield f"- `{_call(member, function, isinstance(value, property))}`" + _docstring(function)


def _call(name: str, function: Any, is_property: bool) -> str:
    whole = inspect.signature(function)
    if is_property:
        return f"{name}: {whole.return_annotation}"
    without_self = whole.replace(parameters=list(whole.parameters.values())[1:])
    return f"{name}{without_self}".replace("'", "")


def _docstring(function: Any) -> str:
    text = inspect.cleandoc(function.__doc__) if function.__doc__ else ""
    return f": {prose(text)}" if text else ""


def prose(text: str) -> str:
    """A docstring as Markdown: single backquotes, and a list where it lists attributes."""
    text = re.sub(r":(?:meth|class|func|data|mod):`([^`]*)`", r"`\1`", text).replace("``", "`")
    head, marker, attributes = text.partition("\nAttributes:\n")
    lines = [" ".join(part.split()) for part in head.strip().split("\n\n")]
    if marker:
        items = re.sub(r"\n {8,}", " ", attributes.rstrip())
        listed, _, rest = items.partition("\n\n")
        lines.append("\n".join(re.sub(r"^ +([\w, ]+): ", r"- `\1`: ", line) for line in listed.splitlines()))
        lines += [" ".join(part.split()) for part in rest.strip().split("\n\n") if part.strip()]
    return "\n\n".join(lines)


@cache
def comments(owner: type[Any] | ModuleType) -> dict[str, str]:
    """Name -> the string that stands under its assignment, in a class or a module."""
    if owner is object:
        return {}
    body: list[ast.stmt] = ast.parse(dedent(inspect.getsource(owner))).body
    if not isinstance(owner, ModuleType):
        assert isinstance(body[0], ast.ClassDef)
        body = body[0].body
    comments = {}
    for statement, follower in pairwise(body):
        target = statement.target if isinstance(statement, ast.AnnAssign) else None
        if isinstance(statement, ast.Assign):
            target = statement.targets[0] if isinstance(statement.targets[0], ast.Name) else None
        documented = isinstance(follower, ast.Expr) and isinstance(follower.value, ast.Constant)
        if isinstance(target, ast.Name) and documented:
            assert isinstance(follower, ast.Expr)
            assert isinstance(follower.value, ast.Constant)
            comments[target.id] = " ".join(str(follower.value.value).split())
    return comments


def _example(family: Family) -> Iterator[str]:
    """The plugin's own modules as ``kdkit new-plugin`` writes them, and its entry point."""
    files = render(names_for("mine", family, discover([])), family)
    project = files["pyproject.toml"].decode()
    points = project[project.index("[project.entry-points.kdkit]") :].split("\n\n")[0]
    yield from ("`pyproject.toml`, in part", "", "```toml", points.strip(), "```", "")
    for path in sorted(files, key=lambda path: (not path.endswith("__init__.py"), path)):
        language = {".py": "python", ".yaml": "yaml"}.get(Path(path).suffix)
        if language and path.startswith("kdkit_mine/") and not path.endswith("make_weights.py"):
            yield from (f"`{path}`", "", f"```{language}", files[path].decode().rstrip(), "```", "")
