"""Workers of one store in processes of their own, forked so that torch is imported once; run by ``test_shared.py``."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract import workers as workers_module
from kdkit.core.features.extract.extraction import extract
from kdkit.core.features.extract.shared import FOLDER
from kdkit.core.features.extract.workers import WorkerRecord, Workers
from kdkit.core.features.store import shard as shard_module
from tests.core.features.extract.test_extraction import open_toy
from tests.core.features.small import index_of, picture_samples

ROWS, BLOCK, BATCH = 24, 8, 4
STEP = 61
"""Between the writes at which :meth:`Scenarios.everywhere` kills."""
Hook = Callable[[int], Any]
"""Called before the n-th batch of images with n; what it returns, if anything, replaces the features."""


class Written:
    """A reporter that keeps its warnings."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.notes: list[str] = []

    def say(self, text: str) -> None: ...
    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def progress(self, _: str, __: int, ___: int, note: str = "") -> None:
        self.notes.append(note)


class Scenarios:
    """Stores below ``root`` with the same samples."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.index = index_of(picture_samples(root / "images", ROWS), root)

    def start(self, store: str, hook: Hook | None = None, *, shared: bool = True, batch: int = BATCH) -> int:
        """Fork a worker; its result goes to a file."""
        pid = os.fork()
        if pid:
            return pid
        reporter, result = Written(), dict[str, Any]()
        try:
            teachers = [open_toy("one", 1), open_toy("two", 2)]
            for teacher in teachers:
                _depend_on_the_batch(teacher.model)
            if hook:
                _hook(teachers[0].model, hook)
            done = extract(
                FeatureStore(self.root / store), teachers, self.index, batch_size=batch, block_rows=BLOCK, workers=1,
                prompts=["a", "b"], shared=shared, reporter=reporter,
            )  # fmt: skip
            result = {"new": [d.new for d in done], "kept": [d.kept for d in done]}
        except KdkitError as error:
            result = {"error": error.id}
        except BaseException:
            traceback.print_exc()
            os._exit(2)
        result |= {"warnings": reporter.warnings, "notes": reporter.notes}
        (self.root / f"result-{os.getpid()}.json").write_text(json.dumps(result))
        os._exit(0)

    def result(self, pid: int) -> dict[str, Any] | None:
        """Wait for a worker; None if it was killed."""
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return None
        assert status == 0, status
        found: dict[str, Any] = json.loads((self.root / f"result-{pid}.json").read_text())
        return found

    def records(self, store: str, count: int) -> None:
        """Wait until so many workers have joined."""
        while len(list((self.root / store / FOLDER).glob("*.worker"))) < count:
            time.sleep(0.05)

    def contents(self, store: str) -> dict[str, bytes]:
        """All files of a store; nothing of workers may be left."""
        folder = self.root / store
        files = [path for path in folder.rglob("*") if path.is_file() and ".draft-" not in str(path)]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    def same(self, store: str) -> None:
        assert self.contents(store).keys() == self.contents("whole").keys()
        assert self.contents(store) == self.contents("whole")

    def whole(self) -> None:
        """One process, without workers."""
        assert self.result(self.start("whole", shared=False))

    def three(self) -> dict[str, Any]:
        """All three take part: each waits in its first batch until all have seen what is to do."""

        def begun() -> int:
            found = [WorkerRecord.read(path) for path in (self.root / "three" / FOLDER).glob("*.worker")]
            return sum(record is not None and record.total > 0 for record in found)

        def wait(call: int) -> None:
            while call == 1 and begun() < 3:
                time.sleep(0.05)

        pids = [self.start("three", wait) for _ in range(3)]
        results = [self.result(pid) for pid in pids]
        self.same("three")
        return {"results": results}

    def killed(self) -> dict[str, Any]:
        """One kills itself in the middle of a block."""

        def die(call: int) -> None:
            if call == 2:
                self.records("killed", 2)
                os.kill(os.getpid(), signal.SIGKILL)

        def wait(call: int) -> None:
            if call == 1:
                self.records("killed", 2)

        victim, other = self.start("killed", die), self.start("killed", wait)
        assert self.result(victim) is None
        survivor = self.result(other)
        self.same("killed")
        return {"survivor": survivor}

    def hung(self) -> dict[str, Any]:
        """One stops in a block and wakes up after the other has finished everything."""
        assert Workers.__init__.__kwdefaults__
        Workers.__init__.__kwdefaults__["lease"] = 0.3

        def stop(call: int) -> None:
            if call == 2:
                self.records("hung", 2)
                os.kill(os.getpid(), signal.SIGSTOP)

        def wait(call: int) -> None:
            if call == 1:
                self.records("hung", 2)

        sleeper, other = self.start("hung", stop), self.start("hung", wait)
        assert os.WIFSTOPPED(os.waitpid(sleeper, os.WUNTRACED)[1])
        survivor = self.result(other)
        whole = {name: data for name, data in self.contents("hung").items() if FOLDER not in name}
        os.kill(sleeper, signal.SIGCONT)
        woken = self.result(sleeper)
        assert whole == self.contents("whole")
        self.same("hung")
        Workers.__init__.__kwdefaults__["lease"] = 600.0
        return {"survivor": survivor, "woken": woken}

    def failing(self) -> dict[str, Any]:
        """One has a broken device: its first batch is NaN."""

        def nan(_: int) -> Tensor:
            self.records("failing", 2)
            return torch.full((BATCH, 8), torch.nan)

        def wait(call: int) -> None:
            if call == 1:
                while not any('"error": "' in path.read_text().replace('"error": ""', "") for path in records()):
                    time.sleep(0.05)

        def records() -> list[Path]:
            return list((self.root / "failing" / FOLDER).glob("*.worker"))

        broken, other = self.start("failing", nan), self.start("failing", wait)
        results = [self.result(broken), self.result(other)]
        self.same("failing")
        return {"results": results}

    def everywhere(self) -> dict[str, Any]:
        """A worker is killed at its n-th write, for some n; the next one finishes alone."""
        points = 0
        while True:
            name, at = f"at-{points}", STEP * points + 1
            if self.result(self.start_killed(name, at)) is not None:
                return {"points": points}
            assert self.result(self.start(name))
            self.same(name)
            points += 1

    def start_killed(self, store: str, at: int) -> int:
        """A worker that kills itself at its ``at``-th write."""
        pid = os.fork()
        if pid:
            return pid
        writes = 0

        def before(real: Callable[..., Any]) -> Callable[..., Any]:
            def wrapped(*args: Any, **options: Any) -> Any:
                nonlocal writes
                writes += 1
                if writes == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **options)

            return wrapped

        for module, name in ((os, "fsync"), (os, "replace"), (os, "open"), (os, "unlink"), (shard_module, "_write_at")):
            setattr(module, name, before(getattr(module, name)))
        child = self.start(store)  # forked once more: its exit status is ours
        status = os.waitpid(child, 0)[1]
        os.rename(self.root / f"result-{child}.json", self.root / f"result-{os.getpid()}.json") if not status else None
        os.kill(os.getpid(), signal.SIGKILL) if status else os._exit(0)
        return 0


def _depend_on_the_batch(model: Any) -> None:
    """Make a text's feature depend on how many texts are computed with it, as rounding may."""
    real = model.encode_text
    model.encode_text = lambda texts: real(texts) + 0.01 * len(texts)


def _hook(model: Any, hook: Hook) -> None:
    real, calls = model.encode_image, 0

    def encode_image(pixels: Tensor) -> Any:
        nonlocal calls
        calls += 1
        replaced = hook(calls)
        return real(pixels) if replaced is None else replaced

    model.encode_image = encode_image


if __name__ == "__main__":
    torch.set_num_threads(1)
    vars(workers_module)["_BEATS_EVERY"] = 0.0  # each beat is told, however fast this machine is
    scenarios = Scenarios(Path(sys.argv[1]))
    scenarios.whole()
    print(json.dumps({name: getattr(scenarios, name)() for name in sys.argv[2:]}))
