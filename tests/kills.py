"""Commands that are killed at an operation or at a random moment, and run once more in the same folder.

The commands run in forks of this process, which has imported everything. An operation is a change of a file that
Python audits, below the folder of the project, or a request to the Hub, before it is sent or after its answer.
Commands of the Hub talk to one in another process, whose state is restored with the folder.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest.mock import patch

import torch

from kdkit.core.distill.plan import joint_extraction
from kdkit.core.features.extract.extraction import extract
from kdkit.core.plugin_system import discovery
from tests.hub_process import HubProcess, hub_process
from tests.killed_projects import Life
from tests.stock_checks import remembered_stock_checks

CHANGES = {"os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.truncate", "os.chmod"}
TIMES = {"created", "seconds", "building_seconds", "locked_at", "checksum"}
"""Keys of JSON files that differ from run to run, and checksums over them."""
CACHES = {"busy", "digests.arrow", "unique.json"}
"""Files whose content depends on processes and times of files, as that of the index of samples does."""
SLOW = 5.0
"""Seconds after which a command is timed again."""
LIMIT = 300
"""Seconds after which a command that waits for something ends, with -SIGALRM as exit code."""
Tree = dict[str, str]


@dataclass(frozen=True)
class Step:
    """A command with the state before it, and its uninterrupted run; in ``processes`` at once."""

    words: tuple[str, ...]
    processes: int
    before: Path
    operations: int
    seconds: float
    after: Tree


@dataclass(frozen=True)
class Trial:
    """One kill and one retry; ``problem`` is empty if all is as without the kill.

    Attributes:
        moment: ``operation 3 of 12`` or ``0.12 s of 0.40 s``.
        killed: False if the command had ended before.
    """

    command: str
    moment: str
    killed: bool
    problem: str


class Ran(NamedTuple):
    """Exit codes of a command's processes, the operations of the one that is watched, and what all printed."""

    codes: tuple[int, ...]
    operations: int
    output: str


@contextmanager
def _small_blocks(rows: int | None) -> Iterator[None]:
    """Blocks of the store with few rows, so that several processes get some."""
    if rows is None:
        yield
        return
    defaults = cast(dict[str, Any], extract.__kwdefaults__)
    with patch.dict(defaults, block_rows=rows), patch.object(joint_extraction, "BLOCK_ROWS", rows):
        yield


class Sweep:
    """Kills of the commands of a project, below ``folder``; to be closed after use."""

    def __init__(self, folder: Path, life: Life) -> None:
        self.place, self._folder = folder / "place", folder
        self._hub: HubProcess | None = None
        with ExitStack() as resources:
            resources.enter_context(patch.object(discovery, "load_catalogue", cache(life.catalogue)))  # as if installed
            resources.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(1)  # after a fork, threads of OpenMP wait for ever
            if life.needs_hub:
                self._hub = resources.enter_context(hub_process(folder / "hub", _digest))
                resources.enter_context(remembered_stock_checks(folder / "checks"))
            life.make(self.place / "p")
            resources.enter_context(_small_blocks(life.block_rows))
            self.steps = [self._step(number, command) for number, command in enumerate(life.commands)]
            self._resources = resources.pop_all()

    def close(self) -> None:
        """End the Hub; what was changed in this process is as before."""
        self._resources.close()

    def kill(self, step: Step, random_state: random.Random, *, by_time: bool) -> Trial:
        """Kill the command at a random operation or moment, and run it again; of several processes, a random one."""
        if by_time or step.processes > 1:
            at = random_state.uniform(0, step.seconds)
            moment = f"{at:.2f} s of {step.seconds:.2f} s"
            return self._trial(step, moment, after=at, victim=random_state.randrange(step.processes))
        operation = random_state.randint(1, step.operations)
        return self.kill_at(step, operation)

    def kill_at(self, step: Step, operation: int) -> Trial:
        """Kill the command before one of its operations, and run it again."""
        return self._trial(step, f"operation {operation} of {step.operations}", operation=operation)

    def _trial(
        self, step: Step, moment: str, *, operation: int = 0, after: float | None = None, victim: int = 0
    ) -> Trial:
        self._restore(step.before)
        first = self._run(step.words, operation, after, processes=step.processes, victim=victim)
        again = self._run(step.words, processes=step.processes)
        problem = _difference(step.after, self._state())
        if code := next((code for code in again.codes if code), 0):
            problem = f"exit code {code}: {' '.join(again.output.splitlines()[-3:])}; {problem}"
        if -signal.SIGALRM in first.codes:
            problem = f"another process did not end; {problem}"
        if step.processes > 1:
            moment = f"process {victim}, {moment}"
        return Trial(" ".join(step.words), moment, first.codes[victim] == -signal.SIGKILL, problem)

    def _step(self, number: int, command: str) -> Step:
        words, before, processes = tuple(command.split()), self._folder / f"before-{number}", 1
        if words[0] == "2x":
            words, processes = words[1:], 2
        shutil.copytree(self.place, before)
        if self._hub is not None:
            self._hub.save(before.name)
        operations, seconds = self._run_whole(words, processes)
        if seconds > SLOW and self._hub is not None:  # the next time, the stock libraries are not asked again
            self._restore(before)
            operations, seconds = self._run_whole(words, processes)
        return Step(words, processes, before, operations, seconds, self._state())

    def _run_whole(self, words: Sequence[str], processes: int) -> tuple[int, float]:
        """Operations and seconds of a command that must succeed."""
        begun = time.monotonic()
        ran = self._run(words, processes=processes)
        assert not any(ran.codes), ran.output
        return ran.operations, time.monotonic() - begun

    def _restore(self, state: Path) -> None:
        shutil.rmtree(self.place)
        shutil.copytree(state, self.place)
        if self._hub is not None:
            self._hub.restore(state.name)

    def _state(self) -> Tree:
        """Files of the project and of its neighbors, and of the Hub's commits."""
        return tree(self.place) if self._hub is None else {**tree(self.place), **self._hub.files()}

    def _run(
        self,
        words: Sequence[str],
        operation: int = 0,
        after: float | None = None,
        *,
        processes: int = 1,
        victim: int = 0,
    ) -> Ran:
        """Run a command; kill one of its processes."""
        log, count = self._folder / "log", self._folder / "count"
        count.write_text("0", encoding="utf-8")
        log.write_text("", encoding="utf-8")
        of_rank = [dict(self._hub.environment) if self._hub is not None else {} for _ in range(processes)]
        if processes > 1 and words[0] == "distill":  # as of torchrun
            with socket.create_server(("127.0.0.1", 0)) as free:
                place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
            for rank, environment in enumerate(of_rank):
                environment |= {**place, "WORLD_SIZE": str(processes), "RANK": str(rank), "LOCAL_RANK": str(rank)}
        pids = list[int]()
        for rank, environment in enumerate(of_rank):
            pids.append(os.fork())
            if not pids[-1]:
                signal.alarm(LIMIT)
                os.environ.update(environment)
                own = count if rank == victim else count.with_name(f"count-{rank}")
                _become(words, self.place / "p", log, own, operation if rank == victim else 0)
        if after is not None:
            time.sleep(after)
            os.kill(pids[victim], signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        output = log.read_text(encoding="utf-8", errors="replace")
        return Ran(tuple(codes), int(count.read_text(encoding="utf-8")), output)


def _become(words: Sequence[str], project: Path, log: Path, count: Path, kill_at: int) -> None:
    """Run a command in this process, a fork, and end it."""
    code: Any = 255
    try:
        with open(log, "a", encoding="utf-8") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)
        os.chdir(project)
        sys.argv = ["kdkit", *words]
        watched = _Watched(project.parent, kill_at)
        sys.addaudithook(watched)
        _count_requests(watched)
        from kdkit.cli.main import run

        try:
            run()
            code = 0
        except SystemExit as end:
            code = end.code
        watched.kill_at = -1
        count.write_text(str(watched.count), encoding="utf-8")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _count_requests(watched: _Watched) -> None:
    """Requests of the Hub's client are operations, and so are their answers."""
    import huggingface_hub
    from huggingface_hub.utils._http import default_client_factory

    def factory() -> Any:
        client: Any = default_client_factory()
        client.event_hooks["request"].append(lambda _: watched.happens())
        client.event_hooks["response"].append(lambda _: watched.happens())
        return client

    huggingface_hub.set_client_factory(factory)


class _Watched:
    """An audit hook that counts changes of files below ``folder`` and kills the process before one of them."""

    def __init__(self, folder: Path, kill_at: int) -> None:
        self.folder, self.kill_at, self.count, self._lock = str(folder), kill_at, 0, threading.RLock()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" and event not in CHANGES:
            return
        path = arguments[0]
        if not isinstance(path, str | os.PathLike):
            return
        if event == "open" and not _writes(*arguments[1:3]):
            return
        if os.path.abspath(path).startswith(self.folder):
            self.happens()

    def happens(self) -> None:
        """Count an operation, or die."""
        with self._lock:
            self.count += 1
            if self.count == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def _writes(mode: str | None, flags: int) -> bool:
    return any(letter in mode for letter in "wax+") if mode else bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


def tree(folder: Path) -> Tree:
    """Every path below ``folder`` -> digest of its content without times."""
    paths = sorted(folder.rglob("*"))
    return {
        path.relative_to(folder).as_posix(): _digest(path.name, path.read_bytes()) if path.is_file() else "folder"
        for path in paths
    }


def _digest(name: str, content: bytes) -> str:
    """Of a file's content without times."""
    suffix = Path(name).suffix
    if Path(name).name in CACHES or name.startswith("entry-"):
        return "cache"
    if suffix in (".json", ".lock"):
        content = json.dumps(_timeless(json.loads(content)), sort_keys=True).encode()
    elif suffix == ".tar":
        with tarfile.open(fileobj=io.BytesIO(content)) as members:
            content = json.dumps([(item.name, item.size) for item in members if "json" not in item.name]).encode()
    return hashlib.sha256(content).hexdigest()


def _timeless(data: Any) -> Any:
    """Without times, and without the hashes of files that hold times."""
    if isinstance(data, dict):
        kept = {key: value for key, value in data.items() if key not in TIMES}
        return {key: _timeless(value) for key, value in kept.items() if not str(key).endswith(".json")}
    return [_timeless(value) for value in data] if isinstance(data, list) else data


def _difference(expected: Tree, found: Tree) -> str:
    changed = sorted(path for path in {*expected, *found} if expected.get(path) != found.get(path))
    names = [f"{'-' if path not in found else '+' if path not in expected else '~'}{path}" for path in changed]
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
