"""Whole-slide images: a sample per tile of a grid with enough tissue, or per tile that TRIDENT or CLAM chose."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import ImageLocation, Sample, Skipped, Split
from kdkit.plugins.readers.wsi_files import openslide
from kdkit.plugins.sources.fields import FolderSplits
from kdkit.plugins.sources.wsi_cache import TileCache
from kdkit.plugins.sources.wsi_coordinates import NAMES, coordinates_file, read_tiles
from kdkit.plugins.sources.wsi_slides import TABLES, SlideFolder, SlideTable, open_folder, open_table
from kdkit.plugins.sources.wsi_tiles import TilePlan, Tiles, Unusable, cut_into_tiles

SHARED = "slides whose name, which names their coordinates, another slide has too"


@dataclass(frozen=True)
class WholeSlides:
    """Tiles in the order of the slides, then of rows and columns.

    Attributes:
        location: a folder of slides, one slide, or a CSV file with a row per slide.
        mpp: microns per pixel of the tiles; 0.5 by default.
        magnification: instead of ``mpp``: 20 is 0.5 microns per pixel.
        tile_size: pixels of a tile's side; 256 by default.
        min_tissue: share of tissue that a tile needs, 0.5 by default; 0 takes all tiles, without a tissue mask.
        coordinates: a folder with HDF5 files of TRIDENT or CLAM, relative to the slides' folder or the CSV file's. They
            name the tiles, instead of a grid.
        max_tiles_per_slide: tiles that are drawn of each slide.
        seed: of that draw.
        slide_mpp: microns per pixel of slides that do not say it.
        domain: of all tiles; ``histopathology`` by default.
        caption: template of the text with ``{domain}`` and ``{label}``.
        classes: of a folder: the folder that holds a slide names its class.
        group_pattern: of a folder: regular expression searched in the file name; its first group, or the whole match,
            is the patient. Without it every slide is a group.
        split, split_fractions, splits: as of the source ``dicom``; the hash is of the group.
        columns, image_root, metadata, delimiter: of a CSV file, as of the source ``csv``; the field ``slide`` names the
            file.
        id_prefix: prefix of every id; an id is the path of the slide without its ending, x and y.
        cache_folder: where corners of tiles are kept.
    """

    location: Path
    mpp: float | None = None
    magnification: float | None = None
    tile_size: int | None = None
    min_tissue: float | None = None
    coordinates: str | None = None
    max_tiles_per_slide: int | None = None
    seed: int = 0
    slide_mpp: float | None = None
    domain: str | None = None
    caption: str | None = None
    classes: bool = False
    group_pattern: str | None = None
    split: Split | None = None
    split_fractions: Mapping[str, float] | None = None
    splits: Mapping[str, str] | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    image_root: str = "."
    metadata: tuple[str, ...] | list[str] = ()
    delimiter: str = ","
    id_prefix: str = ""
    cache_folder: Path | None = None

    def __iter__(self) -> Iterator[Sample | Skipped]:
        """The tiles, and a ``Skipped`` for each slide without any.

        Raises:
            KdkitError: no slide with a tile; a wrong option; OpenSlide is not installed.
        """
        where = str(self.location)
        openslide(where)
        plan, slides = self.plan(), self.slides()
        if self.max_tiles_per_slide is not None and self.max_tiles_per_slide < 1:
            fix = "give a number of at least 1, or remove the option"
            raise KdkitError("KD-SRC-348", f"max_tiles_per_slide is {self.max_tiles_per_slide}", where=where, fix=fix)
        cache, used, left_out = TileCache(self.cache_folder, plan.as_json()), 0, Counter[str]()
        shared = set[str]() if self.coordinates is None else _shared_names(slides)
        for slide in slides:
            if isinstance(slide, Skipped):
                yield slide
                continue
            try:
                if Path(str(slide.image)).stem in shared:
                    raise Unusable(Skipped(SHARED, str(slide.image), "rename them before their coordinates are made"))
                tiles = self._tiles(slide, plan, cache)
            except Unusable as error:
                left_out[error.skipped.what] += 1
                yield error.skipped
                continue
            used += 1
            yield from self._samples(slide, tiles)
        if not used:
            why = ", ".join(f"{count} {what}" for what, count in left_out.items())
            fix = "check the path and the options of the data entry"
            raise KdkitError("KD-SRC-349", "no slide with a tile here", where=where, why=why, fix=fix)

    def plan(self) -> TilePlan:
        """How slides become tiles.

        Raises:
            KdkitError: a wrong option, or one beside ``coordinates``.
        """
        own = {name: getattr(self, name) for name in ("tile_size", "mpp", "magnification", "min_tissue", "slide_mpp")}
        given = [name for name, value in own.items() if value is not None]
        if self.coordinates is not None and given:
            raise KdkitError(
                "KD-SRC-350",
                f"{', '.join(given)} and coordinates exclude each other",
                where=str(self.location),
                why="the files of coordinates say how large tiles are",
                fix=f"remove {', '.join(given)}",
            )
        return TilePlan.of(str(self.location), **own)

    def slides(self) -> SlideFolder | SlideTable:
        """The slides.

        Raises:
            KdkitError: a wrong option, or one of the other form.
        """
        table = self.location.suffix.lower() in TABLES
        others = ("classes", "group_pattern") if table else ("columns", "metadata")
        if wrong := [name for name in others if getattr(self, name)]:
            raise KdkitError(
                "KD-SRC-351",
                f"{', '.join(wrong)} cannot be used here",
                where=str(self.location),
                why=f"{'columns and metadata are' if not table else 'classes and group_pattern are'} options of "
                f"{'folders' if table else 'CSV files'}",
                fix=f"remove {', '.join(wrong)}" + "; the columns label and group name them" * table,
            )
        if table:
            return open_table(
                self.location,
                columns=self.columns,
                domain=self.domain,
                caption=self.caption,
                split=self.split,
                splits=self.splits,
                split_fractions=self.split_fractions,
                image_root=self.image_root,
                metadata=self.metadata,
                delimiter=self.delimiter,
            )
        splits = FolderSplits.of(self.split, self.split_fractions, self.splits, str(self.location))
        return open_folder(
            self.location,
            domain=self.domain,
            caption=self.caption,
            classes=self.classes,
            splits=splits,
            group_pattern=self.group_pattern,
        )

    def coordinates_folder(self) -> Path | None:
        """The folder of :attr:`coordinates`."""
        folder = self.location if self.location.is_dir() else self.location.parent
        return None if self.coordinates is None else folder / self.coordinates

    def _tiles(self, slide: Sample, plan: TilePlan, cache: TileCache) -> Tiles:
        path = Path(str(slide.image))
        folder = self.coordinates_folder()
        if folder is None:
            return cache.get(path, lambda: cut_into_tiles(path, plan))
        file = coordinates_file(folder, path)
        if file is None:
            names = " or ".join(name.format(stem=path.stem) for name in NAMES)
            raise Unusable(Skipped("slides without a file of coordinates", str(path), f"put {names} into {folder}"))
        return read_tiles(path, file)

    def _samples(self, slide: Sample, tiles: Tiles) -> Iterator[Sample]:
        corners = tiles.corners
        if self.max_tiles_per_slide is not None and len(corners) > self.max_tiles_per_slide:
            seed = blake2b(f"{self.seed}\0{slide.id}".encode(), digest_size=8).digest()
            order = np.random.default_rng(int.from_bytes(seed, "big")).permutation(len(corners))
            corners = corners[np.sort(order[: self.max_tiles_per_slide])]  # more tiles keep those of fewer
        for x, y in corners.tolist():
            at = (x, y, tiles.level, tiles.read, tiles.side)
            image = ImageLocation("wsi", Path(str(slide.image)), at, f"{x}, {y}")
            yield replace(slide, id=f"{self.id_prefix}{slide.id}_{x}_{y}", image=image)


def _shared_names(slides: Iterable[Sample | Skipped]) -> set[str]:
    """File names without ending that several slides have, in different folders."""
    paths = {Path(str(slide.image)) for slide in slides if isinstance(slide, Sample)}
    return {name for name, count in Counter(path.stem for path in paths).items() if count > 1}
