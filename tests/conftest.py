"""Fixtures for every test: the command in a subprocess, and installed plugins."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import invalidate_caches
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TypeAlias

import pytest
from hypothesis import HealthCheck, settings

from tests.warm_python import WarmProcess, WarmPython, warm_stock_checks

REPOSITORY = Path(__file__).parents[1]
AFTER_COMMANDS = {"test_generated_types.py"}
"""By then mypy, which ``make test`` runs beside the tests, has filled its cache."""

# Before torch is imported. Tests share few cores, and the last bits of a sum depend on the number of threads, which
# must be the same in every process.
os.environ["OMP_NUM_THREADS"] = "1"
for variable in [name for name in os.environ if name.startswith("KDKIT_") or name.lower().endswith("_proxy")]:
    del os.environ[variable]  # settings of kdkit, and proxies: all servers of the tests are local
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # background jobs ignore Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)
# The same examples in every run (others: --hypothesis-profile=default), however slow the machine.
settings.register_profile("kdkit", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kdkit")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole commands first: their long files would otherwise end the run on one of two processes."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if item.path.name in AFTER_COMMANDS:
        return 1
    return 0 if {"journeys", "cli"}.intersection(item.path.parts) else 2


def pytest_collection_finish() -> None:
    """What collection imported stays until the end: collecting garbage need not look at it again (0.4 s each time).

    Nor need it look for more so often, which takes a tenth of the time of all tests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


Cold: TypeAlias = "subprocess.Popen[str]"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The id of the error that ended the command, or ``""``."""
        found = re.search(r"^error\[([\w-]+)\]: ", self.stderr, re.M)
        return found[1] if found else ""

    @property
    def json(self) -> Any:
        """What ``--json`` printed."""
        return json.loads(self.stdout)


@dataclass
class Cli:
    """Runs ``kdkit`` in a folder: ``cli("teachers", "--json")``.

    Attributes:
        folder: the current folder of the commands.
        environment: variables added for each command; ``PYTHONPATH`` holds the installed plugins.
        interpreter: of a virtual environment, if it is not that of the tests.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    interpreter: Path | None = None

    def __call__(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 300) -> Outcome:
        return self.warm("-m", "kdkit", *arguments, env=env, timeout=timeout)

    def warm(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 300) -> Outcome:
        """``python *arguments`` that finds the libraries imported; ``arguments`` as of :class:`WarmProcess`."""
        with TemporaryFile("w+") as out, TemporaryFile("w+") as err:
            process = self._start(*arguments, env=env, out=out, err=err)
            code = process.wait(timeout)
            out.seek(0)
            err.seek(0)
            return Outcome(code, out.read(), err.read())

    def start(
        self, *arguments: str, env: Mapping[str, str] | None = None, out: IO[str], err: IO[str]
    ) -> WarmProcess | Cold:
        """Start the command."""
        return self._start("-m", "kdkit", *arguments, env=env, out=out, err=err)

    def _start(self, *arguments: str, env: Mapping[str, str] | None, **streams: IO[str]) -> WarmProcess | Cold:
        variables = self.variables(env)
        return start(*arguments, folder=self.folder, environment=variables, python=self.interpreter, **streams)

    def variables(self, env: Mapping[str, str] | None) -> dict[str, str]:
        return {**clean_environment(), **self.environment, **(env or {})}

    def python(self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 300) -> Outcome:
        """Any Python process in the same folder and environment, which imports all that it needs."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.variables(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


def start_module(*command: str) -> tuple[WarmProcess | Cold, IO[str]]:
    """Start ``python -m *command`` of a module of the tests; the lines of its stderr come with it."""
    reader, writer = os.pipe()
    variables = {**clean_environment(), "PYTHONPATH": str(REPOSITORY)}
    with open(writer, "w") as err:
        return start("-m", *command, folder=REPOSITORY, environment=variables, out=err, err=err), open(reader)


def clean_environment() -> dict[str, str]:
    """This process's environment without kdkit's variables; Hugging Face is offline."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KDKIT_") and k != "PYTHONUNBUFFERED"}
    return {
        **kept,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "OMP_NUM_THREADS": "1",
        "NO_COLOR": "1",
    }


def start(
    *arguments: str,
    folder: Path,
    environment: Mapping[str, str],
    out: IO[str],
    err: IO[str],
    python: Path | None = None,
) -> WarmProcess | Cold:
    """Start ``python *arguments``. Libraries that would find other settings than usual are imported anew."""
    streams = {"out": out, "err": err}
    if seen_by_libraries(environment) == seen_by_libraries(clean_environment()):
        address = warm_python().address
        return WarmProcess(address, *arguments, folder=folder, environment=environment, python=python, **streams)
    return subprocess.Popen(
        [python or sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        text=True,
    )


@cache
def warm_python() -> WarmPython:
    """One for all commands of this process."""
    return WarmPython({name: value for name, value in clean_environment().items() if name != "PYTHONPATH"})


warm_stock_checks(lambda: warm_python().address)


def seen_by_libraries(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that a library may read when it is imported, but for those that warm Python reads again."""
    others = (
        *("KDKIT_", "PYTEST_", "PYTHONPATH", "PYTHONDONT", "PIP_", "WORLD_SIZE", "MASTER_", "RANK", "LOCAL_RANK"),
        *("HF_", "HOME", "NO_PROXY", "PATH", "COLUMNS"),
    )
    return {name: value for name, value in environment.items() if not name.startswith(others)}


@pytest.fixture
def kdkit_cli(tmp_path: Path) -> Cli:
    """The real command in a fresh, empty folder."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Cli(folder)


InstallPlugin = Callable[..., None]


@pytest.fixture
def install_plugin(kdkit_cli: Cli, tmp_path: Path) -> InstallPlugin:
    """``install_plugin("kdkit-foo", source)`` installs a distribution with one plugin for ``kdkit_cli``."""
    site = tmp_path / "site"
    site.mkdir()
    inherited = os.environ.get("PYTHONPATH")
    kdkit_cli.environment["PYTHONPATH"] = os.pathsep.join([str(site), *([inherited] if inherited else [])])

    def install(distribution: str, source: str, *, version: str = "1.0", entry_points: str | None = None) -> None:
        write_distribution(site, distribution, source, version=version, entry_points=entry_points)

    return install


def write_distribution(
    site: Path, distribution: str, source: str, *, version: str = "1.0", entry_points: str | None = None
) -> None:
    """Write what ``pip install`` writes to ``site``: the module ``kdkit_foo`` and ``kdkit_foo-1.0.dist-info``.

    Args:
        site: a folder of ``sys.path``.
        distribution: e.g. ``kdkit-foo``.
        source: the text of the module.
        version: of the distribution.
        entry_points: the text of ``entry_points.txt``; by default the module is the plugin ``foo``.
    """
    module = distribution.replace("-", "_")
    (site / f"{module}.py").write_text(source, encoding="utf-8")
    default = f"[kdkit]\n{distribution.removeprefix('kdkit-')} = {module}\n"
    write_facts(site, distribution, version, default if entry_points is None else entry_points)


def write_facts(site: Path, distribution: str, version: str, entry_points: str) -> None:
    """Write ``kdkit_foo-1.0.dist-info``, from which Python knows a distribution."""
    facts = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8"
    )
    (facts / "entry_points.txt").write_text(entry_points, encoding="utf-8")
    invalidate_caches()  # a folder that changes twice within one tick of its clock looks unchanged to Python
