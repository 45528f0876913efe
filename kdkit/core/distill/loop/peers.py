"""What the ranks of a training do, so that a rank that waits in vain can say for which one, and since which step.

Each rank has a thread that writes its step into the store of the process group every few seconds.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import torch.distributed as dist

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.system_errors import is_lost_peer
from kdkit.core.distill.loop.distributed import get_rank, get_world_size, lost_peer

BEAT = 2.0
"""Seconds between two notes of a rank."""
FROZEN = 300.0
"""Seconds without a note after which a process counts as dead, although no connection to it broke. A thread that writes
a note needs no time of the training; a machine that swaps, or reads from a slow network drive, may delay it. They are
counted in notes of this process, so that the time for which a scheduler suspends all of them does not count."""
SLOW = 600.0
"""Seconds at one step after which the main process says at which step each process is; loaders may take that long."""
_ENDED = "ended"
"""Of how many ranks there is a note that they end."""


class Watched:
    """A rank.

    Attributes:
        step: that it works on.
    """

    step = -1


class Peers(Watched):
    """This rank's notes, and those of the others."""

    def __init__(self, store: Any) -> None:
        self._store, self._rank, self._world = store, get_rank(), get_world_size()
        self._ended = threading.Event()
        self._beats = 0
        self._notes: dict[int, dict[str, Any]] = {}
        self._ends: dict[int, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._watch, name="peers", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._note()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        self._thread.join(BEAT)

    def tell(self, failure: str) -> None:
        """Write why this rank ends, for the others, and give them time to read it; empty if it lost one of them."""
        with suppress(RuntimeError):  # the store is gone
            self._store.set(f"end/{self._rank}", json.dumps({"step": self.step, "why": failure}))
            self._store.add(_ENDED, 1)
            self._ended.wait(1.5 * BEAT if failure else 0)

    def find_ended(self) -> str:
        """Which process has ended, at which step and why; empty if that cannot be known. Takes up to three beats."""
        before, until = self._notes, time.monotonic() + 3 * BEAT
        try:
            self._read_all()  # its last note may be newer
            before = self._notes
            while not any(end["why"] for end in self._ends.values()) and time.monotonic() < until:
                time.sleep(BEAT / 4)
                self._read_all()
        except RuntimeError:
            if not self._ends and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # the main process had it
                before = {0: before.get(0, {"step": self.step})}
        for rank, end in self._ends.items():
            if end["why"]:
                return f"process {rank} ended at step {end['step']}: {end['why']}"
        silent = (r for r in before if r not in self._ends and r != self._rank and before[r] == self._notes.get(r))
        return "; ".join(
            f"process {rank} ended without a message; its last step was {before[rank]['step']}" for rank in silent
        )

    def _watch(self) -> None:
        silent = dict.fromkeys(range(self._world), 0)  # own notes since the last one of each
        step, since = self.step, time.monotonic()
        with suppress(RuntimeError):  # the store is gone: the process that had it has ended, which the training notices
            while not self._ended.wait(BEAT):
                before = self._notes
                self._note()
                self._read_all()
                for rank, note in self._notes.items():
                    silent[rank] = silent[rank] + 1 if note == before.get(rank) else 0
                    if silent[rank] * BEAT > FROZEN and rank not in self._ends:
                        _end_run(rank, note["step"])
                if step != self.step or time.monotonic() - since > SLOW:
                    if step == self.step and self._rank == 0:
                        self._say_steps()
                    step, since = self.step, time.monotonic()

    def _say_steps(self) -> None:
        steps = ", ".join(f"process {rank} at step {note['step']}" for rank, note in self._notes.items())
        sys.stderr.write(f"no step for {SLOW:.0f} s: {steps}\n")

    def _note(self) -> None:
        self._beats += 1
        self._store.set(f"note/{self._rank}", json.dumps({"beat": self._beats, "step": self.step}))

    def _read_all(self) -> None:
        """A few requests for any number of ranks."""
        keys = [f"note/{rank}" for rank in range(self._world)]
        if self._store.check(keys):
            self._notes = {rank: json.loads(note) for rank, note in enumerate(self._store.multi_get(keys))}
        if self._store.add(_ENDED, 0):
            ends = {rank: f"end/{rank}" for rank in range(self._world)}
            self._ends = {r: json.loads(self._store.get(key)) for r, key in ends.items() if self._store.check([key])}


@contextmanager
def watched_peers() -> Iterator[Watched]:
    """Watch the other ranks, if there are any, during the block, which is a training.

    Raises:
        KdkitError: another process has ended; names it, with its last step and its error.
    """
    if get_world_size() == 1:
        yield Watched()
        return
    peers = Peers(_own_store())
    peers.start()
    try:
        yield peers
    except BaseException as error:
        lost = is_lost_peer(error)
        if lost or isinstance(error, Exception):
            peers.tell("" if lost else f"{getattr(error, 'id', type(error).__name__)} {error}".partition("\n")[0])
        if not lost:
            raise
        raise lost_peer(peers.find_ended() or " ".join(str(error).split())[:200]) from error
    finally:
        peers.stop()


_TRAININGS = 0


def _own_store() -> Any:
    """The store of the process group, over a connection of its own, with names of this training."""
    global _TRAININGS
    _TRAININGS += 1
    store = cast(Any, dist.distributed_c10d)._get_default_store()
    own = store.clone() if hasattr(store, "clone") else store
    return cast(Any, dist).PrefixStore(f"kdkit/training/{_TRAININGS}", own)


def _end_run(rank: int, step: int) -> None:
    """Say which process hangs, and end this one: its training waits in a library that nothing interrupts."""
    error = KdkitError(
        "KD-DIST-524",
        f"process {rank} of this run has been silent for {FROZEN:.0f} s",
        why=f"it was at step {step}; its machine hangs, or the network between the machines is broken",
        fix="end that process, then run the command again; it continues from the last checkpoint",
        code=ExitCode.MISSING,
    )
    sys.stderr.write(f"error[{error.id}]: {error.headline}\n  {error.why}\n  {error.fix}\n")
    sys.stderr.flush()
    os._exit(error.code)
