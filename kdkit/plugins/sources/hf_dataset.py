"""Data sets of the library ``datasets``: saved on the disk, in its cache, or Parquet files of the Hub.

Arrow and Parquet files are read by pyarrow; the library itself is not needed, and no code of a data set is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import USUAL_SPLITS, Skipped
from kdkit.plugins.readers.arrow_files import checked, open_arrow
from kdkit.plugins.sources.fast_parquet import Table
from kdkit.plugins.sources.hf_layout import Layout, find_layout
from kdkit.plugins.sources.parquet import ParquetRows
from kdkit.plugins.sources.tree import walk_files

META = (".json", ".lock", ".md", ".txt")
"""Endings of files that describe a data set."""


@dataclass(frozen=True)
class HfDataset(ParquetRows):
    """Rows as of Parquet files; ids count the rows of a split, so that they do not depend on the number of files."""

    @cached_property
    def layout(self) -> Layout:
        """The files of the data set.

        Raises:
            KdkitError: as :func:`find_layout`.
        """
        return find_layout(self.location) or Layout("", self.location)

    def files(self) -> list[Path]:
        if self.layout.files:
            return list(self._starts)
        if self.location.is_dir() and not super().fits():
            there = Counter(path.suffix or "no ending" for path in self._found if isinstance(path, Path))
            raise KdkitError(
                "KD-SRC-334",
                "no data set of Hugging Face in this folder",
                where=str(self.location),
                why="it holds " + (", ".join(f"{count} {name}" for name, count in there.most_common(5)) or "nothing"),
                fix="name a folder that save_to_disk has written, one of a cache, or one with Parquet files",
            )
        found = super().files()
        self._refuse_subsets(found)
        return found

    def fits(self) -> bool:
        return bool(self.layout.files) or super().fits()

    @cached_property
    def _found(self) -> list[Path | Skipped]:
        return list(walk_files(self.layout.root)) if self.location.is_dir() else []

    def other_files(self) -> Iterator[Skipped]:
        if not self.layout.files:
            yield from super().other_files()
            return
        if self.location.is_file():
            return
        for path in self._found:
            if isinstance(path, Skipped):
                yield path
            elif path.suffix == ".arrow" and path not in self.layout.files:
                own = path.name.startswith("cache-")
                what = "results that the library datasets keeps" if own else "Arrow files that the data set lacks"
                yield Skipped(what, str(path), level="note" if own else "warning")
            elif path not in self.layout.files and path.suffix not in META:
                yield Skipped(f"files with the ending {path.suffix.lower()}", str(path), level="note")

    @contextmanager
    def table(self, path: Path) -> Iterator[Table]:
        if path not in self.layout.files:
            with super().table(path) as found:
                yield found
            return
        with open_arrow(path) as (schema, batches):

            def chosen(columns: list[str]) -> Iterator[Any]:
                whole = list(
                    dict.fromkeys(name if name in schema.names else name.removesuffix(".path") for name in columns)
                )
                return (checked(batch.select(whole)) for batch in batches)

            yield Table("arrow", schema, lambda columns: (_rows(batch, columns) for batch in batches), chosen)

    def shard_name(self, file: Path) -> str:
        name = file.relative_to(self.layout.root).as_posix()
        return name.removesuffix(file.suffix)

    def key_of(self, path: Path, number: int) -> str:
        if path not in self.layout.files:
            return super().key_of(path, number)
        split = self.layout.files[path]
        number += self._starts[path]
        return str(number) if split is None else f"{split}-{number}"

    def keys_of(self, path: Path, numbers: Any) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        if path not in self.layout.files:
            return super().keys_of(path, numbers)
        split, texts = self.layout.files[path], pc.add(numbers, self._starts[path]).cast(pa.string())
        return texts if split is None else pc.binary_join_element_wise(split, texts, "-")

    @cached_property
    def _starts(self) -> dict[Path, int]:
        """File -> rows of its split before it.

        Raises:
            KdkitError: a file is damaged, or a split has fewer rows than the description says.
        """
        found, ends = dict[Path, int](), Counter[str | None]()
        for path, split in self.layout.files.items():
            found[path] = ends[split]
            with open_arrow(path) as (_, batches):
                ends[split] += sum(batch.num_rows for batch in batches)
        for split, count in self.layout.counts.items():
            if ends[split] != count:
                raise KdkitError(
                    "KD-SRC-326",
                    f"the split {split} of this data set is not whole",
                    where=str(self.layout.root),
                    why=f"its files have {ends[split]} rows, its description says {count}",
                    fix="make the cache again, or save the data set by save_to_disk",
                )
        return found

    def with_split(self, row: dict[str, Any], file: Path) -> dict[str, Any]:
        named = self.layout.files.get(file)
        if named is None:
            return super().with_split(row, file)
        if self.split_fractions is None and not {"split"} & (self.columns.keys() | self.constants.keys() | row.keys()):
            row["split"] = named if named in self.splits else USUAL_SPLITS.get(named.lower(), named)
        return row

    def _cell(self, reader: str, path: Path, column: str, number: int, value: Any) -> dict[str, Any]:
        found = super()._cell(reader, path, column, number, value)
        if isinstance(value, Mapping) and "bytes" in value and value.get("path"):
            return {**found, "image": None, column: value["path"]}  # an image file
        return found

    def _refuse_subsets(self, files: list[Path]) -> None:
        """Raises: KdkitError when files lie in several folders, so in several configurations of a data set."""
        known = {*self.splits, *USUAL_SPLITS}
        folders = {
            tuple(part for part in file.relative_to(self.layout.root).parts[:-1] if part.lower() not in known)
            for file in (files if self.location.is_dir() else ())
        }
        if len(folders) > 1:
            raise KdkitError(
                "KD-SRC-327",
                "this data set has several folders of files, which may be its subsets",
                where=str(self.location),
                why=", ".join(sorted("/".join(parts) or "." for parts in folders)[:5]),
                fix="write an entry for each that you want, with its folder in the path; to read all of them as one, "
                "use the source parquet",
            )


def _rows(batch: Any, columns: list[str]) -> list[dict[str, Any]]:
    """The rows of a batch; ``image.path`` gives ``{path}``, or ``{path, bytes: None}`` for an image without bytes."""
    import pyarrow.compute as pc

    nested = [name.removesuffix(".path") for name in columns if name not in batch.schema.names]
    plain = [name for name in columns if name in batch.schema.names]
    batch = checked(batch.select([*plain, *nested]))
    rows: list[dict[str, Any]] = batch.select(plain).to_pylist() if plain else [{} for _ in range(batch.num_rows)]
    for name in nested:
        cells = batch.column(name)
        paths, lacking = pc.struct_field(cells, "path"), pc.struct_field(cells, "bytes").is_null()
        for row, path, lacks in zip(rows, paths.to_pylist(), lacking.to_pylist(), strict=True):
            row[name] = {"path": path, "bytes": None} if lacks else {"path": path}
    return rows
