"""The command that installs packages into the running Python's environment: pip, or uv where pip is absent."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from kdkit.core.base.errors import ExitCode, KdkitError

_ARCHIVES = (".whl", ".tar.gz", ".zip")


def install_command(packages: Sequence[str], *, editable: Sequence[str] = (), upgrade: bool = False) -> list[str]:
    """Install ``packages`` (names, requirements, paths, URLs) and ``editable`` folders.

    Raises:
        KdkitError: there is neither pip nor uv.
    """
    command = [*_installer("install"), *(["--upgrade"] if upgrade else [])]
    for folder in editable:
        command += ["-e", _absolute(folder)]
    return [*command, *(["--", *map(_absolute, packages)] if packages else [])]


def _absolute(package: str) -> str:
    """A path without reference to the working folder, in which the installer does not run; other names unchanged."""
    path, bracket, extras = package.partition("[")
    is_path = Path(path).exists() and ("/" in path or path.startswith(".") or path.endswith(_ARCHIVES))
    return f"{Path(path).resolve()}{bracket}{extras}" if is_path else package


def uninstall_command(names: Sequence[str]) -> list[str]:
    """Remove the distributions ``names``. Raises: as :func:`install_command`."""
    command = _installer("uninstall")
    return [*command, *(["--yes"] if "-m" in command else []), "--", *names]


def _installer(action: str) -> list[str]:
    """``-P``: no ``pip.py`` of the working folder is run."""
    if find_spec("pip"):
        return [sys.executable, "-P", "-m", "pip", action]
    if uv := shutil.which("uv"):
        return [uv, "pip", action, "--python", sys.executable]
    raise KdkitError(
        "KD-PLUG-011",
        "this environment has no pip, and uv is not on the PATH",
        where=sys.prefix,
        fix=f"{sys.executable} -m ensurepip",
        code=ExitCode.MISSING,
    )
