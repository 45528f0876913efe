"""60 plugins installed, 6 of them broken in 6 ways: what works, what is reported, and how long the commands take.

    python benchmarks/plugins.py [--rounds 15]

The six: raises at import, calls ``sys.exit``, has a syntax error, implements an unknown hook, needs a newer plugin
API, lacks a dependency. The baseline is plain pluggy (``load_setuptools_entrypoints``) with the 54 good ones in a fresh
process; with all 60 it ends with the first broken one. Exits 1 when fewer than 54 work, a failure is not
attributed to its distribution and version, or ``kdkit plugins`` takes more than 0.6 s.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

from fake_plugins import GOOD, cpu_of_children, install

LIMIT = 0.6
BROKEN = {
    "raises": ("raise RuntimeError('broken on purpose')", "RuntimeError: broken on purpose"),
    "exits": ("import sys\nsys.exit(3)", "SystemExit: 3"),
    "syntax": ("def", "SyntaxError"),
    "unknown-hook": ("from kdkit import hookimpl\n@hookimpl\ndef kdkit_nonsense(): return []", "unknown hook"),
    "newer-api": ("KDKIT_API = 99", "needs plugin API 99"),
    "lacks": ("import einsums", "it requires einsums>=2 (not installed)"),
}
PLUGGY = """
import pluggy
from kdkit.core.contracts import hookspecs
manager = pluggy.PluginManager("kdkit")
manager.add_hookspecs(hookspecs)
manager.load_setuptools_entrypoints("kdkit")
manager.check_pending()
for name in [name for name in vars(hookspecs) if name.startswith("kdkit_")]:
    [spec for answer in getattr(manager.hook, name)() for spec in answer]
"""


@dataclass
class Case:
    """A command line in an environment."""

    title: str
    arguments: list[str]
    environment: Mapping[str, str]
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self) -> subprocess.CompletedProcess[str]:
        """Run it once; the time counts."""
        start, cpu = time.perf_counter(), cpu_of_children()
        command = [sys.executable, *self.arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        self.seconds.append(time.perf_counter() - start)
        self.cpu.append(cpu_of_children() - cpu)
        if done.returncode:
            sys.exit(f"{self.title} ended with {done.returncode}:\n{done.stdout[-500:]}{done.stderr[-500:]}")
        return done


def check(listing: str) -> int:
    """How many of the 60 work, when every failure is reported with its distribution; ends the script otherwise."""
    records = [r for r in json.loads(listing)["plugins"] if r["distribution"].startswith("kdkit-fake-")]
    for kind, (_, message) in BROKEN.items():
        (record,) = [r for r in records if r["distribution"] == f"kdkit-fake-{kind}"]
        if record["version"] != "1.0" or record["status"] == "ok" or message not in record["error"]:
            sys.exit(f"{kind} is not reported: {record}")
    return sum(record["status"] == "ok" for record in records)


def ending(case: Case) -> str:
    """The exit code and last line of a process that a broken plugin ends."""
    command = [sys.executable, *case.arguments]
    done = subprocess.run(command, env=case.environment, capture_output=True, text=True, check=False)
    return f"ends with code {done.returncode}: {(done.stderr.splitlines() or ['no message'])[-1]}"


def row(case: Case) -> str:
    low, middle, high = quantiles(case.seconds, n=4) if len(case.seconds) > 1 else case.seconds * 3
    return f"{case.title:44}{middle:8.3f}{f'{low:.3f}-{high:.3f}':>14}{median(case.cpu):7.3f}"


def cases(folder: Path) -> tuple[list[Case], Case]:
    """(those to be timed in turns, plain pluggy with all 60)."""
    good, bad = folder / "good", folder / "bad"
    for site in (good, bad):
        site.mkdir()
    for number in range(54):
        install(good, f"kdkit-fake-{number}", GOOD.format(number=number))
    for kind, (source, _) in BROKEN.items():
        install(bad, f"kdkit-fake-{kind}", source, "Requires-Dist: einsums>=2\n" if kind == "lacks" else "")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KDKIT_") and k != "PYTHONDONTWRITEBYTECODE"}
    shared = {**kept, "PYTHONPYCACHEPREFIX": str(folder / "pyc")}
    without = {**shared, "PYTHONPATH": str(good)}
    everything = {**shared, "PYTHONPATH": os.pathsep.join([str(good), str(bad)])}
    kdkit = ["-m", "kdkit"]

    timed = [
        Case("python -c pass", ["-c", "pass"], shared),
        Case("plain pluggy, the 54 good ones", ["-c", PLUGGY], without),
        Case("kdkit plugins, the 54 good ones", [*kdkit, "plugins"], without),
        Case("kdkit plugins, all 60", [*kdkit, "plugins"], everything),
        Case("kdkit teachers, all 60", [*kdkit, "teachers"], everything),
        Case("kdkit --no-plugins plugins, all 60", [*kdkit, "--no-plugins", "plugins"], everything),
        Case("kdkit plugins freeze, all 60", [*kdkit, "plugins", "freeze"], everything),
    ]
    return timed, Case("plain pluggy, all 60", ["-c", PLUGGY], everything)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        timed, pluggy = cases(Path(temporary))
        working = check(
            Case("kdkit plugins --json", ["-m", "kdkit", "plugins", "--json"], pluggy.environment).run().stdout
        )
        baseline = ending(pluggy)
        for case in timed:
            case.run()  # writes the .pyc files
            case.seconds.clear()
            case.cpu.clear()
        for _ in range(options.rounds):
            for case in timed:
                case.run()
    load = os.getloadavg()[0]
    print(f"60 plugins, 6 broken in 6 ways: {working} work, every failure reported with distribution and version")
    print(f"{options.rounds} rounds, load {load:.1f}; wall-clock seconds")
    print(f"{'command':44}{'median':>8}{'quartiles':>14}{'cpu':>7}")
    print("\n".join(row(case) for case in timed))
    print(f"{pluggy.title}: {baseline}; nothing works")
    target = next(case for case in timed if case.title == "kdkit plugins, all 60")
    return int(working != 54 or median(target.seconds) > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
