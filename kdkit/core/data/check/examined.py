"""What all checks read: the samples of every data entry, and what decoding showed of their images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kdkit.core.contracts import SPLITS, Reporter, Sample
from kdkit.core.data.entries import LoadedEntry, read_sources
from kdkit.core.data.unreadable import DecodedImages, all_images_of, decode_all
from kdkit.core.project.project import Project

UNLABELED = "(no label)"
Counts = dict[str, dict[str, dict[str, int]]]
"""Domain -> class -> split -> samples."""


@dataclass(frozen=True, eq=False)
class Examined:
    """N samples, ids not checked, images perhaps missing.

    Attributes:
        project: whose samples these are.
        entries: one per data entry.
        samples: of all entries, in their order.
        entry: (N,) number of each sample's entry.
        images: of all samples.
        skip_unreadable: unreadable images of all entries are skipped, not problems.
        reporter: shows progress.
    """

    project: Project
    entries: Sequence[LoadedEntry]
    samples: Sequence[Sample]
    entry: NDArray[np.int64]
    images: DecodedImages
    skip_unreadable: bool
    reporter: Reporter | None = None

    def skips(self, row: int) -> bool:
        """Whether the sample's unreadable images are skipped."""
        return self.skip_unreadable or self.entries[self.entry[row]].skip_unreadable

    @cached_property
    def split(self) -> NDArray[np.int64]:
        """(N,) position of each sample's split in ``SPLITS``."""
        return np.array([SPLITS.index(sample.split) for sample in self.samples], dtype=np.int64)

    @cached_property
    def counts(self) -> Counts:
        """Samples by domain, class and split; those without a label have the class ``(no label)``."""
        found = Counter((s.domain, s.label or UNLABELED, s.split) for s in self.samples)
        counts: Counts = {}
        for domain, label in sorted({(domain, label) for domain, label, _ in found}):
            counts.setdefault(domain, {})[label] = {split: found[domain, label, split] for split in SPLITS}
        return counts

    @cached_property
    def pairs(self) -> NDArray[np.int64]:
        """(P, 2): a row of a sample, and the position of one of its images that can be decoded."""
        found = [
            (row, place)
            for row, sample in enumerate(self.samples)
            for image in all_images_of(sample)
            if (place := self.images.places[image]) not in self.images.reasons
        ]
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    @cached_property
    def readable(self) -> NDArray[np.bool_]:
        """(M,) which of the images can be decoded."""
        found = np.ones(len(self.images.facts), dtype=bool)
        found[list(self.images.reasons)] = False
        return found


def examine(project: Project, *, skip_unreadable: bool = False, reporter: Reporter | None = None) -> Examined:
    """Read all data entries and decode every image; errors as :func:`~kdkit.core.data.entries.read_sources`."""
    entries = read_sources(project, reporter)
    samples = [sample for entry in entries for sample in entry.samples]
    numbers = np.repeat(np.arange(len(entries)), [len(entry.samples) for entry in entries])
    images = decode_all(project.state, samples, reporter)
    return Examined(project, entries, samples, numbers, images, skip_unreadable, reporter)


def is_question(sample: Sample) -> bool:
    """Whether the sample asks something, so that its text is an answer."""
    return bool(sample.extra.get("messages"))
