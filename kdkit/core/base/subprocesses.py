"""Processes that kdkit starts. They run in an empty folder: files where kdkit was called may come from others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def run_elsewhere(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """``subprocess.run`` of a command without relative paths, in an empty folder, with text streams.

    Relative entries of ``PYTHONPATH`` stay what they are here; an empty one, which is the current folder, is dropped.
    """
    env = dict(os.environ if env is None else env)
    if path := env.pop("PYTHONPATH", ""):
        env["PYTHONPATH"] = os.pathsep.join(str(Path(entry).absolute()) for entry in path.split(os.pathsep) if entry)
    with TemporaryDirectory(prefix="kdkit-") as neutral:
        return subprocess.run(command, cwd=neutral, env=env, text=True, check=False, **options)


def run_python(
    arguments: Sequence[str], *, env: Mapping[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[str]:
    """This Python, as :func:`run_elsewhere`; ``-P``: it imports nothing from the current folder or a script's."""
    return run_elsewhere([sys.executable, "-P", *arguments], env=env, **options)
