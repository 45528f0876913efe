"""Importing one plugin and asking it what it declares, and what to say when that does not work."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from importlib.metadata import EntryPoint

import pluggy

from kdkit.core import contracts
from kdkit.core.base.errors import did_you_mean
from kdkit.core.contracts import hookspecs
from kdkit.core.plugin_system.catalogue import BUILT_IN, Family, one_line
from kdkit.core.plugin_system.installed import Installed
from kdkit.core.plugin_system.requirements import unmet

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
Answer = tuple[object, tuple[str, ...], list[Declared]]
"""The module (or other object) that an entry point names, the hooks that it implements, what they declare."""


class TooNew(Exception):
    """The plugin asks for a plugin API that this kdkit does not have."""


def ask(plugin: Installed) -> Answer:
    """Import a plugin and call its hooks, through a manager of its own, so that it reaches no other plugin.

    Raises:
        TooNew: it needs a newer plugin API.
        BaseException: whatever else is wrong with it.
    """
    if plugin.distribution == BUILT_IN and not plugin.built_in:
        raise TypeError(f"{plugin.point.value} is no part of kdkit, although its distribution has that name")
    module = plugin.point.load()
    _check_api(module)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    hooks = tuple(sorted(caller.name for caller in manager.get_hookcallers(module) or ()))
    for name in hooks:
        if name not in HOOKS:
            raise TypeError(f"unknown hook '{name}'; {did_you_mean(name, tuple(HOOKS))}")
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
    return module, hooks, declared


def _check_api(module: object) -> None:
    wanted = getattr(module, "KDKIT_API", hookspecs.PLUGIN_API)
    if not isinstance(wanted, int):
        raise TypeError(f"KDKIT_API must be an integer, not {wanted!r}")
    if wanted > hookspecs.PLUGIN_API:
        raise TooNew(f"it needs plugin API {wanted}, and this kdkit has {hookspecs.PLUGIN_API}; upgrade kdkit")


def _check_spec(hook: str, kind: type[contracts.Spec], spec: object) -> None:
    if not isinstance(spec, kind):
        raise TypeError(f"{hook} returned a {type(spec).__name__}, not a {kind.__name__}")
    if not isinstance(spec.name, str) or not NAME.fullmatch(spec.name):
        raise ValueError(f"{hook} returned the name {spec.name!r}; names match {NAME.pattern}")


def explain(plugin: Installed, error: BaseException) -> str:
    """One line about ``error`` and, where its cause is an incomplete installation, what to install."""
    text = one_line(error)
    if _is_gone(plugin.point, error):
        return f"its entry point {plugin.point.value} does not exist ({text}); reinstall or uninstall it"
    if isinstance(error, (ImportError, AttributeError)) and plugin.point.dist is not None:
        lacking = unmet(plugin.point.dist)
        if lacking:
            needs = ", ".join(f"{wanted} ({found or 'not installed'})" for wanted, found in lacking.items())
            return f"{text}; it requires {needs}: kdkit install {_quoted(lacking)}"
    return text


def _is_gone(point: EntryPoint, error: BaseException) -> bool:
    """The module or the attribute that the entry point names is missing, not something that it imports."""
    if isinstance(error, ModuleNotFoundError):
        return f"{point.module}.".startswith(f"{error.name}.")
    return isinstance(error, AttributeError) and bool(point.attr) and error.name in point.attr.split(".")


def _quoted(requirements: Iterable[str]) -> str:
    return " ".join(f"'{requirement}'" for requirement in requirements)
