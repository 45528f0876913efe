"""The catalogue: the specs of all plugins, by family and name, and the objects behind them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, TypeVar

from kdkit.core import contracts
from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.system_errors import as_kdkit_error
from kdkit.core.plugin_system.failures import lacking_requirements, one_line, plugin_errors
from kdkit.core.plugin_system.installed import BUILT_IN, normal

Family = Literal[
    "loader", "teacher", "student", "aligner", "loss", "rope", "source", "reader", "policy", "task", "recipe", "suite"
]
FAMILY_OF: Mapping[type[contracts.Spec], Family] = {
    contracts.LoaderSpec: "loader",
    contracts.TeacherSpec: "teacher",
    contracts.StudentSpec: "student",
    contracts.AlignerSpec: "aligner",
    contracts.LossSpec: "loss",
    contracts.RopeSpec: "rope",
    contracts.SourceSpec: "source",
    contracts.ImageReaderSpec: "reader",
    contracts.TrustPolicySpec: "policy",
    contracts.TaskSpec: "task",
    contracts.RecipeSpec: "recipe",
    contracts.SuiteSpec: "suite",
}
FAMILIES: tuple[Family, ...] = tuple(FAMILY_OF.values())
S = TypeVar("S", bound=contracts.Spec)
Status = Literal["ok", "broken", "disabled", "incompatible"]


@dataclass(frozen=True)
class Entry:
    """One spec and its origin.

    Attributes:
        spec: of its family's type, checked by the loader of plugins.
        provider: the distribution that declares it.
        version: of the distribution.
    """

    spec: Any
    provider: str
    version: str

    @property
    def qualified(self) -> str:
        """``distribution:name``: the unambiguous name."""
        return f"{self.provider}:{self.spec.name}"


@dataclass(frozen=True)
class PluginRecord:
    """The state of one plugin.

    Attributes:
        name: of the entry point.
        distribution, version: that provide it.
        error: one line, with ``file:line`` if known; empty unless broken or incompatible.
        milliseconds: of importing it and calling its hooks.
        hooks: that it implements.
        provides: family -> names.
        notes: remarks about a working plugin.
    """

    name: str
    distribution: str
    version: str
    status: Status
    error: str = ""
    milliseconds: float = 0.0
    hooks: tuple[str, ...] = ()
    provides: Mapping[Family, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name, distribution and version."""
        return f"{self.name} of {self.distribution} {self.version}"


_MAKING: ContextVar[Catalogue | None] = ContextVar("making", default=None)


def making_catalogue() -> Catalogue | None:
    """The catalogue that calls a factory now, with the project's pins; None outside of a factory."""
    return _MAKING.get()


@dataclass(frozen=True)
class Catalogue:
    """All names that a registry or a recipe can use.

    A short name means the built-in of that name, else the only plugin that provides it. If several plugins provide it,
    using it is an error; ``distribution:name`` is unambiguous.
    """

    records: tuple[PluginRecord, ...]
    contents: Mapping[Family, tuple[Entry, ...]]
    pins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Family -> short name -> the distribution to which the project pins it."""

    def entries(self, family: str) -> tuple[Entry, ...]:
        """All entries, sorted by name and provider; a name occurs once per provider."""
        return self.contents[_known(family)]

    def names(self, family: str) -> tuple[str, ...]:
        """The short names, sorted."""
        return tuple(dict.fromkeys(entry.spec.name for entry in self.entries(family)))

    def get(self, family: str, name: str) -> Entry:
        """The entry called ``name`` or ``distribution:name``.

        Raises:
            KdkitError: there is none, several plugins provide it, or it is pinned to a distribution without it.
        """
        provider, _, short = name.rpartition(":")
        pin = "" if provider else self.pins.get(family, {}).get(short, "")
        provider = normal(provider or pin)
        found = [e for e in self.entries(family) if e.spec.name == short and provider in ("", e.provider)]
        if len(found) > 1:
            found = [entry for entry in found if entry.provider == BUILT_IN] or found
        if not found and pin:
            raise self._moved(family, name, pin)
        if not found:
            raise self._unknown(family, name)
        if len(found) > 1:
            raise KdkitError(
                "KD-PLUG-001",
                f"several plugins provide the {family} '{name}'",
                why=", ".join(f"{e.provider} {e.version}" for e in found),
                fix="write " + " or ".join(f"'{e.qualified}'" for e in found),
            )
        return found[0]

    def spec(self, kind: type[S], name: str) -> S:
        """The spec called ``name``, typed: ``catalogue.spec(LossSpec, "fd").signals``. Raises: as :meth:`get`."""
        spec = self.get(FAMILY_OF[kind], name).spec
        assert isinstance(spec, kind)
        return spec

    def specs(self, kind: type[S]) -> tuple[S, ...]:
        """The specs of all entries of a family, in the order of :meth:`entries`."""
        return tuple(entry.spec for entry in self.entries(FAMILY_OF[kind]))

    def make(self, family: str, name: str, /, **options: Any) -> Any:
        """Call the factory of ``name`` with the spec's options and ``options``.

        Raises:
            KdkitError: an unknown name or option, or a factory that cannot be imported.
        """
        spec = self.get(family, name).spec
        factory = resolve(spec.factory)
        merged = {**spec.options, **options}
        _check_options(f"{family} '{name}'", factory, merged)
        outer = _MAKING.set(self)
        try:
            with plugin_errors(f"{family} '{name}' cannot be made"):
                return factory(**merged)
        finally:
            _MAKING.reset(outer)

    def make_task(self, name: str, **options: Any) -> contracts.EvaluationTask:
        """:meth:`make` of an evaluation task."""
        task: contracts.EvaluationTask = self.make("task", name, **options)
        return task

    def _moved(self, family: str, name: str, pin: str) -> KdkitError:
        states = sorted({record.status for record in self.records if record.distribution == pin})
        others = [entry for entry in self.entries(family) if entry.spec.name == name]
        now = ", ".join(f"{entry.provider} {entry.version}" for entry in others)
        has = f"{pin} is {' and '.join(states) if states else 'not installed'}"
        fixes = ["see 'kdkit plugins'" if states else f"kdkit install {pin}"]
        fixes += [f"write '{entry.qualified}'" for entry in others]
        if len(others) == 1:
            fixes.append(f"accept the present provider: kdkit lock {name}")
        return KdkitError(
            "KD-PLUG-002",
            f"the {family} '{name}' is pinned to {pin}, which does not provide it",
            where="registry.lock",
            why=has.replace(" is ok", " no longer provides it") + (f"; present provider: {now}" if now else ""),
            fix="; or ".join(fixes),
            code=ExitCode.MISSING,
        )

    def default_student(self) -> str:
        """The built-in student family whose spec says ``default``; empty if there is none."""
        found = (entry.spec for entry in self.entries("student") if entry.provider == BUILT_IN)
        return next((spec.name for spec in found if isinstance(spec, contracts.StudentSpec) and spec.default), "")

    def _unknown(self, family: str, name: str) -> KdkitError:
        what = f"unknown {family} '{name}'" if name else f"no {family} is chosen"
        return KdkitError("KD-PLUG-003", what, why=self.not_loaded(), fix=did_you_mean(name, self.names(family)))

    def not_loaded(self) -> str:
        """Why a name may be unknown: the plugins that were not loaded; empty if all were."""
        absent = dict.fromkeys(f"{r.distribution} ({r.status})" for r in self.records if r.status != "ok")
        return (
            f"plugins that were not loaded may provide it: {', '.join(absent)}; see 'kdkit plugins'" if absent else ""
        )


def _known(family: str) -> Family:
    for known in FAMILIES:
        if known == family:
            return known
    raise ValueError(f"no such family: {family!r}")


def resolve(import_string: str) -> Any:
    """The object named by ``"package.module:attribute"``.

    Raises:
        KdkitError: the module cannot be imported, or has no such attribute.
    """
    module, _, attribute = import_string.partition(":")
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        if system := as_kdkit_error(error, import_string):
            raise system from error
        raise KdkitError(
            "KD-PLUG-004",
            "the import string of a plugin cannot be resolved",
            where=import_string,
            why=one_line(error),
            fix=lacking_requirements(error, module) or "repair the plugin; 'kdkit plugins' lists them",
            code=ExitCode.PLUGIN,
        ) from error
    return found


def _check_options(what: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Report a wrong option before the factory does any work."""
    try:
        signature = inspect.signature(factory)
    except ValueError:  # written in C, without a signature
        return
    try:
        signature.bind(**options)
    except TypeError as error:
        open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        known = [p.name for p in signature.parameters.values() if p.kind not in open_ended]
        for wrong in (option for option in options if option not in known):
            raise KdkitError(
                "KD-PLUG-005",
                f"{what} has no option '{wrong}'",
                why="its options are " + ", ".join(known),
                fix=did_you_mean(wrong, known),
            ) from error
        raise KdkitError("KD-PLUG-006", f"{what}: {error}", fix="its options are " + ", ".join(known)) from error
