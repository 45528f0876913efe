"""Which images can be decoded."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import ImageOptions, ImageRef, Reporter, Sample
from kdkit.core.data.digests import stamp_of
from kdkit.core.data.image_facts import FACTS, ImageFacts
from kdkit.core.data.index import SampleIndex
from kdkit.core.data.locations import file_of, images_of
from kdkit.core.data.names import name_some

MISSING = "no such file"
Image = tuple[ImageRef, ImageOptions]


@dataclass(frozen=True, eq=False)
class DecodedImages:
    """M different images.

    Attributes:
        places: image -> its position, in the order of the samples.
        facts: (M,) records of :data:`~kdkit.core.data.image_facts.FACTS`; zeros where unreadable.
        reasons: position -> ``kind: reason`` of an unreadable image.
    """

    places: dict[Image, int]
    facts: NDArray[Any]
    reasons: dict[int, str]

    def reason(self, image: Image) -> str | None:
        """Why the image cannot be read, if it cannot."""
        return self.reasons.get(self.places[image])


def all_images_of(sample: Sample) -> list[Image]:
    """The sample's images, each with how it is decoded."""
    return [(path, sample.image_options) for path in images_of(sample)]


def decode_all(state: Path, samples: Iterable[Sample], reporter: Reporter | None) -> DecodedImages:
    """Decode every image of the samples once, or never if that was done before.

    Args:
        state: the project's folder for machine state.
        samples: any.
        reporter: shows progress.
    """
    places: dict[Image, int] = {}
    for sample in samples:
        for image in all_images_of(sample):
            places.setdefault(image, len(places))
    facts, reasons = np.zeros(len(places), dtype=FACTS), dict[int, str]()
    there = {file: os.path.isfile(file) for file in dict.fromkeys(file_of(path) for path, _ in places)}
    by_options: dict[ImageOptions, list[Image]] = defaultdict(list)
    for image, place in places.items():
        if there[file_of(image[0])]:
            by_options[image[1]].append(image)
        else:
            reasons[place] = MISSING
    for options, images in by_options.items():
        found, failed = ImageFacts(state, options).get([(path, stamp_of(path)) for path, _ in images], reporter)
        chosen = np.array([places[image] for image in images], dtype=np.int64)
        for name in FACTS.names or ():
            facts[name][chosen] = found[name]
        reasons |= {int(chosen[number]): reason for number, reason in failed.items()}
    return DecodedImages(places, facts, reasons)


def find_skipped(
    index: SampleIndex, state: Path, reporter: Reporter | None = None, *, refuse: bool = False
) -> NDArray[np.bool_]:
    """(N,) samples with an unreadable image whose data entry skips it.

    For runs without an extraction before them. Decodes each image once.

    Args:
        index: N samples.
        state: the project's folder for machine state.
        reporter: shows progress, and is warned of skipped samples.
        refuse: decode the images of all entries, and refuse those that may not be skipped.

    Raises:
        KdkitError: ``refuse`` is set and an entry without ``skip_unreadable`` has unreadable images.
    """
    broken, rows = np.zeros(len(index), dtype=bool), np.arange(len(index)) if refuse else np.flatnonzero(index.may_skip)
    found = decode_all(state, (index.samples[row] for row in rows), reporter)
    if not found.reasons:
        return broken
    for row in rows:
        broken[row] = any(found.reason(image) is not None for image in all_images_of(index.samples[row]))
    refused = [index.samples[row] for row in np.flatnonzero(broken & ~index.may_skip)]
    if refused:
        image = next(image for image in all_images_of(refused[0]) if found.reason(image) is not None)
        plural = "s" * (len(refused) > 1)
        raise KdkitError(
            "KD-DATA-018",
            f"{len(refused)} sample{plural} with an unreadable image: {name_some(sample.id for sample in refused)}",
            where=str(image[0]),
            why=str(found.reason(image)),
            fix="repair or remove the files ('kdkit data check' lists them), or set skip_unreadable: true in the "
            "options of their data entry",
            code=ExitCode.FOUND,
        )
    if reporter and broken.any():
        names = name_some(index.ids[row] for row in np.flatnonzero(broken))
        reporter.warn(f"{int(broken.sum())} samples with unreadable images skipped: {names}")
    return broken
