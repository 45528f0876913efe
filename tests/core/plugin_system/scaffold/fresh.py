"""A fresh environment: plugins are really installed into it by pip; kdkit and its libraries are the running ones."""

from __future__ import annotations

import json
import site
import subprocess
import venv
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.conftest import Cli, Outcome, clean_environment

OFFLINE = {
    "PIP_NO_INDEX": "1",
    "PIP_NO_DEPS": "1",
    "PIP_NO_BUILD_ISOLATION": "0",  # sic: the value is that of build isolation
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}
"""pip without network: kdkit and hatchling are those of the running environment."""
COMMANDS = """
import json, sys
from kdkit.cli.main import app
for arguments in json.loads(sys.argv[1]):
    code = app(arguments, prog_name="kdkit", standalone_mode=False)
    if code:
        sys.exit(f"kdkit {' '.join(arguments)}: exit code {code}")
"""


class FreshEnvironment:
    """A virtual environment in ``folder``.

    It is made without copying gigabytes: a ``.pth`` file lets it see the running environment's libraries.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=find_spec("pip") is None, symlinks=True)
        (own,) = folder.glob("lib/python*/site-packages")
        running = [path for path in (*site.getsitepackages(), site.getusersitepackages()) if Path(path).is_dir()]
        (own / "running.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in running))
        self.executable = folder / "bin" / "python"

    def python(
        self, *arguments: str, folder: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> Outcome:
        """Run Python there; ``variables`` are added to its environment."""
        done = subprocess.run(
            [self.executable, *arguments],
            cwd=folder,
            env={**clean_environment(), "PYTHONDONTWRITEBYTECODE": "1", **(variables or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def warm(self, *arguments: str, folder: Path | None = None, variables: Mapping[str, str] | None = None) -> Outcome:
        """Run Python there; it finds the libraries imported."""
        environment = {**clean_environment(), "PYTHONDONTWRITEBYTECODE": "1", **(variables or {})}
        return Cli(folder or Path.cwd(), environment, self.executable).warm(*arguments)

    def install(self, *packages: Path) -> None:
        """``pip install``."""
        done = self.python("-m", "pip", "install", *map(str, packages), variables=OFFLINE)
        assert done.code == 0, done.stderr

    def kdkit(self, *arguments: str, folder: Path | None = None, variables: Mapping[str, str] | None = None) -> Outcome:
        """The command."""
        return self.warm("-m", "kdkit", *arguments, folder=folder, variables=variables)

    def commands(self, folder: Path, *commands: Sequence[str]) -> str:
        """Several commands in one process; what they printed."""
        done = self.warm("-c", COMMANDS, json.dumps(commands), folder=folder)
        assert done.code == 0, done.stderr
        return done.stdout

    def answer(self, code: str, *arguments: str) -> Any:
        """What the Python code prints as JSON."""
        done = self.warm("-c", code, *arguments)
        assert done.code == 0, done.stderr
        return json.loads(done.stdout)
