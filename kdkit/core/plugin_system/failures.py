"""Errors of plugins: one line about each, the distribution that raised it, and what to install."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from types import TracebackType

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.system_errors import as_kdkit_error, is_lost_peer
from kdkit.core.plugin_system.installed import Installed, installed
from kdkit.core.plugin_system.requirements import unmet


@contextmanager
def plugin_errors(what: str, called: object = None) -> Iterator[None]:
    """Turn an error that a third-party plugin raises, or its attempt to end the process, into one that names it.

    Errors of kdkit, of its own plugins, of the operating system and of other processes of a run pass.

    Args:
        what: what failed.
        called: the object in use; if it is a plugin's, every error is its own, also where its results do not fit.

    Raises:
        KdkitError: with the plugin's distribution.
    """
    try:
        yield
    except KdkitError:
        raise
    except (Exception, SystemExit) as error:
        plugin = culprit(error) or _owner(called)
        if plugin is None or is_lost_peer(error) or as_kdkit_error(error) is not None:
            raise
        raise KdkitError(
            "KD-PLUG-012",
            f"{what}: {one_line(error)}",
            where=f"{plugin.distribution} {plugin.version}",
            why="this plugin failed",
            fix=lacking_requirements(error, plugin.point.module)
            or f"report it to the authors of {plugin.distribution}; 'kdkit --debug' shows the traceback",
            code=ExitCode.PLUGIN,
        ) from error


def culprit(error: BaseException) -> Installed | None:
    """The third-party plugin that raised ``error``; None if kdkit's own code called what did."""
    trace, plugin, others = error.__traceback__, None, [found for found in installed() if not found.built_in]
    while trace:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if _package(module) == "kdkit":
            plugin = None
        plugin = _plugin_with(module, others) or plugin
        trace = trace.tb_next
    return plugin


def _owner(called: object) -> Installed | None:
    return _plugin_with(type(called).__module__, [found for found in installed() if not found.built_in])


def _plugin_with(module: str, plugins: Iterable[Installed]) -> Installed | None:
    """The plugin of the module's top-level package; in a namespace package, the one with the longest common path."""

    def common(plugin: Installed) -> int:
        pairs = zip(plugin.point.module.split("."), module.split("."), strict=False)
        return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))

    found = max(plugins, key=common, default=None)
    return found if found is not None and common(found) else None


def lacking_requirements(error: BaseException, module: str) -> str:
    """The command that installs what ``module`` needs, by the requirements of its distribution or by the error."""
    if not isinstance(error, (ImportError, AttributeError)):
        return ""
    plugin = _plugin_with(module, installed())
    lacking = unmet(plugin.point.dist) if plugin is not None and plugin.point.dist is not None else {}
    if lacking:
        return "kdkit install " + " ".join(f"'{requirement}'" for requirement in lacking)
    absent = _package(error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    if absent and absent != _package(module):
        return f"kdkit install {absent} (or the package that provides the module '{absent}')"
    return ""


def one_line(error: BaseException) -> str:
    """``Type: message (file:line)``, with the innermost line outside of import machinery and kdkit."""
    message = " ".join(str(error).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    place = _place(error.__traceback__)
    return f"{text} ({place})" if place else text


def _place(trace: TracebackType | None) -> str:
    place = ""
    while trace:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if not module.startswith(("importlib", "pluggy", "kdkit.core.", "kdkit.testing.")):
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


def _package(module: str) -> str:
    return module.partition(".")[0]
