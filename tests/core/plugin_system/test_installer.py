"""The command that installs: pip of the running Python, else uv."""

from __future__ import annotations

import shutil
import sys

import pytest

from kdkit.core.base.errors import ExitCode
from kdkit.core.plugin_system import installer
from kdkit.core.plugin_system.installer import install_command, uninstall_command
from tests.errors import raises_error

PIP = [sys.executable, "-P", "-m", "pip"]


def test_pip_of_the_running_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "find_spec", lambda _: object())
    assert install_command(["a==1", "./b"]) == [*PIP, "install", "--", "a==1", "./b"]
    assert install_command(["a"], editable=["c"], upgrade=True) == [
        *PIP, "install", "--upgrade", "-e", "c", "--", "a"
    ]  # fmt: skip
    assert install_command([], editable=["c"]) == [*PIP, "install", "-e", "c"]
    assert uninstall_command(["a"]) == [*PIP, "uninstall", "--yes", "--", "a"]


def test_uv_where_there_is_no_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/uv")
    uv = ["/bin/uv", "pip"]
    assert install_command(["a"]) == [*uv, "install", "--python", sys.executable, "--", "a"]
    assert uninstall_command(["a"]) == [*uv, "uninstall", "--python", sys.executable, "--", "a"]


def test_neither_pip_nor_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with raises_error("KD-PLUG-011", mentions=("ensurepip",), code=ExitCode.MISSING):
        install_command(["a"])
