"""The catalogue of all installed plugins.

Plugins are loaded one by one, in a fixed order. When one fails (it cannot be imported, calls ``sys.exit``, implements
an unknown hook, returns something other than specs), its record keeps the error, and its specs are left out. Other
plugins are not affected.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from time import perf_counter

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.plugin_system.catalogue import (
    FAMILIES,
    Catalogue,
    Entry,
    Family,
    PluginRecord,
    Status,
    making_catalogue,
    resolve,
)
from kdkit.core.plugin_system.installed import BUILT_IN, Installed, installed, normal
from kdkit.core.plugin_system.loading import HOOKS, LoadedPlugin, TooNew, explain, load_plugin

__all__ = ["BUILT_IN", "FAMILIES", "HOOKS", "Catalogue", "current_catalogue", "discover", "load_catalogue", "resolve"]


@cache
def load_catalogue() -> Catalogue:
    """The catalogue of this process, loaded once.

    Environment: ``KDKIT_PLUGINS=name,name`` loads only these (distributions or entry points) and the built-ins;
    ``KDKIT_NO_PLUGINS=1`` loads the built-ins alone; ``KDKIT_STRICT=1`` turns a failing plugin into an error.

    Raises:
        KdkitError: a plugin of ``KDKIT_PLUGINS`` is not installed; in strict mode, a broken or incompatible plugin.
    """
    allowed = chosen_plugins()
    require_installed(allowed or ())
    catalogue = discover(installed(), allowed)
    failed = [record for record in catalogue.records if record.error]
    if failed and _is_set("KDKIT_STRICT"):
        raise KdkitError(
            "KD-PLUG-007",
            f"{len(failed)} plugin{'s fail' if len(failed) > 1 else ' fails'} to load",
            why="; ".join(f"{r.name} of {r.distribution} {r.version}: {r.error}" for r in failed),
            fix="repair or uninstall it, or unset KDKIT_STRICT",
            code=ExitCode.PLUGIN,
        )
    return catalogue


def current_catalogue() -> Catalogue:
    """The catalogue for a factory that uses other plugins: that of its project, with the project's pins.

    Outside of a factory it is :func:`load_catalogue`.
    """
    return making_catalogue() or load_catalogue()


def chosen_plugins() -> frozenset[str] | None:
    """Normalized names of the plugins that the environment allows; None allows all."""
    if _is_set("KDKIT_NO_PLUGINS"):
        return frozenset()
    if "KDKIT_PLUGINS" not in os.environ:
        return None
    return frozenset(normal(word) for word in os.environ["KDKIT_PLUGINS"].split(",") if word.strip())


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def require_installed(wanted: Iterable[str]) -> None:
    """Raises: KdkitError when a plugin of ``KDKIT_PLUGINS`` is not installed."""
    known = {name for plugin in installed() for name in (plugin.distribution, normal(plugin.point.name))}
    for name in sorted(set(wanted) - known):
        raise KdkitError(
            "KD-PLUG-009",
            f"the plugin '{name}' is not installed",
            where="KDKIT_PLUGINS",
            why=did_you_mean(name, sorted(known)),
            fix=f"kdkit install {name}",
            code=ExitCode.PLUGIN,
        )


def discover(plugins: Iterable[Installed], allowed: frozenset[str] | None = None) -> Catalogue:
    """Load ``plugins`` one by one.

    Args:
        plugins: what to load.
        allowed: normalized names of distributions or entry points; None allows all. Built-ins always are.
    """
    records: list[PluginRecord] = []
    contents: dict[Family, list[Entry]] = {family: [] for family in FAMILIES}
    modules: list[tuple[object, Installed]] = []
    for plugin in plugins:
        record = PluginRecord(plugin.point.name, plugin.distribution, plugin.version, "ok")
        if not plugin.allowed_by(allowed):
            records.append(replace(record, status="disabled"))
            continue
        start = perf_counter()
        try:
            loaded = load_plugin(plugin)
            _require_new(plugin, loaded, contents, modules)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too
            status: Status = "incompatible" if isinstance(error, TooNew) else "broken"
            record = replace(record, status=status, error=explain(plugin, error))
        else:
            modules.append((loaded.module, plugin))
            record = replace(record, hooks=loaded.hooks, provides=loaded.provides)
            for family, specs in loaded.specs.items():
                contents[family] += [Entry(spec, plugin.distribution, plugin.version) for spec in specs]
        records.append(replace(record, milliseconds=round((perf_counter() - start) * 1000, 1)))
    return Catalogue(
        tuple(replace(record, notes=_notes(record, contents)) for record in records),
        {
            family: tuple(sorted(entries, key=lambda e: (e.spec.name, e.provider)))
            for family, entries in contents.items()
        },
    )


def _require_new(
    plugin: Installed,
    loaded: LoadedPlugin,
    contents: Mapping[Family, Iterable[Entry]],
    modules: Iterable[tuple[object, Installed]],
) -> None:
    """A module is registered once; a distribution provides a name once."""
    for module, earlier in modules:
        if module is loaded.module:
            raise ValueError(
                f"{plugin.point.value} is already registered, as '{earlier.point.name}' of {earlier.distribution}"
            )
    for family, names in loaded.provides.items():
        for entry in contents[family]:
            if entry.provider == plugin.distribution and entry.spec.name in names:
                raise ValueError(f"another plugin of {plugin.distribution} provides '{entry.spec.name}' already")


def _notes(record: PluginRecord, contents: Mapping[Family, Iterable[Entry]]) -> tuple[str, ...]:
    """Names of a third-party plugin that other distributions provide too."""
    if record.distribution == BUILT_IN:
        return ()
    notes = []
    for family, names in record.provides.items():
        for entry in contents[family]:
            if entry.spec.name in names and entry.provider != record.distribution:
                name = entry.spec.name
                who = f"kdkit's own {family} '{name}' keeps the name"
                if entry.provider != BUILT_IN:
                    who = f"{entry.provider} has a {family} '{name}' too"
                notes.append(f"{who}: write '{record.distribution}:{name}'")
    return tuple(notes)
