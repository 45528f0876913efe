"""Finding and loading the installed plugins of entry-point group ``kdkit``.

Every plugin is loaded and asked on its own, in a fixed order. Whatever goes wrong with one (it cannot be
imported, calls ``sys.exit``, implements an unknown hook, returns something else than specs) is written into
its record and takes away this plugin's specs, nobody else's.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, distributions
from time import perf_counter

import pluggy

from kdkit.core import contracts, hookspecs
from kdkit.core.catalogue import (
    BUILT_IN,
    FAMILIES,
    Catalogue,
    Entry,
    Family,
    PluginRecord,
    normal,
    one_line,
    resolve,
)
from kdkit.core.errors import ExitCode, KdkitError

__all__ = [
    "BUILT_IN",
    "FAMILIES",
    "GROUP",
    "HOOKS",
    "Catalogue",
    "Entry",
    "Family",
    "Installed",
    "PluginRecord",
    "discover",
    "installed",
    "load_catalogue",
    "resolve",
]

GROUP = "kdkit"
HOOKS: Mapping[str, tuple[Family, type[contracts.Spec]]] = {
    "kdkit_loaders": ("loader", contracts.LoaderSpec),
    "kdkit_teachers": ("teacher", contracts.TeacherSpec),
    "kdkit_students": ("student", contracts.StudentSpec),
    "kdkit_aligners": ("aligner", contracts.AlignerSpec),
    "kdkit_losses": ("loss", contracts.LossSpec),
    "kdkit_rope_variants": ("rope", contracts.RopeSpec),
    "kdkit_sources": ("source", contracts.SourceSpec),
    "kdkit_trust_policies": ("policy", contracts.TrustPolicySpec),
    "kdkit_tasks": ("task", contracts.TaskSpec),
    "kdkit_recipes": ("recipe", contracts.RecipeSpec),
}
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
Declared = tuple[Family, contracts.Spec]


@dataclass(frozen=True)
class Installed:
    """A plugin on disk: an entry point, and the distribution (by its normalised name) that it belongs to."""

    point: EntryPoint
    distribution: str
    version: str

    @property
    def built_in(self) -> bool:
        return self.distribution == BUILT_IN

    def allowed_by(self, allowed: frozenset[str] | None) -> bool:
        """Built-ins always are."""
        return self.built_in or allowed is None or bool({self.distribution, normal(self.point.name)} & allowed)


@cache
def load_catalogue() -> Catalogue:
    """The catalogue of this process, loaded once.

    Environment: ``KDKIT_PLUGINS=name,name`` loads only these (distributions or entry points) and the
    built-ins; ``KDKIT_NO_PLUGINS=1`` the built-ins alone; ``KDKIT_STRICT=1`` makes a failing plugin an error.

    Raises:
        KdkitError: in strict mode, when a plugin is broken or incompatible.
    """
    allowed = None
    if _is_set("KDKIT_NO_PLUGINS"):
        allowed = frozenset[str]()
    elif "KDKIT_PLUGINS" in os.environ:
        allowed = frozenset(normal(word) for word in os.environ["KDKIT_PLUGINS"].split(","))
    catalogue = discover(installed(), allowed)
    failed = [record for record in catalogue.records if record.error]
    if failed and _is_set("KDKIT_STRICT"):
        raise KdkitError(
            f"{len(failed)} plugin{'s do' if len(failed) > 1 else ' does'} not work",
            why="; ".join(f"{r.name} of {r.distribution} {r.version}: {r.error}" for r in failed),
            fix="repair or uninstall, or unset KDKIT_STRICT to go on without",
            code=ExitCode.PLUGIN,
        )
    return catalogue


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def installed() -> tuple[Installed, ...]:
    """The plugins on ``sys.path``, built-ins first, then by distribution and name; imports none of them.

    Distributions are read one by one, because one with unreadable metadata must not hide the others.
    """
    found: dict[tuple[str, str], Installed] = {}
    for dist in distributions():
        try:
            if f"[{GROUP}]" not in (dist.read_text("entry_points.txt") or ""):
                continue
            name, version = normal(dist.metadata["Name"]), dist.version
            points = [point for point in dist.entry_points if point.group == GROUP]
        except Exception:  # a damaged installation; pip is the one to complain
            continue
        for point in points:
            found.setdefault((name, point.name), Installed(point, name, version))
    return tuple(sorted(found.values(), key=lambda p: (not p.built_in, p.distribution, p.point.name)))


def discover(plugins: Iterable[Installed], allowed: frozenset[str] | None = None) -> Catalogue:
    """Load ``plugins`` one by one; ``allowed`` holds normalised names of distributions or entry points."""
    records: list[PluginRecord] = []
    contents: dict[Family, list[Entry]] = {family: [] for family in FAMILIES}
    seen: list[tuple[object, str]] = []
    for plugin in plugins:
        record = PluginRecord(plugin.point.name, plugin.distribution, plugin.version, "ok")
        if not plugin.allowed_by(allowed):
            records.append(replace(record, status="disabled"))
            continue
        record, declared = _load(plugin, record, seen)
        own = {(f, e.spec.name) for f in contents for e in contents[f] if e.provider == plugin.distribution}
        if twice := [spec.name for family, spec in declared if (family, spec.name) in own]:
            error = f"'{twice[0]}' comes from another plugin of {plugin.distribution} already"
            record, declared = replace(record, status="broken", error=error, provides={}), []
        records.append(record)
        for family, spec in declared:
            contents[family].append(Entry(spec, plugin.distribution, plugin.version))
    return Catalogue(
        tuple(replace(record, notes=_notes(record, contents)) for record in records),
        {
            family: tuple(sorted(entries, key=lambda e: (e.spec.name, e.provider)))
            for family, entries in contents.items()
        },
    )


class _TooNew(Exception):
    """The plugin asks for a plugin API that this kdkit does not have."""


def _load(
    plugin: Installed, record: PluginRecord, seen: list[tuple[object, str]]
) -> tuple[PluginRecord, list[Declared]]:
    """Import and ask one plugin; ``seen`` holds the objects loaded so far and who brought them."""
    start = perf_counter()
    declared: list[Declared] = []
    try:
        with redirect_stdout(sys.stderr):  # stdout belongs to the command's data
            module = plugin.point.load()
            _check_api(module)
            for earlier, who in seen:
                if earlier is module:
                    raise TypeError(f"{plugin.point.value} is already registered, as {who}")
            seen.append((module, f"'{plugin.point.name}' of {plugin.distribution}"))
            hooks, declared = _ask(module)
        record = replace(record, hooks=hooks, provides=_by_family(declared))
    except KeyboardInterrupt:
        raise
    except _TooNew as error:
        record = replace(record, status="incompatible", error=str(error))
    except BaseException as error:  # SystemExit too: a plugin does not end kdkit
        record = replace(record, status="broken", error=one_line(error))
    return replace(record, milliseconds=round((perf_counter() - start) * 1000, 1)), declared


def _check_api(module: object) -> None:
    wanted = getattr(module, "KDKIT_API", hookspecs.PLUGIN_API)
    if not isinstance(wanted, int):
        raise TypeError(f"KDKIT_API must be an integer, not {wanted!r}")
    if wanted > hookspecs.PLUGIN_API:
        raise _TooNew(f"it needs plugin API {wanted}, and this kdkit has {hookspecs.PLUGIN_API}; upgrade kdkit")


def _ask(module: object) -> tuple[tuple[str, ...], list[Declared]]:
    """Call every hook of one plugin, through a manager of its own, so that it reaches no other plugin."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    hooks = tuple(sorted(caller.name for caller in manager.get_hookcallers(module) or ()))
    for name in HOOKS:
        if name not in hooks and inspect.isfunction(getattr(module, name, None)):
            raise TypeError(f"{name} lacks the mark @hookimpl")
    declared: list[Declared] = []
    for hook in hooks:
        family, kind = HOOKS[hook]
        answers = getattr(manager.hook, hook)()
        if not answers:
            raise TypeError(f"{hook} returned None, not an iterable of {kind.__name__}")
        specs = [spec for answer in answers for spec in answer]
        for place, spec in enumerate(specs):
            _check_spec(hook, kind, spec)
            if any(spec.name == earlier.name for earlier in specs[:place]):
                raise ValueError(f"{hook} returned '{spec.name}' twice")
            declared.append((family, spec))
    return hooks, declared


def _check_spec(hook: str, kind: type[contracts.Spec], spec: object) -> None:
    if not isinstance(spec, kind):
        raise TypeError(f"{hook} returned a {type(spec).__name__}, not a {kind.__name__}")
    if not isinstance(spec.name, str) or not NAME.fullmatch(spec.name):
        raise ValueError(f"{hook} returned the name {spec.name!r}; names match {NAME.pattern}")


def _by_family(declared: Iterable[Declared]) -> dict[Family, tuple[str, ...]]:
    names: dict[Family, tuple[str, ...]] = {}
    for family, spec in declared:
        names[family] = (*names.get(family, ()), spec.name)
    return names


def _notes(record: PluginRecord, contents: Mapping[Family, Iterable[Entry]]) -> tuple[str, ...]:
    """Which of a third party's names others have too."""
    if record.distribution == BUILT_IN:
        return ()
    notes = []
    for family, names in record.provides.items():
        for entry in contents[family]:
            if entry.spec.name in names and entry.provider != record.distribution:
                name = entry.spec.name
                notes.append(f"{entry.provider} has a {family} '{name}' too: say '{record.distribution}:{name}'")
    return tuple(notes)
