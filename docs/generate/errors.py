"""The page of all errors, made with ``ast`` from every ``KdkitError(...)`` call in the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import kdkit
from kdkit.core.base.errors import ExitCode

SOURCE = Path(kdkit.__file__).parent
ID = re.compile(r"KD-([A-Z]+)-\d{3}")
AREAS = {
    "ALIGN": "Aligners",
    "ANS": "Answers",
    "API": "Python interface",
    "BASE": "Files and YAML",
    "BUNDLE": "Bundles",
    "CLI": "Command line",
    "DATA": "Data",
    "DEMO": "Demo",
    "DIST": "Distillation",
    "EVAL": "Evaluation",
    "FEAT": "Feature store",
    "HUB": "Hub",
    "LABEL": "Pseudo-labels and correction",
    "LOAD": "Loaders",
    "LOSS": "Losses",
    "PLUG": "Plugins",
    "POL": "Trust policies",
    "PROJ": "Project and versions",
    "REG": "Registry and lock",
    "REL": "Releases",
    "ROPE": "RoPE variants",
    "SHARE": "Shared features",
    "SRC": "Data sources",
    "STUD": "Students",
    "TEACH": "Teachers",
    "TEST": "Conformance kit",
    "TRUST": "Trust",
}
INTRODUCTION = """\
# Errors

*This page is generated from the source.* Every error has a stable id. The command line prints it, `--json` prints it as
a field, and Python code reads it from `KdkitError.id`.

```text
error[KD-REG-002]: registry.yaml:19: unknown teacher 'biomedclp'
  why: no installed plugin knows it, and no source is given
  fix: did you mean 'biomedclip'? Or say where it is: --from local:DIR or hf:ORG/REPO
```

A `{name}` in a message stands for a value. [Exit codes](cli.md#exit-codes) are explained with the command line.
"""


@dataclass(frozen=True)
class ErrorSite:
    """One ``KdkitError(...)`` call."""

    path: str
    """Relative to the checkout."""
    line: int
    id: str | None
    """None where the id is no literal."""
    message: str | None
    cause: str
    remedy: str
    codes: tuple[int, ...]


@cache
def error_sites(source: Path = SOURCE) -> tuple[ErrorSite, ...]:
    """All calls in a package, in the order of their ids."""
    sites: list[ErrorSite] = []
    for path in sorted(source.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        sites += [_site(call, scope, path.relative_to(source.parent)) for scope, call in _calls(tree, tree)]
    return tuple(sorted(sites, key=lambda site: (site.id or "", site.path, site.line)))


def page() -> str:
    """Every error under the heading of its area."""
    lines = [INTRODUCTION]
    for area, sites in groupby(error_sites(), key=lambda site: _area(site.id)):
        lines.append(f"## {AREAS.get(area, area)}\n")
        for site in sites:
            lines += [f"### {site.id}\n", f"```text\n{site.message}\n```\n"]
            lines += [f"Cause: {_markdown(site.cause)}\n"] if site.cause else []
            lines += [f"Remedy: {_markdown(site.remedy)}\n"] if site.remedy else []
            lines.append(f"Exit code {' or '.join(map(str, site.codes))}, `{site.path}`\n")
    return "\n".join(lines)


def _area(id: str | None) -> str:
    found = ID.fullmatch(id or "")
    return found[1] if found else ""


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", text)


def _calls(node: ast.AST, scope: ast.AST) -> Iterator[tuple[ast.AST, ast.Call]]:
    """(enclosing function or module, call) of every call of KdkitError."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and ast.unparse(child.func).split(".")[-1] == "KdkitError":
            yield scope, child
        inner = child if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else scope
        yield from _calls(child, inner)


def _site(call: ast.Call, scope: ast.AST, path: Path) -> ErrorSite:
    given = dict(zip(("id", "what"), call.args, strict=False))
    given |= {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    id = given.get("id")
    texts = {name: _text(given[name], scope) if name in given else "" for name in ("what", "why", "fix")}
    return ErrorSite(
        path=path.as_posix(),
        line=call.lineno,
        id=str(id.value) if isinstance(id, ast.Constant) else None,
        message=texts["what"] or None,
        cause=texts["why"],
        remedy=texts["fix"],
        codes=tuple(_codes(given["code"])) if "code" in given else (int(ExitCode.USAGE),),
    )


def _codes(node: ast.expr) -> Iterator[int]:
    if isinstance(node, ast.IfExp):
        yield from _codes(node.body)
        yield from _codes(node.orelse)
    elif isinstance(node, ast.Attribute) and node.attr in ExitCode.__members__:
        yield int(ExitCode[node.attr])


def _text(node: ast.expr, scope: ast.AST, depth: int = 0) -> str:
    """A string expression for the page: ``{name}`` where it is not literal, `` / `` between alternatives."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, scope, depth) for part in parts)
        case ast.FormattedValue(value=value):
            return _part(value)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _text(left, scope, depth) + _text(right, scope, depth)
        case ast.IfExp(body=body, orelse=orelse):
            return _either(_text(body, scope, depth), _text(orelse, scope, depth))
        case ast.BoolOp(values=values):
            return _either(*(_text(value, scope, depth) for value in values))
        case ast.Name(id=name) if depth < 2:
            values = _assigned(name, scope)
            if values:
                return _either(*(_text(value, scope, depth + 1) for value in values))
    return _part(node)


def _either(*texts: str) -> str:
    return " / ".join(dict.fromkeys(filter(None, texts)))


def _part(node: ast.expr) -> str:
    """A value within a message: ``{name}``, or the literals among which the code chooses."""
    match node:
        case ast.IfExp(body=ast.Constant(value=str(first)), orelse=ast.Constant(value=str(second))):
            return f"{first}/{second}" if first and second else f"({first or second})"
        case ast.BinOp(left=ast.Constant(value=str(plural)), op=ast.Mult()):
            return f"({plural})"
        case ast.Call(func=ast.Name(id="did_you_mean")):
            return "did you mean '{name}'?"
    return f"{{{_name(node)}}}"


def _name(node: ast.AST) -> str:
    """A short name for an expression: ``paths`` for ``', '.join(sorted(self.paths))``, ``count`` for ``len(...)``."""
    match node:
        case ast.Name(id=name):
            return name.strip("_").lower()
        case ast.Attribute(value=ast.Call(func=ast.Name(id="type")), attr="__name__"):
            return "type"
        case ast.Attribute(value=value, attr=name):
            return _name(value) if name in {"what", "why", "fix", "args"} else name.strip("_")
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            return key
        case ast.Subscript(value=value):
            return _name(value)
        case ast.Call(func=ast.Name(id="len" | "sum")):
            return "count"
        case ast.Call(
            func=ast.Name(id="str" | "int" | "name_some" | "sorted" | "repr" | "min" | "max"), args=[value, *_]
        ):
            return _name(value)
        case ast.Call(func=ast.Attribute(attr="join"), args=[value, *_]):
            return _name(value)
        case ast.Call(func=ast.Attribute(value=value, attr="strip" | "splitlines" | "get" | "split")):
            return _name(value)
        case ast.Call(func=function):
            return _name(function)
        case ast.GeneratorExp(elt=value) | ast.ListComp(elt=value) | ast.BinOp(left=value) | ast.IfExp(body=value):
            return _name(value)
        case ast.BoolOp(values=[value, *_]) | ast.JoinedStr(values=[ast.FormattedValue(value=value), *_]):
            return _name(value)
    return "value"


def _assigned(name: str, scope: ast.AST) -> list[ast.expr]:
    """The values that a function assigns to a local name."""
    return [
        statement.value
        for statement in ast.walk(scope)
        if isinstance(statement, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)
    ]
