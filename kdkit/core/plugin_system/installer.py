"""Which command installs packages into the very environment in which kdkit runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import sysconfig
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.plugin_system.catalogue import normal

Kind = Literal["uv tool", "pipx", "pip", "uv"]


@dataclass(frozen=True)
class Interpreter:
    """What decides how packages come into an environment.

    Attributes:
        executable: of Python.
        prefix: ``sys.prefix``.
        virtual: it is a virtual environment (PEP 405).
        managed: the operating system's package manager owns it (PEP 668).
        pip: it can be run as ``python -m pip``.
        uv, pipx: their executables; empty where there is none.
    """

    executable: str
    prefix: Path
    virtual: bool
    managed: bool
    pip: bool
    uv: str
    pipx: str

    @classmethod
    def here(cls) -> Interpreter:
        """The running one."""
        return cls(
            executable=sys.executable,
            prefix=Path(sys.prefix),
            virtual=sys.prefix != sys.base_prefix,
            managed=Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists(),
            pip=find_spec("pip") is not None,
            uv=os.environ.get("UV") or shutil.which("uv") or "",
            pipx=shutil.which("pipx") or "",
        )

    def kind(self) -> Kind:
        """Who installs here.

        Raises:
            KdkitError: nobody may or can, with what to do instead.
        """
        if self._receipt.is_file():
            return "uv tool" if self.uv else self._needs("uv", "kdkit was installed with 'uv tool'")
        if self._pipx_record.is_file():
            return "pipx" if self.pipx else self._needs("pipx", "kdkit was installed with pipx")
        if self.managed and not self.virtual:
            raise KdkitError(
                "KD-PLUG-010",
                "the operating system manages this Python: packages are not to be installed into it",
                where=str(self.prefix),
                fix="install kdkit and its plugins into an environment of their own: "
                "uv tool install kdkit --with PLUGIN; or pipx install kdkit, then kdkit install PLUGIN",
                code=ExitCode.DENIED,
            )
        if self.pip:
            return "pip"
        if self.uv:
            return "uv"
        conda = (self.prefix / "conda-meta").is_dir()
        raise KdkitError(
            "KD-PLUG-011",
            "this environment has no pip, and uv is not on the PATH",
            where=str(self.prefix),
            fix=f"conda install -p {self.prefix} pip" if conda else f"{self.executable} -m ensurepip",
            code=ExitCode.MISSING,
        )

    @property
    def _receipt(self) -> Path:
        return self.prefix / "uv-receipt.toml"

    @property
    def _pipx_record(self) -> Path:
        return self.prefix / "pipx_metadata.json"

    def _needs(self, tool: str, why: str) -> Kind:
        raise KdkitError(
            "KD-PLUG-012",
            f"'{tool}' is not on the PATH, and this environment belongs to it",
            where=str(self.prefix),
            why=why,
            fix=f"put {tool} on the PATH",
            code=ExitCode.MISSING,
        )

    def pipx_name(self) -> str:
        """What pipx calls this environment."""
        try:
            name = json.loads(self._pipx_record.read_bytes()).get("environment")
        except (OSError, ValueError, AttributeError):
            name = None
        return str(name or self.prefix.name)

    def tool_requirements(self) -> list[Mapping[str, Any]]:
        """What ``uv tool install`` was told, the tool itself first.

        Raises:
            KdkitError: the receipt is not what uv writes.
        """
        try:
            receipt = tomllib.loads(self._receipt.read_text(encoding="utf-8"))
            found: list[Any] = receipt["tool"]["requirements"]
            return [{"name": one} if isinstance(one, str) else one for one in found]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise KdkitError(
                "KD-PLUG-013", "uv's receipt cannot be read", where=str(self._receipt), why=str(error)
            ) from None


def install_command(
    packages: Sequence[str], *, editable: Sequence[str] = (), upgrade: bool = False, into: Interpreter | None = None
) -> list[str]:
    """The command that installs ``packages`` (names, requirements, paths, URLs) and ``editable`` folders.

    Raises:
        KdkitError: as :meth:`Interpreter.kind`, or for a package that looks like an option.
    """
    into = into or Interpreter.here()
    _refuse_options([*packages, *editable])
    match into.kind():
        case "uv tool":
            new = [*_pairs("--with", packages), *_pairs("--with-editable", editable)]
            return [*_tool_install(into), *(["--upgrade"] if upgrade else []), *new]
        case "pipx":
            force = ["--force"] if upgrade else []
            return [into.pipx, "inject", *force, into.pipx_name(), *packages, *_pairs("--editable", editable)]
        case "uv":
            start = [into.uv, "pip", "install", "--python", into.executable]
        case "pip":
            start = [into.executable, "-m", "pip", "install"]
    return [*start, *(["--upgrade"] if upgrade else []), *packages, *_pairs("-e", editable)]


def distribution_of(word: str) -> str:
    """The normalized name of what a requirement, wheel or folder installs; empty where it does not tell."""
    path = Path(word)
    if path.is_dir():
        try:
            return normal(str(tomllib.loads((path / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]))
        except (OSError, ValueError, KeyError, TypeError):
            return ""
    if path.suffix == ".whl":
        return normal(path.name.partition("-")[0])
    return normal(re.split(r"[^\w.-]", word)[0])


def uninstall_command(names: Sequence[str], *, into: Interpreter | None = None) -> list[str]:
    """The command that removes the distributions ``names``. Raises: as :func:`install_command`."""
    into = into or Interpreter.here()
    _refuse_options(names)
    match into.kind():
        case "uv tool":
            return _tool_install(into, without=frozenset(names))
        case "pipx":
            return [into.pipx, "uninject", into.pipx_name(), *names]
        case "uv":
            return [into.uv, "pip", "uninstall", "--python", into.executable, *names]
        case "pip":
            return [into.executable, "-m", "pip", "uninstall", "--yes", *names]


def _refuse_options(words: Sequence[str]) -> None:
    for word in words:
        if not word or word.startswith("-"):
            raise KdkitError("KD-PLUG-014", f"'{word}' is not a package", fix="for example: kdkit install kdkit-huber")


def _pairs(option: str, values: Sequence[str]) -> Iterator[str]:
    for value in values:
        yield from (option, value)


def _tool_install(into: Interpreter, without: frozenset[str] = frozenset()) -> list[str]:
    """``uv tool install`` forgets what it is not told again: the tool, and every ``--with`` so far."""
    tool, *others = into.tool_requirements()
    command = [into.uv, "tool", "install"]
    command += ["--editable", str(tool["editable"])] if "editable" in tool else [_written(tool)]
    for one in others:
        if one["name"] not in without:
            command += ["--with-editable", str(one["editable"])] if "editable" in one else ["--with", _written(one)]
    return command


def _written(requirement: Mapping[str, Any]) -> str:
    """An entry of uv's receipt as it is written on the command line."""
    extras = f"[{','.join(requirement['extras'])}]" if requirement.get("extras") else ""
    name = f"{requirement['name']}{extras}"
    for key in ("directory", "path"):
        if key in requirement:
            return f"{requirement[key]}{extras}"
    if "url" in requirement:
        return f"{name} @ {requirement['url']}"
    if "git" in requirement:
        at = urlsplit(requirement["git"])
        revision = next((values[0] for values in parse_qs(at.query).values()), "")
        url = at._replace(query="", fragment="").geturl()
        return f"{name} @ git+{url}" + (f"@{revision}" if revision else "")
    return f"{name}{requirement.get('specifier', '')}"
