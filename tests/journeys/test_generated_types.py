"""Generated plugins pass ``mypy --strict``; ``tests/conftest.py`` says when this runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kdkit.core.plugin_system.scaffold.kinds import KINDS
from kdkit.core.plugin_system.scaffold.write import write_plugin

ROOT = Path(__file__).parents[2]


def test_they_are_typed(tmp_path: Path) -> None:
    """With the project's own configuration and cache: the libraries are read once for both."""
    plugins = [write_plugin(f"a-{kind}", kind, tmp_path / kind) for kind in KINDS]
    paths = [str(plugin.folder / part) for plugin in plugins for part in (plugin.names.module, "tests")]
    options = ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(ROOT / ".mypy_cache")]
    command = [sys.executable, "-m", "mypy", *options, *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
