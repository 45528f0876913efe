"""``kdkit features export``: ids and vectors of a column in files that other programs, and an import, read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.atomic import new_file, new_folder
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.base.hashes import sha256_of
from kdkit.core.contracts import Reporter
from kdkit.core.data.load import load_index
from kdkit.core.features.imports.rows import slices
from kdkit.core.features.store.column import Column, Rows
from kdkit.core.features.store.store import FeatureStore

if TYPE_CHECKING:
    from kdkit.core.project.project import Project


@dataclass(frozen=True)
class ExportedColumn:
    """What was written.

    Attributes:
        teacher, fingerprint: the column.
        path: the file or folder.
        rows: samples with features.
        signals: name -> shape and dtype of a row in the file.
        samples_without_row: ids of samples without features.
    """

    teacher: str
    fingerprint: str
    path: Path
    rows: int
    signals: Mapping[str, str]
    samples_without_row: Sequence[str]


def export_features(project: Project, teacher: str, to: Path, *, reporter: Reporter) -> ExportedColumn:
    """Write the features of the project's samples; the same features give the same bytes.

    Args:
        teacher: with a column; of the locked fingerprint if it is locked.
        to: ``.npz``, ``.parquet``, or a folder, which gets ``ids.json`` and a ``.npy`` file per signal.

    Raises:
        KdkitError: no column, no row, another content at ``to``, or a format that cannot hold the signals.
    """
    locked = project.lock.teachers.get(teacher)
    column = FeatureStore(project.features).column(teacher, locked.fingerprint if locked else None)
    index = load_index(project, reporter)
    places = column.locate(index)
    rows, ids = places[places >= 0], [id_ for id_, place in zip(index.ids, places, strict=True) if place >= 0]
    if not ids:
        raise KdkitError(
            "KD-FEAT-036",
            f"'{teacher}' has no features of the {len(index)} samples that the data hold now",
            where=str(column.folder),
            fix=column.header.remedy,
            code=ExitCode.MISSING,
        )
    if to.suffix not in (".npz", ".parquet", ""):
        raise KdkitError(
            "KD-FEAT-037", f"'{to.name}' is no format of an export", fix="--to FILE.npz, FILE.parquet or DIR"
        )
    dtype = {spec.name: spec.dtype for spec in column.signals}
    if to.suffix == ".parquet":
        dtype = _write_parquet(column, rows, ids, to)
    elif to.suffix == ".npz":
        with new_file(to) as draft:
            with draft.open("wb") as handle:
                np.savez(handle, ids=np.array(ids), **_arrays(column, rows))
            _require_same(draft, to)
    else:
        _write_folder(column, rows, ids, to)
    shapes = {s.name: f"{'x'.join(str(size) for size in s.shape)} {dtype[s.name]}" for s in column.signals}
    lacking = tuple(id_ for id_, place in zip(index.ids, places, strict=True) if place < 0)
    return ExportedColumn(teacher, column.fingerprint, to, len(ids), shapes, lacking)


def _arrays(column: Column, rows: Rows) -> dict[str, Any]:
    return {spec.name: column.gather(spec.name, rows) for spec in column.signals}


def _write_folder(column: Column, rows: Rows, ids: Sequence[str], to: Path) -> None:
    with new_folder(to, replace=True) as draft:
        (draft / "ids.json").write_text(json.dumps(ids, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        for name, array in _arrays(column, rows).items():
            np.save(draft / f"{name}.npy", array)
        if to.is_dir() and {path.name for path in to.iterdir()} - {path.name for path in draft.iterdir()}:
            raise _other(to)
        for path in draft.iterdir():
            _require_same(path, to / path.name)


def _write_parquet(column: Column, rows: Rows, ids: Sequence[str], to: Path) -> dict[str, Any]:
    """``id``, and ``SIGNAL_vector`` as lists of float32; returns the dtypes."""
    import pyarrow as pa
    from pyarrow import parquet

    if odd := [spec.name for spec in column.signals if len(spec.shape) != 1 or not spec.dtype.startswith("float")]:
        fix = "export to .npz or a folder"
        raise KdkitError("KD-FEAT-038", f"Parquet holds vectors; '{odd[0]}' is none", where=str(to), fix=fix)
    widths = {spec.name: spec.shape[0] for spec in column.signals}
    fields = [pa.field(f"{name}_vector", pa.list_(pa.float32(), width)) for name, width in widths.items()]
    schema = pa.schema([pa.field("id", pa.string()), *fields])
    with new_file(to) as draft:
        with parquet.ParquetWriter(str(draft), schema) as writer:
            for part in slices(len(ids)):
                vectors = [
                    pa.FixedSizeListArray.from_arrays(
                        pa.array(column.gather(name, rows[part]).astype(np.float32).ravel()), width
                    )
                    for name, width in widths.items()
                ]
                writer.write_table(pa.Table.from_arrays([pa.array(ids[part]), *vectors], schema=schema))
        _require_same(draft, to)
    return dict.fromkeys(widths, "float32")


def _require_same(draft: Path, to: Path) -> None:
    """Raises: KdkitError when ``to`` exists with another content."""
    if to.exists() and (not to.is_file() or sha256_of(draft) != sha256_of(to)):
        raise _other(to)


def _other(to: Path) -> KdkitError:
    return KdkitError(
        "KD-FEAT-039",
        "something else is there",
        where=str(to),
        why="an export replaces nothing",
        fix="choose another name, or remove it",
        code=ExitCode.FOUND,
    )
