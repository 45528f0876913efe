"""Renders the templates of a new plugin and writes the package atomically."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template

from kdkit.core.base.atomic import new_folder
from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.base.system_errors import system_errors
from kdkit.core.plugin_system.catalogue import Catalogue, Family
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.plugin_system.scaffold.kinds import KINDS
from kdkit.core.plugin_system.scaffold.naming import Names, names_for

TEMPLATES = Path(__file__).parent / "templates"
FILLED_IN = ".tmpl"
"""Ending of files that are ``string.Template``s; others are copied unchanged."""
USAGE = "_usage.md.tmpl"
"""A kind's part of the README, in its folder."""


@dataclass(frozen=True)
class NewPlugin:
    """A package that was written.

    Attributes:
        names: its names.
        kind: the family that it provides.
        folder: its location.
        files: relative POSIX paths, sorted.
    """

    names: Names
    kind: Family
    folder: Path
    files: tuple[str, ...]


def write_plugin(name: str, kind: str, to: Path | None = None, *, catalogue: Catalogue | None = None) -> NewPlugin:
    """Write a package that installs, shows up in ``kdkit plugins`` and passes its own tests.

    Args:
        name: of the plugin, with or without the prefix ``kdkit-``.
        kind: one of :data:`~kdkit.core.plugin_system.scaffold.kinds.KINDS`.
        to: the new folder; by default the distribution's name, in the current folder.
        catalogue: knows the built-in names.

    Raises:
        KdkitError: unknown kind, invalid name, existing folder, full disk; nothing is written.
    """
    family = _known(kind)
    names = names_for(name, family, catalogue or load_catalogue())
    folder = (to or Path(names.distribution)).absolute()
    contents = render(names, family)
    done = NewPlugin(names, family, folder, tuple(sorted(contents)))
    if _is_written(folder, contents):
        return done
    if folder.exists() or folder.is_symlink():
        raise KdkitError(
            "KD-PLUG-018",
            "this folder exists",
            where=str(folder),
            why="existing files are never overwritten",
            fix="name another one with --to, or remove it",
        )
    with system_errors(str(folder)), new_folder(folder) as draft:
        for path, content in contents.items():
            target = draft / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return done


def _is_written(folder: Path, contents: Mapping[str, bytes]) -> bool:
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return paths.keys() == contents.keys() and all(paths[name].read_bytes() == x for name, x in contents.items())


def render(names: Names, kind: Family) -> dict[str, bytes]:
    """Relative POSIX path -> content of every file of a package."""
    values = _values(names, kind)
    usage = (TEMPLATES / kind / USAGE).read_text(encoding="utf-8")
    values["usage"] = Template(usage).substitute(values).strip()
    contents = {}
    for layer in ("common", *KINDS[kind].layers, kind):
        for path, source in _files(TEMPLATES / layer):
            if path == USAGE:
                continue
            content = source.read_bytes()
            if path.endswith(FILLED_IN):
                content = Template(content.decode()).substitute(values).encode()
            contents[Template(path.removesuffix(FILLED_IN)).substitute(values)] = content
    return contents


def _values(names: Names, kind: Family) -> dict[str, str]:
    """Variables of the templates."""
    summary = KINDS[kind].summary
    requirements = ["kdkit", *KINDS[kind].requires]
    return {
        "name": names.short,
        "distribution": names.distribution,
        "module": names.module,
        "kind": kind,
        "summary": summary,
        "Summary": summary[0].upper() + summary[1:],
        "requirements": ", ".join(f'"{requirement}"' for requirement in requirements),
    }


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """(relative POSIX path, file) of a template folder, without bytecode."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(folder).as_posix(), path


def _known(kind: str) -> Family:
    for family in KINDS:
        if family == kind:
            return family
    raise KdkitError("KD-PLUG-019", f"unknown kind of plugin '{kind}'", fix=did_you_mean(kind, tuple(KINDS)))
