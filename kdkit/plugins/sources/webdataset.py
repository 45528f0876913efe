"""WebDataset shards: tar files with the members of each sample side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation, Skipped
from kdkit.plugins.sources.records import parse_json
from kdkit.plugins.sources.shards import ShardedRows
from kdkit.plugins.sources.tar_index import LINKS, LONG, Shard, ShardSample, read_shard

FIX = "repair the shard, or set skip_broken: true to use what is whole"


@dataclass(frozen=True)
class WebDataset(ShardedRows):
    """A sample is an image with ``.txt`` (the text), ``.json`` (fields) and ``.cls`` (the label) of the same key.

    Attributes:
        image: ending of the image, where samples have several: ``left.jpg``.
        shard_ids: put the shard's name before each id, for keys that several shards have.
        cache_folder: where the index of each shard is kept.
    """

    ending: ClassVar[str] = ".tar"
    alike: ClassVar[tuple[str, ...]] = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")
    own: ClassVar[tuple[str, ...]] = ("shards.json",)  # of kdkit data shards
    image: str | None = None
    shard_ids: bool = False
    cache_folder: Path | None = None

    def rows(self) -> Iterator[tuple[str, Mapping[str, Any] | Skipped]]:
        """(``shard[key]``, fields) of every sample."""
        seen: dict[str, Path] = {}
        yield from ((skipped.where, skipped) for skipped in self.other_files())
        for path in self.files():
            shard = read_shard(path, self.cache_folder)
            for skipped in self._left_out(path, shard):
                yield skipped.where, skipped
            for key in shard.samples:
                where = f"{path}[{key}]"
                if not self.shard_ids and seen.setdefault(key, path) != path:
                    raise KdkitError(
                        "KD-SRC-090",
                        f"the key '{key}' is in two shards",
                        where=where,
                        why=f"the other one is {seen[key]}",
                        fix="set shard_ids: true, which puts the name of the shard before each id",
                    )
                try:
                    yield where, self._row(path, key, shard, where)
                except KdkitError as error:
                    if not self.skip_broken:
                        raise
                    yield where, Skipped(f"broken samples ({error.what})", where, level="warning")

    def _left_out(self, path: Path, shard: Shard) -> Iterator[Skipped]:
        """What is in the shard but in no sample.

        Raises:
            KdkitError: the shard is cut, or has no sample.
        """
        if shard.broken or not shard.samples:
            what = "the shard is damaged" if shard.broken else "the shard has no sample"
            last = next(reversed(shard.samples), "")
            if not self.skip_broken:
                why = shard.broken + (f"; the last whole sample is '{last}'" if last else "")
                raise KdkitError("KD-SRC-091", what, where=f"{path}[{last}]" if last else str(path), why=why, fix=FIX)
            yield Skipped("damaged shards (their last samples)" if last else "shards without a sample", str(path),
                          level="warning")  # fmt: skip
        for kind, (first, count) in shard.others.items():
            lost = kind in (LINKS, LONG) or kind.startswith("images ")
            for _ in range(count):
                yield Skipped(kind, f"{path}[{first}]", level="warning" if lost else "note")

    def _row(self, path: Path, key: str, shard: Shard, where: str) -> dict[str, Any]:
        """The fields of a sample.

        Raises:
            KdkitError: a member occurs twice, is no text, or the image is missing or one of several.
        """
        sample = shard.samples[key]
        if sample.twice:
            raise _broken(f"two members with the ending .{sample.twice}", where, "keep one of them")
        texts = sample.texts
        for ending, text in texts.items():
            try:
                text.encode()
            except UnicodeEncodeError:
                raise _broken(f"the .{ending} is not UTF-8 text", where, "write it again as UTF-8") from None
        row = _fields(texts["json"], where) if "json" in texts else {}
        name, offset, size = self._member(sample, shard, row.get("image"), where)
        if "txt" in texts:
            row["text"] = texts["txt"]
        if "cls" in texts:
            row.setdefault("label", texts["cls"])
        row["image"] = ImageLocation("tar", path, (offset, size), name)
        row[self.KEY] = f"{self.shard_name(path)}/{key}" if self.shard_ids else key
        return self.with_split(row, path)

    def _required(self, row: Mapping[str, Any], name: str, where: str) -> str:
        """As of all rows; a sample without a text lacks a member."""
        if name == "text" and self.columns.get(name, name) not in row:
            fix = "add a .txt, or a field of the .json (the option columns names it), or set skip_broken: true"
            fields = ", ".join(field for field in row if field not in ("image", self.KEY))
            raise _broken("a sample without a text", where, fix, f"fields: {fields or 'none'}")
        return super()._required(row, name, where)

    def _member(self, sample: ShardSample, shard: Shard, named: object, where: str) -> tuple[str, int, int]:
        """The image of a sample: its own, or the one that its ``.json`` names in the same shard."""
        if not sample.images and isinstance(named, str) and named in shard.images:
            return shard.images[named]
        if self.image is not None and self.image in sample.images:
            return sample.images[self.image]
        if self.image is None and len(sample.images) == 1:
            return next(iter(sample.images.values()))
        found = ", ".join(f".{ending}" for ending in sample.images) or f"members: {', '.join(sample.texts)}"
        what = "no image" if self.image is None and not sample.images else "no such image"
        if self.image is None and sample.images:
            raise _broken("several images", where, "name one by its ending, by the option image: left.jpg", found)
        raise _broken(what, where, FIX, found)


def _fields(text: str, where: str) -> dict[str, Any]:
    try:
        found = parse_json(text)
    except (ValueError, RecursionError) as error:
        raise _broken("the .json is not valid JSON", where, FIX, str(error)) from error
    if not isinstance(found, dict):
        raise _broken("the .json is not a JSON object", where, FIX)
    return found


def _broken(what: str, where: str, fix: str, why: str = "") -> KdkitError:
    return KdkitError("KD-SRC-092", what, where=where, why=why, fix=fix)
