"""How long the light commands take with 20 plugins installed, beside what Python and typer alone take.

    python benchmarks/startup.py [--plugins 20] [--rounds 15]

The commands take turns, so that a busy machine slows all of them alike. The limit is that of the issue: 0.35 s
for ``kdkit --help`` and ``kdkit teachers``, without torch. Exits 1 when it is missed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from fake_plugins import GOOD, cpu_of_children, install

LIMIT = 0.35
TYPER = """
import typer
app = typer.Typer(rich_markup_mode=None)
@app.command()
def one(name: str = ""): "One."
@app.command()
def two(name: str = ""): "Two."
app()
"""


@dataclass
class Case:
    """One command line; ``limit`` in seconds, where it has one."""

    title: str
    arguments: list[str]
    limit: float | None = None
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def measure(cases: list[Case], rounds: int, environment: dict[str, str], folder: Path) -> None:
    """Run every case once per round, after a round that warms the disk cache and writes the .pyc files."""
    for number in range(rounds + 1):
        for case in cases:
            start, before = time.perf_counter(), cpu_of_children()
            run(case, environment, folder)
            if number:
                case.seconds.append(time.perf_counter() - start)
                case.cpu.append(cpu_of_children() - before)


def run(case: Case, environment: dict[str, str], folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *flags, *case.arguments],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{case.title} failed:\n{done.stdout}{done.stderr}")
    return done


def imports_torch(case: Case, environment: dict[str, str], folder: Path) -> bool:
    return any(
        line.rpartition("|")[2].strip() == "torch"
        for line in run(case, environment, folder, "-X", "importtime").stderr.splitlines()
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugins", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    kdkit = ["-m", "kdkit"]
    cases = [
        Case("python -c pass", ["-c", "pass"]),
        Case("bare typer app --help", ["-c", TYPER, "--help"]),
        Case("kdkit", kdkit),
        Case("kdkit --help", [*kdkit, "--help"], LIMIT),
        Case("kdkit plugins", [*kdkit, "plugins"], LIMIT),
        Case("kdkit teachers", [*kdkit, "teachers"], LIMIT),
    ]
    missed = False
    with tempfile.TemporaryDirectory() as temporary:
        site, folder = Path(temporary, "site"), Path(temporary, "project")
        site.mkdir()
        folder.mkdir()
        for number in range(options.plugins):
            install(site, f"kdkit-fake-{number}", GOOD.format(number=number))
        environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONPYCACHEPREFIX": str(Path(temporary, "pyc"))}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        run(Case("kdkit init", [*kdkit, "init"]), environment, folder)
        measure(cases, options.rounds, environment, folder)
        print(f"{options.plugins} plugins, {options.rounds} rounds, load {os.getloadavg()[0]:.1f}; wall-clock seconds")
        print(f"{'command':24}{'median':>8}{'quartiles':>14}{'min':>7}{'max':>7}{'cpu':>7}  torch  <= {LIMIT}")
        for case in cases:
            low, middle, high = quantiles(case.seconds, n=4)
            torch = imports_torch(case, environment, folder)
            wrong = case.limit is not None and (middle > case.limit or torch)
            missed |= wrong
            verdict = "" if case.limit is None else ("no" if wrong else "yes")
            spread = f"{low:.3f}-{high:.3f}"
            print(
                f"{case.title:24}{middle:8.3f}{spread:>14}{min(case.seconds):7.3f}{max(case.seconds):7.3f}"
                f"{median(case.cpu):7.3f}  {'yes' if torch else 'no':5}  {verdict}"
            )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
