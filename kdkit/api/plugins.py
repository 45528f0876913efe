"""What needs no project: recipes and plugins."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kdkit.api.teachers import shorten
from kdkit.core.base.result import Result, ResultRows, Section, Table

if TYPE_CHECKING:
    from kdkit.core.contracts import Reporter
    from kdkit.core.plugin_system.catalogue import (
        Catalogue,
        PluginRecord,  # noqa: F401  # named in quotes
    )
    from kdkit.core.plugin_system.requirements import Frozen  # noqa: F401  # named in quotes
    from kdkit.core.plugin_system.scaffold.write import NewPlugin
    from kdkit.core.project.recipe import Recipe
    from kdkit.testing.verify import Report

SHOWN_NAMES = 5


@dataclass(frozen=True)
class RecipeRow:
    """A recipe that registry.yaml can name."""

    name: str
    summary: str
    provider: str
    stages: tuple[str, ...] = ()
    """Names of its stages; empty without any."""


class RecipeList(ResultRows[RecipeRow]):
    """All recipes."""

    def sections(self) -> list[Section]:
        """One row per recipe."""
        rows = [(row.name, row.summary, ", then ".join(row.stages) or "-", row.provider) for row in self.rows]
        return [Table(("name", "summary", "stages", "provider"), rows)]


@dataclass(frozen=True)
class RecipeText(Result):
    """A recipe and its YAML."""

    recipe: Recipe
    text: str

    def to_json(self) -> dict[str, Any]:
        """The recipe with all defaults."""
        return self.recipe.model_dump(mode="json")

    def sections(self) -> list[Section]:
        """The YAML."""
        return [self.text.rstrip("\n")]


class PluginList(ResultRows["PluginRecord"]):
    """The installed plugins."""

    def to_json(self) -> dict[str, Any]:
        """``plugins``."""
        return {"plugins": super().to_json()}

    def sections(self) -> list[Section]:
        """One row per plugin, then their errors and notes."""
        cells = [
            (
                record.name,
                record.distribution,
                record.version,
                record.status,
                "" if record.status == "disabled" else f"{record.milliseconds:.0f}",
                "; ".join(f"{kind}: {shorten(names, SHOWN_NAMES)}" for kind, names in record.provides.items()) or "-",
            )
            for record in self.rows
        ]
        notes = [f"{r.title}: {note}" for r in self.rows for note in (r.error, *r.notes) if note]
        headers = ("plugin", "distribution", "version", "status", "ms", "provides")
        return [Table(headers, cells, "llllrl"), *([""] if notes else []), *notes]


class Requirements(ResultRows["Frozen"]):
    """kdkit and the distributions with plugins, as requirements for pip."""

    def to_json(self) -> dict[str, Any]:
        """``requirements``."""
        return {"requirements": super().to_json()}

    def sections(self) -> list[Section]:
        """Lines of a requirements file."""
        lines: list[Section] = []
        for row in self.rows:
            lines += [f"# {row.name}=={row.version}, from a folder of this machine"] if row.local else []
            lines.append(row.requirement)
        return lines


@dataclass(frozen=True)
class PluginCheck(Result):
    """The conformance checks of a plugin.

    Attributes:
        report: the checks with their results.
        tests: file whose examples were used.
    """

    report: Report
    tests: Path | None

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return self.report.ok

    def to_json(self) -> dict[str, Any]:
        """``ok`` and the report."""
        return {"ok": self.ok, **asdict(self.report)}

    def sections(self) -> list[Section]:
        """One line per check; skipped checks are counted by reason."""
        report = self.report
        lines: list[Section] = [f"{report.plugin} {report.version}"]
        for subject, checks in groupby(report.checks, key=lambda check: check.subject):
            lines += ["", subject]
            skipped: dict[str, int] = {}
            for check in checks:
                if check.status == "passed":
                    lines.append(f"  passed   {check.summary}")
                elif check.status == "failed":
                    lines += [f"  FAILED   {check.summary}", f"           {check.name}: {check.message}"]
                else:
                    skipped[check.message] = skipped.get(check.message, 0) + 1
            lines += [f"  skipped  {count} check{'s' * (count > 1)}: {reason}" for reason, count in skipped.items()]
        if report.count("skipped") and not (report.broken or self.tests):
            lines += [
                "",
                f"with examples from the plugin's own tests: kdkit plugins verify {report.plugin} --tests FILE",
            ]
        numbers = ", ".join(f"{report.count(status)} {status}" for status in ("passed", "failed", "skipped"))
        return [*lines, "", f"{numbers} in {sum(check.seconds for check in report.checks):.1f} s"]


@dataclass(frozen=True)
class WrittenPlugin(Result):
    """A new plugin package."""

    made: NewPlugin

    @property
    def next(self) -> list[str]:
        """Commands that install, verify and test it."""
        folder = shlex.quote(_nearest(self.made.folder))
        return [
            f"kdkit install -e {folder}",
            f"kdkit plugins verify {self.made.names.distribution}",
            f"pytest {folder}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Names, folder, files and the next commands."""
        made = self.made
        return {
            "distribution": made.names.distribution,
            "module": made.names.module,
            "name": made.names.short,
            "kind": made.kind,
            "folder": made.folder,
            "files": list(made.files),
            "next": self.next,
        }

    def sections(self) -> list[Section]:
        """The files to edit and the next commands."""
        from kdkit.core.plugin_system.scaffold.kinds import KINDS

        made = self.made
        edit = [name for name in made.files if name.startswith(f"{made.names.module}/") and not name.endswith(".typed")]
        what = f"{made.names.distribution}, {KINDS[made.kind].summary}"
        lines = [f"wrote {what}: {len(made.files)} files in {_nearest(made.folder)}", "to edit:"]
        return [*lines, *(f"  {name}" for name in edit), "next:", *(f"  {command}" for command in self.next)]


def _nearest(folder: Path) -> str:
    """Relative if it is below the current folder; with ``./``, so that pip reads a path."""
    try:
        return f"./{folder.relative_to(Path.cwd()).as_posix()}"
    except ValueError:
        return str(folder)


def recipes() -> RecipeList:
    """The recipes that registry.yaml can name.

    Example:
        >>> [row.name for row in recipes()][:2]
        ['captions', 'clinkd']
    """
    from kdkit.core.plugin_system.discovery import load_catalogue

    catalogue = load_catalogue()
    return RecipeList(
        tuple(
            RecipeRow(one.spec.name, one.spec.summary, one.provider, _stages(one.qualified, catalogue))
            for one in catalogue.entries("recipe")
        )
    )


def _stages(name: str, catalogue: Catalogue) -> tuple[str, ...]:
    """Names of a recipe's stages; none of a file that cannot be read, which 'show' explains."""
    from kdkit.core.base.errors import KdkitError
    from kdkit.core.project.recipe_file import read_recipe, recipe_file

    with suppress(KdkitError, OSError):
        recipe, _ = read_recipe(recipe_file(name, catalogue), catalogue)
        return tuple(stage.name for stage in recipe.stages)
    return ()


def show_recipe(name: str) -> RecipeText:
    """A recipe: checked, with its YAML.

    In the folder of a project, names come from the plugins that its registry.lock names.

    Args:
        name: of a recipe, or the path of a YAML file.

    Raises:
        KdkitError: unknown, or a mistake in the file.

    Example:
        >>> show_recipe("clipkd").recipe.losses[0].name
        'clip'
    """
    from kdkit.core.project.project import Project
    from kdkit.core.project.recipe_file import load_recipe, recipe_file

    catalogue = Project.catalogue_at()
    return RecipeText(load_recipe(name, catalogue), recipe_file(name, catalogue).text)


def list_plugins() -> PluginList:
    """The installed plugins: what they provide, and whether they work.

    Example:
        >>> {plugin.status for plugin in list_plugins() if plugin.distribution == "kdkit"}
        {'ok'}
    """
    from kdkit.core.plugin_system.discovery import load_catalogue

    return PluginList(load_catalogue().records)


def verify_plugin(name: str, *, tests: Path | None = None, reporter: Reporter | None = None) -> PluginCheck:
    """Run the conformance checks of :mod:`kdkit.testing` on everything that a plugin provides.

    Args:
        name: a distribution, or an entry point of one.
        tests: a file whose contract classes give examples and options.
        reporter: shows progress.

    Raises:
        KdkitError: no such plugin.

    Example:
        >>> verify_plugin("kdkit-aligners").ok
        True
    """
    from kdkit.core.contracts import Silent
    from kdkit.testing.verify import verify_plugin as verify

    return PluginCheck(verify(name, tests=tests, reporter=reporter or Silent()), tests)


def freeze_plugins() -> Requirements:
    """kdkit and the distributions with plugins as requirements, for ``pip install -r``; loads no plugin.

    Example:
        >>> freeze_plugins()[0].name
        'kdkit'
    """
    from kdkit.core.plugin_system.requirements import freeze

    return Requirements(tuple(freeze()))


def new_plugin(name: str, kind: str, *, to: Path | str | None = None) -> WrittenPlugin:
    """Write a plugin package that installs, works and passes its tests.

    Args:
        name: of the plugin; ``kdkit-`` may precede it.
        kind: teacher, student, aligner, loss, rope, source, policy, task, recipe, suite or loader.
        to: the new folder (default: ``kdkit-NAME``).

    Raises:
        KdkitError: unknown kind, or the folder exists.

    Example:
        >>> new_plugin("stain", "teacher").next[0]
        'kdkit install -e ./kdkit-stain'
    """
    from kdkit.core.plugin_system.scaffold.write import write_plugin

    return WrittenPlugin(write_plugin(name, kind, None if to is None else Path(to)))


__all__: Sequence[str] = ["freeze_plugins", "list_plugins", "new_plugin", "recipes", "show_recipe", "verify_plugin"]
