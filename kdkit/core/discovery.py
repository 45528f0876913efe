"""The catalogue: what the installed plugins of entry-point group ``kdkit`` declare.

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
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, distributions
from time import perf_counter
from typing import Any, Literal, get_args

import pluggy

from kdkit.core import contracts, hookspecs
from kdkit.core.errors import ExitCode, KdkitError, did_you_mean

GROUP = "kdkit"
BUILT_IN = "kdkit"
"""The distribution whose plugins are always loaded and whose names nobody can take."""

Family = Literal[
    "loader", "teacher", "student", "aligner", "loss", "rope", "source", "policy", "task", "recipe"
]
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
FAMILIES: tuple[Family, ...] = get_args(Family)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")

Status = Literal["ok", "broken", "disabled", "incompatible"]


@dataclass(frozen=True)
class Entry:
    """One spec and where it comes from.

    Attributes:
        spec: the frozen spec, of its family's type.
        provider: the distribution that declares it.
        version: that distribution's version.
    """

    spec: Any
    provider: str
    version: str

    @property
    def qualified(self) -> str:
        """``distribution:name``, which is never ambiguous."""
        return f"{self.provider}:{self.spec.name}"


@dataclass(frozen=True)
class PluginRecord:
    """What became of one plugin.

    Attributes:
        name: of the entry point.
        distribution, version: who installed it.
        error: one line, with ``file:line`` where known; empty unless broken or incompatible.
        milliseconds: spent on importing and asking it.
        hooks: the hooks that it implements.
        provides: family -> names.
        notes: what is worth knowing about a plugin that works.
    """

    name: str
    distribution: str
    version: str
    status: Status
    error: str = ""
    milliseconds: float = 0.0
    hooks: tuple[str, ...] = ()
    provides: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Catalogue:
    """Everything that can be named in a registry or a recipe.

    A short name belongs to the built-in of that name, else to the only plugin that offers it. When several
    offer it, using it is an error that says how to choose: ``distribution:name``.
    """

    records: tuple[PluginRecord, ...]
    contents: Mapping[Family, tuple[Entry, ...]]

    def entries(self, family: str) -> tuple[Entry, ...]:
        """All entries, sorted by name and provider; a name may occur once per provider."""
        return self.contents[_family(family)]

    def names(self, family: str) -> tuple[str, ...]:
        """The short names, sorted."""
        return tuple(dict.fromkeys(entry.spec.name for entry in self.entries(family)))

    def get(self, family: str, name: str) -> Entry:
        """The entry called ``name`` or ``distribution:name``.

        Raises:
            KdkitError: when there is none (with the nearest name), or when several plugins offer it.
        """
        provider, _, short = name.rpartition(":")
        found = [e for e in self.entries(family) if e.spec.name == short and provider in ("", e.provider)]
        if len(found) > 1:
            found = [e for e in found if e.provider == BUILT_IN] or found
        if not found:
            raise self._unknown(family, name)
        if len(found) > 1:
            raise KdkitError(
                f"several plugins provide the {family} '{name}'",
                why=", ".join(f"{e.provider} {e.version}" for e in found),
                fix="say which: " + " or ".join(f"'{e.qualified}'" for e in found),
            )
        return found[0]

    def make(self, family: str, name: str, /, **options: Any) -> Any:
        """Call the factory of ``name`` with the spec's options overridden by ``options``.

        Raises:
            KdkitError: for an unknown name, a factory that cannot be imported, or an unknown option.
        """
        spec = self.get(family, name).spec
        factory = resolve(spec.factory)
        merged = {**spec.options, **options}
        _check_options(f"{family} '{name}'", factory, merged)
        return factory(**merged)

    def _unknown(self, family: str, name: str) -> KdkitError:
        silent = [r.distribution for r in self.records if r.status != "ok"]
        return KdkitError(
            f"unknown {family} '{name}'",
            why=f"not loaded, and may have it: {', '.join(dict.fromkeys(silent))} (see 'kdkit plugins')"
            if silent
            else "",
            fix=did_you_mean(name, self.names(family)),
        )


@cache
def load_catalogue() -> Catalogue:
    """The catalogue of this process, loaded once.

    Environment: ``KDKIT_PLUGINS=name,name`` loads only these (distributions or entry points) and the
    built-ins; ``KDKIT_NO_PLUGINS=1`` the built-ins alone; ``KDKIT_STRICT=1`` makes a failing plugin an error.

    Raises:
        KdkitError: in strict mode.
    """
    allowed = None
    if os.environ.get("KDKIT_NO_PLUGINS", "") not in ("", "0"):
        allowed = frozenset[str]()
    elif "KDKIT_PLUGINS" in os.environ:
        allowed = frozenset(_normal(word) for word in os.environ["KDKIT_PLUGINS"].split(",") if word.strip())
    catalogue = discover(installed(), allowed)
    failed = [record for record in catalogue.records if record.error]
    if failed and os.environ.get("KDKIT_STRICT", "") not in ("", "0"):
        raise KdkitError(
            f"{len(failed)} plugin(s) do not work, and KDKIT_STRICT is set",
            why="; ".join(f"{r.distribution} {r.version} ({r.name}): {r.error}" for r in failed),
            fix="repair or uninstall them, or unset KDKIT_STRICT",
            code=ExitCode.PLUGIN,
        )
    return catalogue


@dataclass(frozen=True)
class Installed:
    """An entry point together with the distribution that it belongs to."""

    point: EntryPoint
    distribution: str
    version: str

    @property
    def built_in(self) -> bool:
        return self.distribution == BUILT_IN


def installed() -> tuple[Installed, ...]:
    """The plugins on ``sys.path``, built-ins first, then by distribution and name; imports none of them.

    Distributions are read one by one, because one with unreadable metadata must not hide the others.
    """
    found: dict[tuple[str, str], Installed] = {}
    for dist in distributions():
        try:
            if f"[{GROUP}]" not in (dist.read_text("entry_points.txt") or ""):
                continue
            name, version = _normal(dist.metadata["Name"]), dist.version
            points = [point for point in dist.entry_points if point.group == GROUP]
        except Exception:  # a damaged installation; pip is the one to complain
            continue
        for point in points:
            found.setdefault((name, point.name), Installed(point, name, version))
    return tuple(sorted(found.values(), key=lambda i: (not i.built_in, i.distribution, i.point.name)))


def discover(plugins: Iterable[Installed], allowed: frozenset[str] | None = None) -> Catalogue:
    """Load ``plugins`` one by one; ``allowed`` holds normalised names of distributions or entry points."""
    records: list[PluginRecord] = []
    contents: dict[Family, list[Entry]] = {family: [] for family in FAMILIES}
    seen: dict[int, str] = {}
    for plugin in plugins:
        record, specs = _load(plugin, allowed, seen)
        for family, spec in specs:
            contents[family].append(Entry(spec, plugin.distribution, plugin.version))
        records.append(record)
    frozen = {
        family: tuple(sorted(entries, key=lambda e: (e.spec.name, e.provider)))
        for family, entries in contents.items()
    }
    return Catalogue(tuple(records), frozen)


def _load(
    plugin: Installed, allowed: frozenset[str] | None, seen: dict[int, str]
) -> tuple[PluginRecord, list[tuple[Family, contracts.Spec]]]:
    record = PluginRecord(plugin.point.name, plugin.distribution, plugin.version, "ok")
    if not (
        plugin.built_in or allowed is None or {plugin.distribution, _normal(plugin.point.name)} & allowed
    ):
        return replace(record, status="disabled"), []
    start = perf_counter()
    specs: list[tuple[Family, contracts.Spec]] = []
    try:
        with redirect_stdout(sys.stderr):  # stdout belongs to the command's data
            module = plugin.point.load()
            _check_api(module)
            if other := seen.get(id(module)):
                raise TypeError(f"it is the same object as plugin {other}")
            seen[id(module)] = f"'{plugin.point.name}' of {plugin.distribution}"
            hooks, specs = _ask(module)
        record = replace(record, hooks=hooks, provides=_provides(specs))
    except KeyboardInterrupt:
        raise
    except _TooNew as error:
        record = replace(record, status="incompatible", error=str(error))
    except BaseException as error:  # SystemExit too: a plugin does not end kdkit
        record, specs = replace(record, status="broken", error=_one_line(error)), []
    return replace(record, milliseconds=round((perf_counter() - start) * 1000, 1)), specs


class _TooNew(Exception):
    """The plugin asks for a plugin API that this kdkit does not have."""


def _check_api(module: object) -> None:
    wanted = getattr(module, "KDKIT_API", hookspecs.PLUGIN_API)
    if not isinstance(wanted, int):
        raise TypeError(f"KDKIT_API must be an integer, not {wanted!r}")
    if wanted > hookspecs.PLUGIN_API:
        raise _TooNew(f"it needs plugin API {wanted}, this kdkit has {hookspecs.PLUGIN_API}; upgrade kdkit")


def _ask(module: object) -> tuple[tuple[str, ...], list[tuple[Family, contracts.Spec]]]:
    """Call every hook of one plugin, through a manager of its own, so that it reaches no other plugin."""
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    manager.check_pending()
    callers = manager.get_hookcallers(module) or []
    hooks = tuple(sorted(caller.name for caller in callers))
    for name in HOOKS:
        if name not in hooks and inspect.isfunction(getattr(module, name, None)):
            raise TypeError(f"{name} is not marked with @hookimpl")
    specs: list[tuple[Family, contracts.Spec]] = []
    for hook in hooks:
        family, kind = HOOKS[hook]
        answers = getattr(manager.hook, hook)()
        if not answers:
            raise TypeError(f"{hook} returned None, not an iterable of {kind.__name__}")
        known: set[str] = set()
        for spec in (spec for answer in answers for spec in answer):
            _check_spec(hook, kind, spec, known)
            specs.append((family, spec))
    return hooks, specs


def _check_spec(hook: str, kind: type[contracts.Spec], spec: object, known: set[str]) -> None:
    if not isinstance(spec, kind):
        raise TypeError(f"{hook} returned a {type(spec).__name__}, not a {kind.__name__}")
    if not isinstance(spec.name, str) or not NAME.fullmatch(spec.name):
        raise ValueError(f"{hook} returned the name {spec.name!r}; names match {NAME.pattern}")
    if spec.name in known:
        raise ValueError(f"{hook} returned '{spec.name}' twice")
    known.add(spec.name)


def _provides(specs: Iterable[tuple[Family, contracts.Spec]]) -> dict[str, tuple[str, ...]]:
    provided: dict[str, tuple[str, ...]] = {}
    for family, spec in specs:
        provided[family] = (*provided.get(family, ()), spec.name)
    return provided


def _one_line(error: BaseException) -> str:
    """``Type: message (file:line)``, the place being the innermost one."""
    message = " ".join(str(error).split())
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""
    return f"{type(error).__name__}: {message}{place}" if message else f"{type(error).__name__}{place}"


def resolve(import_string: str) -> Any:
    """The object named by ``"package.module:attribute"``.

    Raises:
        KdkitError: when the module or the attribute cannot be had.
    """
    module, _, attribute = import_string.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise KdkitError(
            "cannot import what a plugin declares",
            where=import_string,
            why=_one_line(error),
            fix="see 'kdkit plugins' for who declares it",
            code=ExitCode.PLUGIN,
        ) from error
    return found


def _check_options(what: str, factory: Any, options: Mapping[str, Any]) -> None:
    """Say which option is wrong before the factory does any work."""
    try:
        signature = inspect.signature(factory)
        signature.bind(**options)
    except ValueError:  # no signature to be had (a C function): let it speak for itself
        return
    except TypeError as error:
        known = [
            p.name for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        wrong = [option for option in options if option not in known]
        if wrong:
            raise KdkitError(
                f"{what} has no option '{wrong[0]}'", fix=did_you_mean(wrong[0], known)
            ) from error
        raise KdkitError(f"{what}: {error}", why="options: " + ", ".join(known)) from error


def _family(family: str) -> Family:
    for known in FAMILIES:
        if known == family:
            return known
    raise KeyError(f"no such family: {family}")


def _normal(name: str) -> str:
    """A distribution's name as packaging compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
