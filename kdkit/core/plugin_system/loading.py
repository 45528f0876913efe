"""Importing one plugin and calling its hooks; describing the error when that fails."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from threading import Timer

import pluggy

from kdkit.core import contracts
from kdkit.core.base.errors import did_you_mean
from kdkit.core.contracts import hookspecs
from kdkit.core.plugin_system.catalogue import FAMILY_OF, Family
from kdkit.core.plugin_system.failures import one_line
from kdkit.core.plugin_system.installed import BUILT_IN, Installed
from kdkit.core.plugin_system.requirements import unmet

HOOKS: Mapping[str, type[contracts.Spec]] = {
    "kdkit_loaders": contracts.LoaderSpec,
    "kdkit_teachers": contracts.TeacherSpec,
    "kdkit_students": contracts.StudentSpec,
    "kdkit_aligners": contracts.AlignerSpec,
    "kdkit_losses": contracts.LossSpec,
    "kdkit_rope_variants": contracts.RopeSpec,
    "kdkit_sources": contracts.SourceSpec,
    "kdkit_image_readers": contracts.ImageReaderSpec,
    "kdkit_trust_policies": contracts.TrustPolicySpec,
    "kdkit_tasks": contracts.TaskSpec,
    "kdkit_recipes": contracts.RecipeSpec,
    "kdkit_suites": contracts.SuiteSpec,
}
"""Hook -> the type of spec that it returns."""
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
SLOW = 10.0
"""Seconds of importing after which a message on stderr names the plugin."""


@dataclass(frozen=True)
class LoadedPlugin:
    """A plugin that works.

    Attributes:
        module: the module (or other object) that the entry point names.
        hooks: names of the hooks that it implements, sorted.
        specs: family -> the specs that its hooks returned.
    """

    module: object
    hooks: tuple[str, ...]
    specs: Mapping[Family, tuple[contracts.Spec, ...]]

    @property
    def provides(self) -> dict[Family, tuple[str, ...]]:
        """Family -> names."""
        return {family: tuple(spec.name for spec in specs) for family, specs in self.specs.items() if specs}


class TooNew(Exception):
    """The plugin needs a newer plugin API than this kdkit has."""


def load_plugin(plugin: Installed) -> LoadedPlugin:
    """Import a plugin and call its hooks, with a plugin manager of its own. Its output goes to stderr.

    Raises:
        TooNew: it needs a newer plugin API.
        BaseException: any other error of the plugin, ``SystemExit`` included.
    """
    if plugin.distribution == BUILT_IN and not plugin.built_in:
        raise TypeError(f"{plugin.point.value} is not part of kdkit, although its distribution has that name")
    with redirect_stdout(sys.stderr), _notice_if_slow(plugin):
        module = plugin.point.load()
        _check_api(module)
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        manager.register(module)
        hooks = tuple(sorted(caller.name for caller in manager.get_hookcallers(module) or ()))
        _check_hooks(module, hooks)
        return LoadedPlugin(module, hooks, {FAMILY_OF[HOOKS[hook]]: _call(manager, hook) for hook in hooks})


@contextmanager
def _notice_if_slow(plugin: Installed) -> Iterator[None]:
    name = f"{plugin.point.name} of {plugin.distribution} {plugin.version}"
    text = f"kdkit: still importing the plugin {name} (Ctrl-C stops; 'kdkit --no-plugins' starts without plugins)"
    timer = Timer(SLOW, print, (text,), {"file": sys.stderr})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _check_api(module: object) -> None:
    wanted = getattr(module, "KDKIT_API", hookspecs.PLUGIN_API)
    if not isinstance(wanted, int):
        raise TypeError(f"KDKIT_API must be an integer, not {wanted!r}")
    if wanted > hookspecs.PLUGIN_API:
        raise TooNew(f"it needs plugin API {wanted}, and this kdkit has {hookspecs.PLUGIN_API}; upgrade kdkit")


def _check_hooks(module: object, hooks: tuple[str, ...]) -> None:
    for name in hooks:
        if name not in HOOKS:
            raise TypeError(f"unknown hook '{name}'; {did_you_mean(name, tuple(HOOKS))}")
    for name in HOOKS:
        if name not in hooks and inspect.isfunction(getattr(module, name, None)):
            raise TypeError(f"{name} lacks the decorator @hookimpl")


def _call(manager: pluggy.PluginManager, hook: str) -> tuple[contracts.Spec, ...]:
    kind = HOOKS[hook]
    results = getattr(manager.hook, hook)()
    if not results:
        raise TypeError(f"{hook} returned None, not an iterable of {kind.__name__}")
    specs = tuple(spec for result in results for spec in result)
    names = set[str]()
    for spec in specs:
        if not isinstance(spec, kind):
            raise TypeError(f"{hook} returned a {type(spec).__name__}, not a {kind.__name__}")
        if not isinstance(spec.name, str) or not NAME.fullmatch(spec.name):
            raise ValueError(f"{hook} returned the name {spec.name!r}; names match {NAME.pattern}")
        if spec.name in names:
            raise ValueError(f"{hook} returned '{spec.name}' twice")
        names.add(spec.name)
    return specs


def explain(plugin: Installed, error: BaseException) -> str:
    """One line about ``error``; for an incomplete installation, also what to install."""
    if isinstance(error, TooNew):
        return str(error)
    text = one_line(error)
    if _entry_point_is_gone(plugin.point, error):
        return f"its entry point {plugin.point.value} does not exist ({text}); reinstall or uninstall it"
    if isinstance(error, (ImportError, AttributeError)) and plugin.point.dist is not None:
        lacking = unmet(plugin.point.dist)
        if lacking:
            needs = ", ".join(f"{wanted} ({found or 'not installed'})" for wanted, found in lacking.items())
            packages = " ".join(f"'{requirement}'" for requirement in lacking)
            return f"{text}; it requires {needs}: kdkit install {packages}"
    return text


def _entry_point_is_gone(point: EntryPoint, error: BaseException) -> bool:
    """The module or the attribute that the entry point names is missing, not something that it imports."""
    if isinstance(error, ModuleNotFoundError):
        return f"{point.module}.".startswith(f"{error.name}.")
    return isinstance(error, AttributeError) and bool(point.attr) and error.name in point.attr.split(".")
