"""Finding and loading the installed plugins of entry-point group ``kdkit``.

Every plugin is loaded and asked on its own, in a fixed order. Whatever goes wrong with one (it cannot be
imported, calls ``sys.exit``, hangs, implements an unknown hook, returns something else than specs) is written
into its record and takes away this plugin's specs, nobody else's.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache, partial
from threading import TIMEOUT_MAX
from time import perf_counter, time

from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.plugin_system.catalogue import (
    BUILT_IN,
    FAMILIES,
    Catalogue,
    Entry,
    Family,
    PluginRecord,
    Status,
    normal,
    resolve,
)
from kdkit.core.plugin_system.hang_cache import Hang, forgive, recall, remember
from kdkit.core.plugin_system.installed import Installed, installed
from kdkit.core.plugin_system.loading import HOOKS, Answer, Declared, TooNew, ask, explain
from kdkit.core.plugin_system.time_limit import Failed, Unfinished, run_apart

__all__ = [
    "BUILT_IN",
    "FAMILIES",
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

SECONDS = 10.0
"""How long one plugin may take; ``KDKIT_PLUGIN_SECONDS`` changes it."""


@cache
def load_catalogue() -> Catalogue:
    """The catalogue of this process, loaded once.

    Environment: ``KDKIT_PLUGINS=name,name`` loads only these (distributions or entry points) and the
    built-ins; ``KDKIT_NO_PLUGINS=1`` the built-ins alone; ``KDKIT_STRICT=1`` makes a failing plugin an error;
    ``KDKIT_PLUGIN_SECONDS`` is how long one may take.

    Raises:
        KdkitError: one that is asked for by name is not installed; in strict mode, a broken or incompatible one.
    """
    allowed = None
    if _is_set("KDKIT_NO_PLUGINS"):
        allowed = frozenset[str]()
    elif "KDKIT_PLUGINS" in os.environ:
        allowed = frozenset(normal(word) for word in os.environ["KDKIT_PLUGINS"].split(",") if word.strip())
    plugins = installed()
    _require_installed(allowed or frozenset(), plugins)
    catalogue = discover(plugins, allowed, seconds=_limit())
    failed = [record for record in catalogue.records if record.error]
    if failed and _is_set("KDKIT_STRICT"):
        raise KdkitError(
            "KD-PLUG-007",
            f"{len(failed)} plugin{'s do' if len(failed) > 1 else ' does'} not work",
            why="; ".join(f"{r.name} of {r.distribution} {r.version}: {r.error}" for r in failed),
            fix="repair or uninstall, or unset KDKIT_STRICT to go on without",
            code=ExitCode.PLUGIN,
        )
    return catalogue


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


def _limit() -> float:
    told = os.environ.get("KDKIT_PLUGIN_SECONDS") or SECONDS
    try:
        seconds = float(told)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise KdkitError("KD-PLUG-008", f"'{told}' is no number of seconds above 0", where="KDKIT_PLUGIN_SECONDS")
    return min(seconds, TIMEOUT_MAX)


def _require_installed(wanted: frozenset[str], plugins: tuple[Installed, ...]) -> None:
    known = {name for plugin in plugins for name in (plugin.distribution, normal(plugin.point.name))}
    for name in sorted(wanted - known):
        raise KdkitError(
            "KD-PLUG-009",
            f"the plugin '{name}' is not installed",
            where="KDKIT_PLUGINS",
            fix=did_you_mean(name, sorted(known)),
            code=ExitCode.PLUGIN,
        )


def discover(
    plugins: Iterable[Installed], allowed: frozenset[str] | None = None, *, seconds: float = SECONDS
) -> Catalogue:
    """Load ``plugins`` one by one.

    Args:
        allowed: normalized names of distributions or entry points; None allows all. Built-ins always are.
        seconds: how long one that is not built in may take.
    """
    records: list[PluginRecord] = []
    contents: dict[Family, list[Entry]] = {family: [] for family in FAMILIES}
    seen: list[tuple[object, str]] = []
    for plugin in plugins:
        record = PluginRecord(plugin.point.name, plugin.distribution, plugin.version, "ok")
        if not plugin.allowed_by(allowed):
            records.append(replace(record, status="disabled"))
            continue
        record, declared = _load(plugin, record, seen, seconds)
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


def _load(
    plugin: Installed, record: PluginRecord, seen: list[tuple[object, str]], seconds: float
) -> tuple[PluginRecord, list[Declared]]:
    """Import and ask one plugin; ``seen`` holds the objects loaded so far and who brought them."""
    start = perf_counter()
    declared: list[Declared] = []
    try:
        module, hooks, declared = _ask(plugin, seconds)
        for earlier, who in seen:
            if earlier is module:
                raise TypeError(f"{plugin.point.value} is already registered, as {who}")
        seen.append((module, f"'{plugin.point.name}' of {plugin.distribution}"))
        record = replace(record, hooks=hooks, provides=_by_family(declared))
    except Exception as raised:
        error = raised.error if isinstance(raised, Failed) else raised
        status: Status = "incompatible" if isinstance(error, TooNew) else "broken"
        text = str(error) if isinstance(error, (TooNew, _Hung)) else explain(plugin, error)
        record, declared = replace(record, status=status, error=text), []
    return replace(record, milliseconds=round((perf_counter() - start) * 1000, 1)), declared


class _Hung(Exception):
    """The plugin did not finish importing."""

    def __init__(self, hang: Hang, plugin: Installed) -> None:
        again = f"'kdkit plugins verify {plugin.distribution}'"
        super().__init__(f"{hang}; left out for a day or until it changes: {again} tries again")


def _ask(plugin: Installed, seconds: float) -> Answer:
    """:func:`ask`, for a stranger's plugin with a limit of time; one that hung lately is not tried again."""
    if plugin.built_in:
        return ask(plugin)
    if known := recall(plugin, seconds):
        raise _Hung(known, plugin)
    try:
        answer = run_apart(partial(ask, plugin), seconds, plugin.point.module.partition(".")[0])
    except Unfinished as late:
        hang = Hang(time(), seconds, late.place)
        remember(plugin, hang)
        raise _Hung(hang, plugin) from None
    forgive(plugin)
    return answer


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
                who = f"kdkit's own {family} '{name}' keeps the name"
                if entry.provider != BUILT_IN:
                    who = f"{entry.provider} has a {family} '{name}' too"
                notes.append(f"{who}: say '{record.distribution}:{name}'")
    return tuple(notes)
