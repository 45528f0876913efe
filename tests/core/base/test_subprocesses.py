"""Processes of kdkit read no file of the folder that it runs in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import kdkit
from kdkit.core.base.subprocesses import run_python

PROBE = "import json, os, sys; print(json.__file__, os.getcwd(), sys.path)"


def test_nothing_of_the_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(9)")
    (tmp_path / "own").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("", "own")))
    done = run_python(["-c", PROBE], stdout=subprocess.PIPE)
    assert done.returncode == 0
    assert repr(str(tmp_path / "own")) in done.stdout, "a folder that the user named stays"
    assert repr(str(tmp_path)) not in done.stdout


def test_no_other_module_starts_python() -> None:
    root = Path(kdkit.__file__).parent
    starting = [path for path in root.rglob("*.py") if "subprocess.run(" in path.read_text(encoding="utf-8")]
    assert {path.relative_to(root).as_posix() for path in starting} == {
        "core/base/subprocesses.py",
        "plugins/answers/text/meteor.py",  # Java
        "plugins/answers/text/spice.py",  # Java
    }
