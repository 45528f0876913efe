"""The processes of a run extract together: the main one plans, and the others wait to compute blocks for it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.locks import try_lock
from kdkit.core.contracts import Reporter, Silent
from kdkit.core.data import SampleIndex, load_index
from kdkit.core.data.prompts import project_prompts
from kdkit.core.distill.loop.distributed import broadcast, get_rank, get_world_size
from kdkit.core.features import FeatureStore
from kdkit.core.features.extract.extraction import extract
from kdkit.core.features.extract.missing import UNREADABLE_ERROR, Missing, live_devices
from kdkit.core.features.store.shard import BLOCK_ROWS, knows_damage
from kdkit.core.teachers import OpenTeacher, open_teacher

if TYPE_CHECKING:
    from kdkit.core.project.project import Project

_OTHERS_WAIT: ContextVar[bool] = ContextVar("others_wait", default=False)
_COMPARES: ContextVar[bool] = ContextVar("compares", default=True)


def compares_blocks() -> bool:
    """Whether this process compares all blocks with their checksums: not if the main process has, and found no damage.

    A block of which a sample is gathered is compared in any case.
    """
    return _COMPARES.get()


@contextmanager
def main_process_first(project: Project, device: str) -> Iterator[None]:
    """A block that the main process runs before the others, which extract with it when it asks; a collective call.

    Args:
        device: of this process.

    Raises:
        KdkitError: in another process, of its part of an extraction.
    """
    if get_rank() > 0:
        compares = _COMPARES.set(_help(project, device))
        try:
            yield
        finally:
            _COMPARES.reset(compares)
        return
    token = _OTHERS_WAIT.set(get_world_size() > 1)
    try:
        yield
    finally:
        _OTHERS_WAIT.reset(token)
    broadcast(knows_damage())


def _help(project: Project, device: str) -> bool:
    """Compute blocks whenever the main process names teachers, until it says whether it knows of damage."""
    index: SampleIndex | None = None
    while True:
        asked: tuple[str, list[str]] | bool = broadcast(False)
        if isinstance(asked, bool):
            return asked
        run, names = asked
        index = index or load_index(project, Silent(), verify=False)  # the main process has just verified it
        opened = [open_teacher(project, name, reporter=Silent()) for name in names]
        try:
            _extract(project, opened, index, device, Silent(), run=run)
        except KdkitError as error:
            if error.id != UNREADABLE_ERROR:  # the main process raises it too
                raise
        del opened


def extract_jointly(
    project: Project,
    opened: Sequence[OpenTeacher],
    index: SampleIndex,
    missing: Missing,
    *,
    device: str,
    reporter: Reporter,
) -> None:
    """Extract what the columns of ``opened`` lack, with the processes that wait in :func:`main_process_first`.

    The main process works alone if there is one block at most, or if the file system has no locks.

    Raises:
        KdkitError: as :func:`~kdkit.core.features.extract.extraction.extract`; another process ends.
    """
    several = max(missing.counts.values()) > BLOCK_ROWS
    run = uuid.uuid4().hex if _OTHERS_WAIT.get() and several and _has_locks(project) else ""
    if run:
        broadcast((run, [teacher.name for teacher in opened]))
    _extract(project, opened, index, device, reporter, missing=missing, run=run)


def _extract(
    project: Project,
    opened: Sequence[OpenTeacher],
    index: SampleIndex,
    device: str,
    reporter: Reporter,
    *,
    missing: Missing | None = None,
    run: str,
) -> None:
    names = {teacher.name for teacher in opened}
    own: Mapping[str, str | None] = live_devices(project.registry, project.lock)
    extract(
        FeatureStore(project.features),
        opened,
        index,
        prompts=project_prompts(project.registry, index),
        live={name: place or device for name, place in own.items() if name in names},
        device=device,
        reporter=reporter,
        block_rows=BLOCK_ROWS,
        again=None if missing is None else missing.again,
        shared=bool(run),
        run=run,
    )


def _has_locks(project: Project) -> bool:
    """Whether the file system of the features has locks."""
    project.features.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=project.features) as file:
        return try_lock(file) is not None
