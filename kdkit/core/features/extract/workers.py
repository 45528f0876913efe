"""The processes that extract into one store at the same time: what each one tells the others, and which ones live.

Each worker has a record and a lock in a folder that all share. It lives while it holds the lock, which the operating
system frees when the process ends, and while it makes progress: its count of beats grows. A worker compares counts by
its own monotonic clock. No time of day is read, and no clock of another machine.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from socket import gethostname
from types import TracebackType
from typing import Any

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.locks import file_lock, is_alive, wait_for_lock

LEASE = 600.0
"""Seconds without progress after which a worker that still holds its lock counts as hung."""
_BEATS_EVERY = 1.0
"""Seconds between two writes of a worker's record."""
_RECORD, _BUSY, _PLANNING = ".worker", ".busy", "planning.busy"
_COMMITTING, _LEAVING = "commit.busy", "leave.busy"


@dataclass(frozen=True)
class WorkerRecord:
    """What a worker tells the others.

    Attributes:
        id: unique, also among workers of other machines.
        name: ``host:process``, for messages.
        settings: what all workers must agree on.
        run: of the training run whose process it is; empty for others.
        beats: grows with its progress.
        rows: rows that it computed.
        seconds: since it began.
        longest: seconds between two beats, at most so far.
        left, total: rows that all workers had left when it last looked, and when it began.
        error: the message that it ended with; empty while it works.
        failed: names of the blocks that it worked on then.
    """

    id: str
    name: str
    settings: Mapping[str, str]
    run: str = ""
    beats: int = 0
    rows: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    left: int = 0
    total: int = 0
    error: str = ""
    failed: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: Path) -> WorkerRecord | None:
        """The record in a file; None if it is gone or of another format."""
        try:
            raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            record = cls(**{**raw, "failed": tuple(raw["failed"])})
            return record if record.id == path.stem else None  # the id names files
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None


def read_records(folder: Path) -> list[WorkerRecord]:
    """The records of all workers of a folder, dead ones too; empty if there is no folder."""
    found = [WorkerRecord.read(path) for path in sorted(folder.glob(f"*{_RECORD}"))]
    return [record for record in found if record is not None]


class Workers:
    """This worker among those of a folder; a context manager.

    Args:
        folder: shared by all workers; removed by the last one.
        settings: compared with those of the living workers at the start.
        run: as of :class:`WorkerRecord`.
        lease: seconds, as :data:`LEASE`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, str],
        *,
        run: str = "",
        lease: float = LEASE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self._lease, self._clock = lease, clock
        self._own = WorkerRecord(uuid.uuid4().hex, f"{gethostname()}:{os.getpid()}", settings, run)
        self._held = ExitStack()
        self._seen: dict[str, tuple[int, float]] = {}
        self._began = self._beaten = self._written = clock()

    @property
    def id(self) -> str:
        return self._own.id

    def is_of_own_run(self, other: WorkerRecord) -> bool:
        """Whether both are processes of one training run."""
        return bool(other.run) and other.run == self._own.run

    def __enter__(self) -> Workers:
        """Join the others.

        Raises:
            KdkitError: a living worker has other settings, or works on this file system without locks.
        """
        with self.planning():
            living = []
            for other in self.others():
                if self.lives(other):
                    _require_same(other, self._own)
                    living.append(other)
                else:
                    self._forget(other)
            path = self.folder / f"{self.id}{_BUSY}"
            if self._held.enter_context(file_lock(path)) is None and living:
                self._held.close()
                path.unlink(missing_ok=True)
                raise _without_locks(living[0], self.folder)
            self._write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Leave. The record of an error stays for the others; the last worker removes the folder."""
        with suppress(OSError):
            if isinstance(error, Exception):
                text = error.headline if isinstance(error, KdkitError) else f"{type(error).__name__}: {error}"
                self._own = replace(self._own, error=text)
                self._write()
            else:
                (self.folder / f"{self.id}{_RECORD}").unlink(missing_ok=True)
            # One at a time: of two that leave together, the second one finds nobody.
            with self._locked(_LEAVING), file_lock(self.folder / _PLANNING) as alone:
                self._held.close()
                (self.folder / f"{self.id}{_BUSY}").unlink(missing_ok=True)
                if alone is not False and not any(self.lives(other) for other in self.others()):
                    shutil.rmtree(self.folder, ignore_errors=True)
        self._held.close()

    def planning(self) -> AbstractContextManager[None]:
        """A block in which no other worker joins or plans; waits for them."""
        return self._locked(_PLANNING)

    def committing(self) -> AbstractContextManager[None]:
        """A block in which no other worker writes into a shard; waits for them."""
        return self._locked(_COMMITTING)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with ExitStack() as stack:
            while True:
                self.make_folder()
                with suppress(FileNotFoundError):  # the last of the others removed the folder
                    stack.enter_context(wait_for_lock(self.folder / name))
                    break
            yield

    def make_folder(self) -> None:
        """Make the folder; a worker that hung and wakes up finds that the others have removed it."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def see(self, left: int, total: int) -> None:
        """Note how much all workers have left; the next beat tells it."""
        self._own = replace(self._own, left=left, total=total)

    def beat(self, rows: int = 0, failed: tuple[str, ...] = ()) -> bool:
        """Tell the others of progress; writes at most once a second.

        Args:
            rows: computed since the last call.
            failed: the blocks that an error from here on would fail.

        Returns:
            Whether the record was written: the moment to look at those of the others.
        """
        now = self._clock()
        longest = max(self._own.longest, now - self._beaten)
        self._own = replace(
            self._own,
            beats=self._own.beats + 1,
            rows=self._own.rows + rows,
            seconds=now - self._began,
            longest=longest,
            failed=failed,
        )
        self._beaten = now
        if now - self._written < _BEATS_EVERY:
            return False
        self._written = now
        with suppress(OSError):  # a full disk: all blocks of the shards are allocated, so the work can go on
            self._write()
        return True

    def others(self) -> list[WorkerRecord]:
        """The records of the other workers, dead ones too."""
        return [record for record in read_records(self.folder) if record.id != self.id]

    def lives(self, other: WorkerRecord) -> bool:
        """Whether a worker holds its lock, or made progress within the lease; one without locks counts by progress."""
        if self._is_over(other):
            return False
        now = self._clock()
        beats, since = self._seen.setdefault(other.id, (other.beats, now))
        if beats != other.beats:
            self._seen[other.id] = other.beats, now
            return True
        return now - since < max(self._lease, 5 * other.longest)

    def ended_early(self, other: WorkerRecord) -> bool:
        """Whether a worker ended by an error or a signal; one that left has taken its record with it."""
        return self._is_over(other) and (self.folder / f"{other.id}{_RECORD}").exists()

    def _is_over(self, other: WorkerRecord) -> bool:
        """Whether a worker told an error, or no longer has its lock."""
        path = self.folder / f"{other.id}{_BUSY}"
        if other.error or not path.exists():
            return True
        with file_lock(path) as free:
            return bool(free or (free is None and _has_ended(other)))

    def _forget(self, other: WorkerRecord) -> None:
        for end in (_RECORD, _BUSY):
            (self.folder / f"{other.id}{end}").unlink(missing_ok=True)

    @property
    def own(self) -> WorkerRecord:
        """This worker's record."""
        return self._own

    def _write(self) -> None:
        self.make_folder()
        path = self.folder / f"{self.id}{_RECORD}"
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self._own)), encoding="utf-8")
        os.replace(draft, path)


def _has_ended(other: WorkerRecord) -> bool:
    """Whether a worker was a process of this machine that runs no more; False for those of other machines."""
    host, _, process = other.name.rpartition(":")
    return host == gethostname() and process.isdecimal() and not is_alive(int(process))


def _without_locks(other: WorkerRecord, folder: Path) -> KdkitError:
    return KdkitError(
        "KD-FEAT-505",
        "another worker extracts into this store, and its file system has no file locks",
        where=str(folder),
        why=f"without locks, {other.name} and this process could write into one block at the same time",
        fix=f"wait until it has ended; if it was killed, delete {folder}. For several workers use a file system with "
        "locks, such as NFS 4, or Lustre mounted with '-o flock'",
        code=ExitCode.FOUND,
    )


def _require_same(other: WorkerRecord, own: WorkerRecord) -> None:
    for key, value in own.settings.items():
        theirs = other.settings.get(key, value)
        if theirs != value:
            raise KdkitError(
                "KD-FEAT-540",
                f"another worker extracts into this store with another {key}",
                where=other.name,
                why=f"there {theirs}, here {value}",
                fix="start all workers with the same options, registry and data, or wait until the others have ended",
                code=ExitCode.FOUND,
            )
