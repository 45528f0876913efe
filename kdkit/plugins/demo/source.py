"""The data sources ``procedural`` and ``procedural-questions``: drawn into a folder once, then read as manifests."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Sample, Skipped
from kdkit.plugins.demo.dataset import draw_split
from kdkit.plugins.demo.images import DOMAINS
from kdkit.plugins.demo.questions import MODALITIES, question_rows
from kdkit.plugins.sources.manifest import JsonlManifest

MANIFEST, OPTIONS = "samples.jsonl", "procedural.json"


class _Draw(Protocol):
    def __call__(
        self, domain: str, split: str, /, *, seed: int, count: int
    ) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8]]]:
        """Rows of the manifest with their pictures."""


def drawn_files(location: Path, **_: Any) -> Iterator[Path]:
    """What the samples depend on, once the pictures are drawn."""
    yield from (location / MANIFEST, location / OPTIONS)


def read_procedural(
    location: Path,
    *,
    seed: int = 0,
    train: int = 1000,
    calibration: int = 200,
    test: int = 300,
    domains: Sequence[str] | None = None,
) -> Iterable[Sample | Skipped]:
    """Samples of ``domains`` (default: all nine), with so many pictures of each in each split.

    Raises:
        KdkitError: an unknown domain; a folder with anything but pictures that were drawn with these options.
    """
    sizes = {"train": train, "calibration": calibration, "test": test}
    return _read("procedural", draw_split, location, seed, sizes, domains, DOMAINS)


def read_questions(
    location: Path,
    *,
    seed: int = 0,
    train: int = 300,
    calibration: int = 60,
    test: int = 100,
    domains: Sequence[str] | None = None,
) -> Iterable[Sample | Skipped]:
    """Four questions about each picture; ``domains`` are modalities with localized findings (default: all seven).

    The samples are in the domains ``vg/mri``, ``roc/mri``, ...

    Raises:
        KdkitError: as :func:`read_procedural`.
    """
    sizes = {"train": train, "calibration": calibration, "test": test}
    return _read("procedural-questions", question_rows, location, seed, sizes, domains, MODALITIES)


def _read(
    source: str,
    draw: _Draw,
    location: Path,
    seed: int,
    sizes: Mapping[str, int],
    domains: Sequence[str] | None,
    default: Sequence[str],
) -> Iterable[Sample | Skipped]:
    options = {"seed": seed, **sizes, "domains": None if domains is None else list(domains)}
    if not location.exists():
        location.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{location.name}.", dir=location.parent) as parent:
            draft = Path(parent) / location.name
            draft.mkdir()
            try:
                _write(draft, draw, seed, sizes, default if domains is None else domains)
            except ValueError as error:
                raise KdkitError(
                    "KD-DEMO-001", str(error), where=f"source '{source}'", fix="correct 'domains' of the data entry"
                ) from None
            (draft / OPTIONS).write_text(json.dumps(options) + "\n", encoding="utf-8")
            os.rename(draft, location)
    try:
        found = json.loads((location / OPTIONS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise KdkitError(
            "KD-DEMO-002",
            "this folder was not drawn by the demo",
            where=str(location),
            fix="give the data entry the path of a folder that does not exist",
        ) from None
    if found != options:
        raise KdkitError(
            "KD-DEMO-003",
            "this folder was drawn with other options than those of its data entry",
            where=str(location),
            why=f"the registry has {options}, the folder {found}",
            fix="give the data entry another path, or delete the folder to draw it again",
        )
    return JsonlManifest(location / MANIFEST)


def _write(folder: Path, draw: _Draw, seed: int, sizes: Mapping[str, int], domains: Sequence[str]) -> None:
    """Pictures and manifest; the bytes depend on the arguments only."""
    with (folder / MANIFEST).open("w", encoding="utf-8", newline="\n") as manifest:
        for domain in domains:
            (folder / "images" / domain).mkdir(parents=True)
            for split, count in sizes.items():
                for row, picture in draw(domain, split, seed=seed, count=count):
                    if not (folder / row["image"]).exists():
                        Image.fromarray(picture).save(folder / row["image"], compress_level=1)
                    manifest.write(json.dumps(row, ensure_ascii=False) + "\n")
