"""Checkpoints of a run: safetensors and JSON, complete or absent, with checksums.

No random state is saved: batches are a function of (seed, step), and the loop seeds torch at every step. Restoring
parameters and optimizer therefore continues bit for bit (on a CPU).

One process writes at once. Several train on while a thread writes: the main process's of whole weights, each rank's of
its parts of sharded ones. Any number of ranks reads either kind.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist
from torch import nn

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.result import format_size
from kdkit.core.base.system_errors import as_kdkit_error
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.distill.loop.checkpoint_files import (
    Progress,
    find_damage,
    read_into,
    read_progress,
    shapes_of,
    write_whole,
)
from kdkit.core.distill.loop.checkpoint_state import (
    changing_bytes,
    checkpoint_bytes,
    checkpoint_state,
    give_to_optimizer,
    state_to_load,
)
from kdkit.core.distill.loop.distributed import TIMEOUT, broadcast, gather_objects, get_rank, get_world_size
from kdkit.core.distill.loop.sharding import is_part

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

KEEP = 2
"""Checkpoints in a run's folder: a damaged newest one leaves the one before."""
SPARE_BYTES = 64 * 2**20
"""Of the disk that a run leaves free, for its log, reports and small files."""


class Checkpoints:
    """The checkpoints in a run's folder, newest last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writing: Future[None] | None = None
        self._group: ProcessGroup | None = None

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def save(
        self, task: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress, average: nn.Module | None = None
    ) -> None:
        """Write a checkpoint, with the moving average of the weights if there is one; keep the newest two.

        Of several ranks the main process calls it, or all if weights are sharded. It then returns when the tensors are
        copied to CPU memory; :meth:`wait` returns when they are on the disk.

        Raises:
            KdkitError: as :meth:`wait`, for the checkpoint before.
        """
        self.wait()
        folder = self.folder / f"step-{progress.step:08d}"
        state = checkpoint_state(task, optimizer, average)
        if any(is_part(x) for x in state.values()):
            from kdkit.core.distill.loop.shard_writer import write_parts  # slow to import

            self._writing = write_parts(folder, state, progress, self._ranks())
        elif get_world_size() > 1:
            copies = {name: x.to("cpu", copy=True) for name, x in state.items()}
            self._writing = _in_background(lambda: write_whole(folder, copies, progress))
        else:
            write_whole(folder, state, progress)
            self._remove_old()

    def wait(self) -> None:
        """Wait until the checkpoint that is being written is on the disk. All ranks that saved it call this.

        Raises:
            KdkitError: a rank could not write its parts.
            OSError: the main process could not write.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except BaseException as error:
            failures = getattr(error, "failures", None)  # torch's CheckpointException, which is slow to import
            if failures is None:
                raise
            raise _not_written(self.folder, failures) from error
        if get_rank() == 0:
            self._remove_old()

    def _remove_old(self) -> None:
        for old in self._all()[:-KEEP]:
            shutil.rmtree(old)

    def _ranks(self) -> ProcessGroup:
        """A process group of all ranks for checkpoints alone; the first call is a collective one."""
        if self._group is None:
            self._group = cast("ProcessGroup", dist.new_group(backend="gloo", timeout=TIMEOUT))
        return self._group

    def require_space(self, task: nn.Module, *, averaged: bool, reporter: Reporter) -> None:
        """Check, before hours are spent, that the disk takes the checkpoints and a version.

        A disk that takes one checkpoint and the version but no more is a warning.

        Raises:
            KdkitError: not even these fit.
        """
        size, version = checkpoint_bytes(task, averaged=averaged), changing_bytes(task)
        here = sum(file.stat().st_size for old in self._all() for file in old.iterdir())
        folder = self.folder.absolute()
        place = next(path for path in (folder, *folder.parents) if path.is_dir())
        free = shutil.disk_usage(place).free
        least, usual = size + version, max(size, (KEEP + 1) * size - here) + version
        if free < least + SPARE_BYTES:
            raise KdkitError(
                "KD-DIST-096",
                f"the run needs {format_size(least)} on disk at least, and {format_size(SPARE_BYTES)} must stay free; "
                f"{format_size(free)} are free",
                where=str(folder),
                why=f"a checkpoint takes {format_size(size)}, the version {format_size(version)}",
                fix=f"free {format_size(least + SPARE_BYTES - free)} and run the command again",
                code=ExitCode.MISSING,
            )
        if free < usual + SPARE_BYTES:
            reporter.warn(space_warning(folder, usual, free))

    def restore(
        self,
        task: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: nn.Module | None = None,
        reporter: Reporter | None = None,
    ) -> Progress | None:
        """Load the newest checkpoint that is undamaged; None if there is none. A collective call.

        Raises:
            KdkitError: all checkpoints are damaged, or the newest belongs to another task.
        """
        if get_rank() == 0:
            for draft in self.folder.glob(".step-*.draft"):  # of a killed run
                shutil.rmtree(draft)
        folders = [self.folder / name for name in broadcast([path.name for path in self._all()][::-1])]
        for folder, before in zip_longest(folders, folders[1:]):
            damage = next(filter(None, gather_objects(find_damage(folder, get_rank(), get_world_size()))), "")
            if not damage:
                return self._load(folder, task, optimizer, average)
            if before is None:
                raise _unusable(folder, damage)
            (reporter or Silent()).warn(f"{folder} is damaged ({damage}); continuing from {before.name}")
        return None

    def _load(
        self, folder: Path, task: nn.Module, optimizer: torch.optim.Optimizer, average: nn.Module | None
    ) -> Progress:
        try:
            state = state_to_load(task, optimizer, average, shapes_of(folder))
            read_into(folder, state, self._ranks() if any(is_part(x) for x in state.values()) else None)
            give_to_optimizer(optimizer, state)
        except (KeyError, RuntimeError, ValueError) as error:
            raise _unusable(folder, str(error).partition("\n")[0]) from None
        return read_progress(folder)[0]


def space_warning(where: Path, needed: int, free: int) -> str:
    """The message for a run that may fill the disk."""
    return (
        f"{where}: the run needs about {format_size(needed)} on disk, and {format_size(SPARE_BYTES)} must stay free; "
        f"{format_size(free)} are free: free some space before it starts"
    )


def _in_background(write: Callable[[], None]) -> Future[None]:
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
    writing = executor.submit(write)
    executor.shutdown(wait=False)
    return writing


def _unusable(folder: Path, why: str) -> KdkitError:
    return KdkitError(
        "KD-DIST-015",
        "this checkpoint cannot be continued",
        where=str(folder),
        why=why,
        fix="start again with 'kdkit distill --restart'",
        code=ExitCode.MISSING,
    )


def _not_written(folder: Path, failures: Mapping[int, tuple[BaseException, object]]) -> KdkitError:
    rank = min(failures)
    error = failures[rank][0]
    known = as_kdkit_error(error, str(folder))
    return KdkitError(
        "KD-DIST-520",
        f"process {rank} could not write its part of a checkpoint",
        where=known.where if known else str(folder),
        why=known.headline if known else " ".join(str(error).split())[:200],
        fix=known.fix if known else "run the command again; it continues from the checkpoint before",
        code=known.code if known else ExitCode.MISSING,
    )
