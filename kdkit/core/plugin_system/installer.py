"""The command that installs packages into the running Python's environment: pip, or uv where pip is absent."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from kdkit.core.base.errors import ExitCode, KdkitError


def install_command(packages: Sequence[str], *, editable: Sequence[str] = (), upgrade: bool = False) -> list[str]:
    """Install ``packages`` (names, requirements, paths, URLs) and ``editable`` folders.

    Raises:
        KdkitError: there is neither pip nor uv.
    """
    command = [*_installer("install"), *(["--upgrade"] if upgrade else [])]
    for folder in editable:
        command += ["-e", folder]
    return [*command, *(["--", *packages] if packages else [])]


def uninstall_command(names: Sequence[str]) -> list[str]:
    """Remove the distributions ``names``. Raises: as :func:`install_command`."""
    command = _installer("uninstall")
    return [*command, *(["--yes"] if "-m" in command else []), "--", *names]


def _installer(action: str) -> list[str]:
    """``-P`` keeps a ``pip.py`` in the working folder from being run."""
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
