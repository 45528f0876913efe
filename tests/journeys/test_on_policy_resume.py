"""A run with own answers that was killed ends as if it had not been."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from tests.conftest import start_module
from tests.core.distill.on_policy.project import make_project, run, same


def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    make_project(whole, {"share": 0.6, "max_new": 8})
    root = Path(shutil.copytree(whole, tmp_path / "killed"))
    process, lines = start_module("tests.core.distill.on_policy.project", str(root), "0")
    with lines:
        for line in lines:
            if line.startswith("distill: 3/"):
                os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert not (root / "versions").exists()
    assert list((root / ".kdkit" / "runs").glob("*/step-*"))
    assert same(run(root), run(whole))
