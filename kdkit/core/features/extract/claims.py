"""Claims of workers on blocks: a file ``NAME.claim`` with the id of the worker that computes block ``NAME``.

A claim saves double work and guards nothing: a block that two workers compute has the same bytes, and the second one
finds it committed. So a claim of a dead or hung worker is taken over without asking it.
"""

from __future__ import annotations

import os
from contextlib import suppress

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Reporter
from kdkit.core.features.extract.workers import WorkerRecord, Workers

_CLAIM = ".claim"


class Claims:
    """The claims of one worker.

    Attributes:
        own: names of the blocks that it works on.
        failed: names of blocks that another worker failed on, which are worth trying last.
    """

    def __init__(self, workers: Workers, reporter: Reporter) -> None:
        self.workers, self._reporter = workers, reporter
        self.own: set[str] = set()
        self.failed: set[str] = set()
        self._reported: set[str] = set()

    def take(self, name: str) -> bool:
        """Claim a block; False if another worker has it."""
        path = self.workers.folder / f"{name}{_CLAIM}"
        self.workers.make_folder()
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        # On a full disk the claim stays empty, and another worker may free it: both then compute the block.
        with suppress(OSError), open(descriptor, "w", encoding="utf-8") as file:
            file.write(self.workers.id)
        self.own.add(name)
        return True

    def release(self, name: str) -> None:
        """Give a block back, finished or not."""
        self.own.discard(name)
        path = self.workers.folder / f"{name}{_CLAIM}"
        with suppress(FileNotFoundError):  # taken over, and finished there
            if path.read_text(encoding="utf-8") == self.workers.id:
                path.unlink()

    def release_all(self) -> None:
        """Give everything back, at the end or after an error."""
        for name in tuple(self.own):
            with suppress(OSError):
                self.release(name)

    def free_abandoned(self) -> list[WorkerRecord]:
        """Remove the claims of workers that no longer live, and report how these ended; returns the living ones.

        Raises:
            KdkitError: a process of the same training run has ended early: the run cannot go on without it.
        """
        others = self.workers.others()
        for other in others:
            if self.workers.is_of_own_run(other) and self.workers.ended_early(other):
                raise _lost(other)
        living = [other for other in others if self.workers.lives(other)]
        ids = {self.workers.id, *(other.id for other in living)}
        for path in self.workers.folder.glob(f"*{_CLAIM}"):
            with suppress(FileNotFoundError):
                if path.read_text(encoding="utf-8") not in ids:
                    path.unlink()
        for other in others:
            if other.id not in ids and other.id not in self._reported:
                self._reported.add(other.id)
                self.failed.update(other.failed)
                how = f"ended with an error: {other.error}" if other.error else "was killed, or hangs"
                self._reporter.warn(f"worker {other.name} {how}; the other workers compute its blocks")
        return living


def _lost(other: WorkerRecord) -> KdkitError:
    return KdkitError(
        "KD-FEAT-630",
        f"process {other.name} of this run has ended during the extraction",
        why=other.error or "it was killed",
        fix="read the message of that process; the same command continues",
        code=ExitCode.MISSING,
    )
