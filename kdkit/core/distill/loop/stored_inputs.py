"""The student's inputs on disk (``inputs: {cache: uint8}``): decoded and resized once for all runs.

A column of a feature store of its own, ``.kdkit/inputs``: rows have checksums by block, and writing resumes after a
kill. Rows are found by id and content digest. The fingerprint covers what the student's ``identity`` says of its
preprocessing and tokenizer, the numbers of all bytes, and the version of Pillow.

The jobs of a sweep may store at once: one of them writes, the others wait, and none deletes what another one reads.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import PIL
import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.locks import file_lock, share_lock
from kdkit.core.contracts import Reporter, Sample, SignalSpec, Student
from kdkit.core.data.images import open_image
from kdkit.core.distill.loop.distributed import barrier, get_rank
from kdkit.core.distill.loop.input_bytes import InputBytes
from kdkit.core.distill.plan.types import Indices
from kdkit.core.features import Column, FeatureStore, Header
from kdkit.core.features.extract.extraction import extract
from kdkit.core.teachers.open import OpenTeacher

if TYPE_CHECKING:
    from PIL.Image import Image

    from kdkit.core.data import SampleIndex

FOLDER, NAME = "inputs", "student"
"""Folder below the project's state, and the name of the column."""
BLOCK_ROWS = 64
"""Inputs are large: a block of 224 pixels has 10 MB."""
_PREFIX = "input-"
_DTYPES = {torch.uint8: "uint8", torch.int32: "int32", torch.int64: "int64", torch.float32: "float32"}


class StoredInputs:
    """Rows of a column with the inputs of some samples of ``index``."""

    def __init__(self, column: Column, index: SampleIndex, coding: InputBytes) -> None:
        self._column, self._coding = column, coding
        self._rows = column.locate(index)

    def has(self, number: int) -> bool:
        """Whether this sample of the index is stored."""
        return number < len(self._rows) and bool(self._rows[number] >= 0)

    def row(self, number: int) -> dict[str, Tensor]:
        """One sample's inputs, equal to those that :meth:`kdkit.core.contracts.Student.prepare` gives."""
        place = self._rows[number : number + 1]
        names = [spec.name for spec in self._column.signals]
        found = {name.removeprefix(_PREFIX): torch.from_numpy(self._column.gather(name, place)) for name in names}
        return {name: x[0] for name, x in self._coding.decode(found).items()}


def stored_bytes(student: Student, sample: Sample) -> int:
    """Bytes of one sample in the cache.

    Raises:
        KdkitError: as :func:`store_inputs`.
    """
    return sum(_size(spec) for spec in _Inputs(student, sample).signals)


def store_inputs(state: Path, student: Student, index: SampleIndex, rows: Indices, reporter: Reporter) -> StoredInputs:
    """Prepare and store the samples ``rows`` that are not stored yet, and check those that are; a collective call.

    The main process does so. Caches of other preprocessing that nobody reads are deleted. Damaged blocks are computed
    again.

    Args:
        state: the project's folder for machine state.
        student: on any device.
        index: all samples.
        rows: those that the run reads.

    Raises:
        KdkitError: the student's inputs cannot be kept as bytes; a full disk.
    """
    inputs, store = _Inputs(student, index.samples[int(rows[0])]), FeatureStore(state / FOLDER)
    if get_rank() == 0:
        with _one_writer(store.root, reporter):
            _store(store, inputs, index.part(rows), reporter)
            (own,) = (folder for folder in store.folders(NAME) if inputs.fingerprint.startswith(folder.name))
            share_lock(_readers(store, own), inputs.coding)  # which what is returned keeps
    barrier()
    return StoredInputs(store.column(NAME, inputs.fingerprint), index, inputs.coding)


def _store(store: FeatureStore, inputs: _Inputs, part: SampleIndex, reporter: Reporter) -> None:
    for folder in store.folders(NAME):
        if not inputs.fingerprint.startswith(folder.name):
            with file_lock(readers := _readers(store, folder)) as free:
                if free is not False:
                    shutil.rmtree(folder, ignore_errors=True)
                    readers.unlink(missing_ok=True)
    for path in store.set_aside_damage(NAME):
        reporter.warn(f"{path} is damaged: renamed to {path.name}.damaged, and made again")
    column = store.create(Header(NAME, inputs.fingerprint, inputs.identity(), inputs.signals))
    known = column.locate(part)
    if damage := column.check(known[known >= 0]):
        reporter.warn(f"stored inputs are damaged and made again: {'; '.join(damage)}")
    if (column.locate(part) < 0).any():
        reporter.say(f"storing decoded inputs in {store.root}")
        teacher = OpenTeacher(NAME, inputs, inputs, inputs.fingerprint, inputs.identity())
        extract(store, [teacher], part, reporter=reporter, block_rows=BLOCK_ROWS, batch_size=BLOCK_ROWS)


def _readers(store: FeatureStore, folder: Path) -> Path:
    """The file that readers of a cache share."""
    return store.root / f"{folder.name}.busy"


@contextmanager
def _one_writer(root: Path, reporter: Reporter) -> Iterator[None]:
    """Wait for the process that writes."""
    root.mkdir(parents=True, exist_ok=True)
    for attempt in count():
        with file_lock(root / "writer.busy") as free:
            if free is not False:
                yield
                return
        if not attempt:
            reporter.say(f"waiting for another process that stores decoded inputs in {root}")
        time.sleep(0.2)


class _Inputs:
    """A student's preparation as a signal source, which the extraction of features can store."""

    def __init__(self, student: Student, sample: Sample) -> None:
        self._student = student
        self.coding = InputBytes.of(student, sample)
        row = student.prepare(open_image(sample), sample)
        coded = self.coding.encode(row) if self.coding.tables else None
        if coded is None or any(x.dtype not in _DTYPES for x in coded.values()):
            raise _not_bytes(sample)
        self.signals = tuple(
            SignalSpec(_PREFIX + name, tuple(x.shape), cast(Any, _DTYPES[x.dtype])) for name, x in coded.items()
        )

    def identity(self) -> Mapping[str, str]:
        tables = {name: hashlib.sha256(table.tobytes()).hexdigest() for name, table in self.coding.tables.items()}
        return {**self._student.identity(), "bytes": json.dumps(tables, sort_keys=True), "pillow": PIL.__version__}

    @property
    def fingerprint(self) -> str:
        parts = {**self.identity(), "signals": str(self.signals)}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def prepare(self, image: Image, sample: Sample) -> Mapping[str, Tensor]:
        coded = self.coding.encode(self._student.prepare(image, sample))
        if coded is None:
            raise _not_bytes(sample)
        return coded

    def compute(self, items: Sequence[Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        return {_PREFIX + name: torch.stack([item[name] for item in items]) for name in items[0]}


def _size(spec: SignalSpec) -> int:
    return int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize


def _not_bytes(sample: Sample) -> KdkitError:
    return KdkitError(
        "KD-DIST-220",
        "this student's inputs cannot be kept as bytes",
        where=f"sample '{sample.id}'",
        why="its preprocessing gives more than 256 values a channel, or no images of one size",
        fix="remove 'cache: uint8' from 'inputs' in registry.yaml",
    )
