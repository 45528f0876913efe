"""Every command in hostile environments: no internal error, no traceback, no signal.

    python benchmarks/environments.py [--commands N] [--environments read-only,full] [--seed 0]

Commands come from the command line itself; a command without arguments in ``ARGUMENTS`` is an error. Each runs in a
fork of this process, on its own copy of a small project with a student, one extracted and one new teacher. The output
says by which means each environment is made: as root, by mounts and a network namespace of the fork; for other users
by permissions, a limit of file sizes, and an address that nothing listens to.

Exits with 1 after an internal error. Needs Linux.
"""

from __future__ import annotations

import argparse
import ctypes
import io
import os
import pwd
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

ARGUMENTS = {
    "init": ["empty/new"],
    "add-teacher": ["demo-eye"],
    "teachers": ["--available"],
    "remove-teacher": ["demo-tissue"],
    "lock": ["demo-radio"],
    "data check": [],
    "data label": ["demo-radio", "--classes", "normal,mass"],
    "data shards": ["--to", "shards"],
    "features": [],
    "features extract": [],
    "features export": ["demo-radio", "--to", "radio.npz"],
    "features import": ["theirs", "--from", "theirs.npz", "--license", "mit"],
    "features verify": [],
    "features push": ["lab/features", "--dry-run"],
    "features pull": ["lab/features"],
    "trust": [],
    "align": ["demo-radio", "--aligner", "linear"],
    "pseudo-label": ["--teacher", "demo-radio", "--to", "labels.jsonl"],
    "answer": ["--to", "answers.jsonl"],
    "best-of-n": ["--samples", "2"],
    "correct": ["--to", "corrected.jsonl", "--corrector", "demo-radio"],
    "recipes": [],
    "recipes show": ["kdkit"],
    "distill": ["--cpu"],
    "import-student": [],
    "pretrain": ["--cpu"],
    "profile": ["--cpu", "--steps", "4"],
    "versions": [],
    "versions show": [],
    "teachers show": ["biomedclip"],
    "versions promote": ["v1"],
    "rollback": ["v1"],
    "evaluate": [],
    "report": [],
    "suites": [],
    "suites show": ["medmnist"],
    "explain": ["--cpu"],
    "sweep": ["imbalance", "--cpu", "--seeds", "1"],
    "export": ["--to", "exported"],
    "push": ["lab/student", "--dry-run"],
    "pull": ["lab/student", "--to", "pulled"],
    "bundle": ["--to", "project.tar"],
    "unbundle": ["small.tar", "--to", "unbundled"],
    "install": ["kdkit-nothing", "--dry-run"],
    "uninstall": ["kdkit-nothing", "--dry-run"],
    "new-plugin": ["huber", "--kind", "loss"],
    "demo": ["images"],  # exists already: the demo itself would take minutes
    "plugins": [],
    "plugins verify": ["kdkit-recipes"],
    "plugins freeze": [],
}
REGISTRY = """\
version: 1
student: {family: demo-student}
data:
  - {source: folder, path: images}
prompts: {default: ["a {domain} image of {label}"]}
optimizer: {lr: 0.004, batch_size: 8, steps: 4}
trust: {policy: all}
"""
CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000
MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 16384, 1 << 18
LIBC = ctypes.CDLL(None, use_errno=True)
ROOT = os.geteuid() == 0
INTERNAL = re.compile(r"KD-CLI-014|Traceback \(most recent")


def commands() -> list[str]:
    """All commands of the command line, groups included that run without a subcommand."""
    from typer.main import get_command

    from kdkit.cli.main import app

    def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
        inner = getattr(command, "commands", {})
        if path and (not inner or command.invoke_without_command):
            yield " ".join(path)
        for name, other in inner.items():
            yield from leaves(other, (*path, name))

    return list(leaves(get_command(app)))


# --------------------------------------------------------------------------------------------- environments


def call(name: str, *arguments: Any) -> None:
    """A system call that Python does not offer. Raises: OSError."""
    if getattr(LIBC, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)


def private_mounts() -> None:
    call("unshare", CLONE_NEWNS)
    call("mount", b"none", b"/", None, MS_REC | MS_PRIVATE, None)


def read_only(project: Path) -> None:
    if ROOT:
        private_mounts()
        place = os.fsencode(project)
        call("mount", place, place, None, MS_BIND, None)
        call("mount", place, place, None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)
    else:
        for path in (project, *project.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)


def full(project: Path) -> None:
    if ROOT:
        copy = project.with_name("copy")
        project.rename(copy)
        project.mkdir()
        private_mounts()
        call("mount", b"none", os.fsencode(project), b"tmpfs", 0, b"size=64m")
        shutil.copytree(copy, project, dirs_exist_ok=True)
        with open(project / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
            while ballast.write(bytes(1 << 16)):
                pass
        with open(project / "rest", "wb", buffering=0) as rest, suppress(OSError):
            while rest.write(bytes(64)):
                pass
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def no_home(_: Path) -> None:
    os.environ.pop("HOME", None)

    def unknown(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    pwd.getpwuid = unknown


def ascii_terminal(_: Path) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        errors = "strict" if number == 1 else "backslashreplace"
        setattr(sys, name, io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="ascii", errors=errors))


def no_network(_: Path) -> None:
    if ROOT:
        call("unshare", CLONE_NEWNET)
    else:
        os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"


ENVIRONMENTS: Mapping[str, tuple[Callable[[Path], None], str]] = {
    "read-only": (read_only, "bind mount, read-only" if ROOT else "permissions"),
    "full": (full, "tmpfs without a free byte" if ROOT else "RLIMIT_FSIZE 0"),
    "no-home": (no_home, "no HOME, and pwd.getpwuid finds nobody (patched)"),
    "ascii": (ascii_terminal, "stdout encodes ASCII, strictly (as PYTHONIOENCODING=ascii)"),
    "no-network": (no_network, "network namespace without devices" if ROOT else "endpoint without listener"),
}


# --------------------------------------------------------------------------------------------- running


def make_project(root: Path) -> None:
    """A project with names that ASCII lacks, a version, an extracted teacher and one without features."""
    import numpy as np
    from PIL import Image

    import kdkit

    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("calibration", 3), ("test", 3)):
        for label in ("normal", "tum\u00f6r"):
            folder = root / "images" / split / "ct" / label
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    (root / "registry.yaml").write_text(REGISTRY, encoding="utf-8")
    (root / "empty").mkdir()
    project = kdkit.Project(root)
    project.add_teacher("demo-radio")
    project.distill(cpu=True)
    project.bundle(root / "small.tar")
    project.add_teacher("demo-tissue")


def run(command: str, prepare: Callable[[Path], None], project: Path) -> tuple[int, str]:
    """(exit code, what it wrote) of a command in a fork, in an environment."""
    output = project.with_name("output")
    pid = os.fork()
    if not pid:
        for number in (1, 2):
            os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        os.setpgid(0, 0)
        try:
            end = become(command, prepare, project)
        except BaseException as error:  # the environment could not be made
            os.write(2, f"Traceback (most recent: {error!r}".encode())
            end = 1
        os._exit(end)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), output.read_text(encoding="utf-8", errors="replace")
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGKILL, "time limit"


def become(command: str, prepare: Callable[[Path], None], project: Path) -> int:
    from kdkit.cli.main import run as kdkit_main

    prepare(project)
    os.chdir(project)
    sys.argv = ["kdkit", *command.split(), *ARGUMENTS[command]]
    code = 0
    try:
        kdkit_main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(bool(end.code))
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    return code


def sweep(chosen: list[str], environments: list[str]) -> int:
    """Print a table of exit codes and error ids; returns the number of internal errors."""
    internal = []
    with tempfile.TemporaryDirectory(prefix="kdkit-environments-") as folder:
        template = Path(folder) / "template"
        template.mkdir()
        make_project(template)
        print("; ".join(f"{name}: {ENVIRONMENTS[name][1]}" for name in environments))
        print(f"{'command':18}" + "".join(f"{name:22}" for name in environments), flush=True)
        for command in chosen:
            cells = []
            for name in environments:
                with tempfile.TemporaryDirectory(dir=folder) as place:
                    project = Path(place) / "project"
                    shutil.copytree(template, project)
                    code, output = run(command, ENVIRONMENTS[name][0], project)
                    for path in project.rglob("*"):
                        path.chmod(0o755)
                if code < 0 or code == 101 or INTERNAL.search(output):
                    internal.append(f"\n== {command}, {name} ({code})\n{output[-3000:]}")
                found = re.search(r"error\[([\w-]+)\]", output)
                cells.append(f"{code} {found[1] if found else ''}")
            print(f"{command:18}" + "".join(f"{cell:22}" for cell in cells), flush=True)
    print("".join(internal))
    print(f"{len(chosen) * len(environments)} runs, {len(internal)} internal errors")
    return len(internal)


def main() -> int:
    parser = argparse.ArgumentParser(description="Every command in hostile environments.")
    parser.add_argument("--commands", type=int, default=0, help="a sample of so many (default: all)")
    parser.add_argument("--only", default="", help="comma-separated commands")
    parser.add_argument("--environments", default=",".join(ENVIRONMENTS))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    every = commands()
    if unknown := sorted({*every} ^ {*ARGUMENTS}):
        raise SystemExit(f"ARGUMENTS and the command line differ: {', '.join(unknown)}")
    chosen = random.Random(given.seed).sample(every, given.commands) if given.commands else every
    chosen = given.only.split(",") if given.only else chosen
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="0", PIP_RETRIES="0", PIP_DEFAULT_TIMEOUT="1", NO_COLOR="1")
    for name in [name for name in os.environ if name.startswith("KDKIT_") or name.lower().endswith("_proxy")]:
        del os.environ[name]
    import torch

    torch.set_num_threads(1)
    return int(sweep(chosen, given.environments.split(",")) > 0)


if __name__ == "__main__":
    sys.exit(main())
