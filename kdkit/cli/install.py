"""``kdkit install`` and ``kdkit uninstall``: plugins in the environment of this kdkit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from kdkit.cli import console
from kdkit.core.base.errors import ExitCode, KdkitError, did_you_mean
from kdkit.core.base.subprocesses import run_elsewhere, run_python

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Print the command only.")]


def register(app: typer.Typer) -> None:
    """Attach this module's commands."""
    app.command("install")(install)
    app.command("uninstall")(uninstall)


def install(
    packages: Annotated[list[str] | None, typer.Argument(metavar="PACKAGE...")] = None,
    editable: Annotated[
        list[str] | None,
        typer.Option("--editable", "-e", metavar="DIR", help="Install from the sources in DIR."),
    ] = None,
    upgrade: Annotated[bool, typer.Option("--upgrade", "-U", help="To the newest version.")] = False,
    dry_run: DryRunOption = False,
    json: console.JsonOption = False,
) -> None:
    """Install plugins into the environment of this kdkit (venv, conda, pipx, uv), and report whether they load."""
    from kdkit.core.plugin_system.installer import install_command

    if not packages and not editable:
        raise KdkitError("KD-CLI-005", "nothing to install", fix="kdkit install PACKAGE, or kdkit install -e DIR")
    command = install_command(packages or (), editable=editable or (), upgrade=upgrade)
    if dry_run:
        _show(command, json)
        return
    before = _versions()
    _run(command)
    changed = {name for name, version in _versions().items() if before.get(name) != version} - {"kdkit"}
    records = [record for record in _records() if record["distribution"] in changed] if changed else []
    if json:
        console.print_json({"command": _shown(command), "plugins": records})
    else:
        print(_as_text(records))
    if any(record["error"] for record in records):
        raise typer.Exit(ExitCode.PLUGIN)


def uninstall(
    names: Annotated[list[str], typer.Argument(metavar="NAME...")],
    dry_run: DryRunOption = False,
    json: console.JsonOption = False,
) -> None:
    """Remove plugins from the environment of this kdkit, whether they work or not."""
    from kdkit.core.plugin_system.installed import BUILT_IN, normal
    from kdkit.core.plugin_system.installer import uninstall_command

    known = [name for name in _versions() if name != BUILT_IN]
    wanted = [normal(name) for name in names]
    for name in wanted:
        if name == BUILT_IN:
            raise KdkitError(
                "KD-CLI-006", "kdkit itself is no plugin", fix="to remove kdkit, use the tool that installed it"
            )
        if name not in known:
            raise KdkitError(
                "KD-CLI-007",
                f"no plugin of a distribution '{name}' is installed",
                fix=did_you_mean(name, known),
                code=ExitCode.MISSING,
            )
    command = uninstall_command(wanted)
    if dry_run:
        _show(command, json)
        return
    _run(command)
    left = set(_versions()) & set(wanted)
    if left:
        raise KdkitError(
            "KD-CLI-008",
            f"still installed: {', '.join(sorted(left))}",
            where=sys.prefix,
            why="the installer reported success, but another copy is on the path",
            fix="run the command again, or remove the copy by hand",
            code=ExitCode.FOUND,
        )
    if json:
        console.print_json({"command": _shown(command), "removed": wanted})
    else:
        print(f"removed {', '.join(wanted)}")


def _versions() -> dict[str, str]:
    """Distribution with plugins -> version, at this moment; from metadata alone."""
    from importlib import invalidate_caches

    from kdkit.core.plugin_system.installed import installed

    invalidate_caches()
    return {plugin.distribution: plugin.version for plugin in installed()}


def _run(command: Sequence[str]) -> None:
    """Run an installer; its output goes to stderr."""
    console.say(f"+ {_shown(command)}")
    done = run_elsewhere(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode:
        raise KdkitError(
            "KD-CLI-009",
            "the installer failed",
            where=_shown(command),
            why=f"exit code {done.returncode}; its messages are above",
            fix="check the name, the network and the package index, then repeat the command",
            code=ExitCode.MISSING,
        )


def _records() -> list[dict[str, Any]]:
    """``kdkit plugins --json`` of a new process, because this one may have the old packages in memory."""
    from json import loads

    choices = ("KDKIT_PLUGINS", "KDKIT_NO_PLUGINS", "KDKIT_STRICT")  # load what was installed in any case
    kept = {key: value for key, value in os.environ.items() if key not in choices}
    command = ["-m", "kdkit", "plugins", "--json"]
    done = run_python(command, env=kept, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    try:
        found: list[dict[str, Any]] = loads(done.stdout)["plugins"]
    except (ValueError, KeyError):
        raise KdkitError(
            "KD-CLI-010",
            "kdkit no longer starts",
            why=f"a plugin ended the process with exit code {done.returncode}",
            fix="kdkit uninstall NAME removes the plugin",
            code=ExitCode.PLUGIN,
        ) from None
    return found


def _show(command: Sequence[str], json: bool) -> None:
    if json:
        console.print_json({"command": _shown(command)})
    else:
        print(_shown(command))


def _shown(command: Sequence[str]) -> str:
    """The command without credentials in URLs."""
    from shlex import join

    from kdkit.core.plugin_system.requirements import without_credentials

    return join([without_credentials(word) for word in command])


def _as_text(records: list[dict[str, Any]]) -> str:
    if not records:
        return "no new plugin, and no new version of one ('kdkit plugins' lists all)"
    lines = []
    for record in records:
        provides = "; ".join(f"{family}: {', '.join(names)}" for family, names in record["provides"].items())
        state = (
            f"{record['status']}: {record['error']}" if record["error"] else f"works; {provides or 'provides nothing'}"
        )
        lines.append(f"{record['name']} of {record['distribution']} {record['version']}: {state}")
        lines += [f"  {note}" for note in record["notes"]]
    return "\n".join(lines)
