"""The samples of a project in a fixed order, with their domains, labels and splits as arrays."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kdkit.core.base.errors import KdkitError, did_you_mean
from kdkit.core.base.journal import SampleKey
from kdkit.core.contracts import FINDINGS, IMAGE_CAPTIONS, QUESTION, SPLITS, Sample, Split, question_of
from kdkit.core.data.collect import to_table
from kdkit.core.data.table import SampleTable
from kdkit.core.data.teacher_labels import GAVE

TEXTS = 65_536
"""Texts that are compared at once."""
_SPACES = r"[\x00-\x1f]|  |^ | $"
"""In ASCII texts that ``str.split`` and ``" ".join`` may change."""


class SampleIndex:
    """N samples in the order of the registry's data entries, then of their sources.

    The samples are Arrow columns. Read one column or an array where that is enough: a ``Sample`` is made anew each time
    that its row is read.

    Args:
        samples: N samples; other sequences than tables become one.
        digests: (N,) uint64; changes when an image file's bytes, the text or ``extra`` change.
        may_skip: (N,) bool; True where the data entry says ``skip_unreadable``.

    Attributes:
        samples: N samples.
        ids: their ids.
        texts: their texts.
    """

    def __init__(self, samples: Sequence[Sample], digests: NDArray[np.uint64], may_skip: NDArray[np.bool_]) -> None:
        self.samples = samples if isinstance(samples, SampleTable) else to_table(samples)
        self.digests, self.may_skip = digests, may_skip
        self.ids, self.texts = self.samples.texts("id"), self.samples.texts("text")

    def __len__(self) -> int:
        return len(self.samples)

    def rows_with(self, key: str) -> NDArray[np.int64]:
        """Ascending rows of the samples with this key in ``extra``."""
        return self.samples.rows_with(key)

    def part(self, rows: NDArray[np.int64]) -> SampleIndex:
        """An index of the samples ``rows`` alone."""
        return SampleIndex(self.samples.take(rows), self.digests[rows], self.may_skip[rows])

    def digest_of(self, rows: NDArray[np.int64], *, labels: bool = True) -> str:
        """Hex digest of the ids, contents, domains, splits and, if asked, labels of ``rows``, in their order."""
        names = [self.domains, self.classes if labels else {}]
        digest = hashlib.sha256(json.dumps(names, sort_keys=True).encode())
        for start in range(0, len(rows), TEXTS):
            ids = self.samples.column("id").take(pa.array(rows[start : start + TEXTS]))
            digest.update(json.dumps(ids.to_pylist()).encode())
        for values in (self.digests, self.domain_index, self.split_index, *([self.label_index] if labels else [])):
            digest.update(values[rows].tobytes())
        return digest.hexdigest()

    def keyed(self, rows: Iterable[int]) -> list[tuple[SampleKey, Sample]]:
        """The samples of ``rows`` with their journal keys."""
        found = ((int(self.digests[row]), self.samples[row]) for row in rows)
        return [((sample.id, digest), sample) for digest, sample in found]

    @cached_property
    def domains(self) -> tuple[str, ...]:
        """All domains, sorted."""
        codes, names = self.samples.codes("domain")
        return tuple(sorted(names[code] for code in np.unique(codes)))

    @cached_property
    def domain_index(self) -> NDArray[np.int64]:
        """(N,) position of each sample's domain in :attr:`domains`."""
        codes, names = self.samples.codes("domain")
        return _positions(names, self.domains)[codes]

    @cached_property
    def classes(self) -> Mapping[str, tuple[str, ...]]:
        """Domain -> its labels, sorted; empty for a domain without labels. A domain that a teacher gave to a sample
        gets no class from it: predictions would choose among others.
        """
        codes, names = self.samples.codes("label")
        own = np.where(self.domain_of_teacher, -1, self.domain_index)
        return {
            domain: tuple(sorted(names[code] for code in np.unique(codes[own == number]) if code >= 0))
            for number, domain in enumerate(self.domains)
        }

    @cached_property
    def label_index(self) -> NDArray[np.int64]:
        """(N,) position of each sample's label in its domain's classes, -1 where it has none or is none of them."""
        codes, names = self.samples.codes("label")
        found = np.full(len(self), -1, dtype=np.int64)
        for number, domain in enumerate(self.domains):
            rows = (self.domain_index == number) & (codes >= 0)
            found[rows] = _positions(names, self.classes[domain])[codes[rows]]
        return found

    @cached_property
    def findings(self) -> Mapping[str, tuple[str, ...]]:
        """Domain -> its findings, sorted, for domains whose samples may have several classes; see :attr:`classes`."""
        found: dict[str, set[str]] = {}
        rows = self.rows_with(FINDINGS)
        for row in rows[~self.domain_of_teacher[rows]]:
            domain = self.domains[self.domain_index[row]]
            found.setdefault(domain, set()).update(self.samples[row].extra[FINDINGS])
        return {domain: tuple(sorted(names)) for domain, names in found.items()}

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """All questions of the samples' metadata, once each."""
        asked = (question_of(self.samples[row]) for row in self.samples.naming(QUESTION))
        return tuple(dict.fromkeys(text for text in asked if text))

    @cached_property
    def split_index(self) -> NDArray[np.int64]:
        """(N,) position of each sample's split in :data:`kdkit.core.contracts.SPLITS`."""
        return np.asarray(self.samples.column("split").to_numpy(), dtype=np.int64)

    @cached_property
    def text_index(self) -> NDArray[np.int64]:
        """(N,) equal numbers for samples with equal texts; case, spaces and a final full stop do not count."""
        column, keys = self.samples.column("text"), []
        for start in range(0, len(self), TEXTS):
            keys += [_text_keys(chunk) for chunk in column.slice(start, TEXTS).chunks]
        found = pa.chunked_array(keys, pa.large_string()).dictionary_encode()  # one dictionary for all chunks
        codes = [chunk.indices.to_numpy() for chunk in found.chunks]
        return np.concatenate([np.zeros(0, np.int32), *codes]).astype(np.int64)

    @cached_property
    def caption_groups(self) -> NDArray[np.int64] | None:
        """(N,) equal numbers for the captions of one image, of which a pass takes one; None if no image has several."""
        rows = self.samples.naming(IMAGE_CAPTIONS)
        if not len(rows):
            return None
        keys = self.samples.image_keys.cast(pa.large_string()).take(pa.array(rows)).combine_chunks().dictionary_encode()
        found = np.arange(len(self), dtype=np.int64)
        found[rows] = len(self) + keys.indices.to_numpy().astype(np.int64)
        return found

    @property
    def has_text(self) -> NDArray[np.bool_]:
        """(N,) samples with a text that is not empty."""
        return self.samples.has_text

    @property
    def is_question(self) -> NDArray[np.bool_]:
        """(N,) samples with ``extra["messages"]``."""
        return self.samples.is_question

    @cached_property
    def domain_of_teacher(self) -> NDArray[np.bool_]:
        """(N,) samples whose domain is a label of a teacher: trust and evaluation never score them."""
        found = np.zeros(len(self), dtype=bool)
        found[self.samples.naming(GAVE["domain"])] = True
        return found

    @cached_property
    def text_of_teacher(self) -> NDArray[np.bool_]:
        """(N,) samples whose text is or names a label of a teacher: it is never taken for the truth."""
        found = self.domain_of_teacher.copy()
        found[self.samples.naming(GAVE["text"])] = True
        return found

    @cached_property
    def unanswered(self) -> NDArray[np.bool_]:
        """(N,) questions without an answer: no text."""
        return self.is_question & ~self.has_text

    def answered(self, *, held_out: bool) -> NDArray[np.bool_]:
        """(N,) all samples except :attr:`unanswered`; with ``held_out`` only those of calibration and test."""
        return ~self.unanswered & (not held_out or self.split_index != SPLITS.index("train"))

    def select(
        self,
        split: Split | None = None,
        domains: Sequence[str] | None = None,
        labeled: bool | None = None,
    ) -> NDArray[np.int64]:
        """Ascending indices of the samples that meet all given conditions.

        Raises:
            KdkitError: the domain or split does not exist.
        """
        chosen = np.ones(len(self), dtype=bool)
        if split is not None:
            chosen &= self.split_index == _position(split, SPLITS, "split")
        if domains is not None:
            wanted = [_position(domain, self.domains, "domain") for domain in domains]
            chosen &= np.isin(self.domain_index, wanted)
        if labeled is not None:
            chosen &= (self.label_index >= 0) == labeled
        return np.flatnonzero(chosen).astype(np.int64)


def text_key(text: str) -> str:
    """Equal for equal texts; case, spaces and a final full stop do not count.

    Example:
        >>> text_key("A  Nodule.") == text_key("a nodule")
        True
    """
    return " ".join(text.casefold().split()).removesuffix(".")


def _text_keys(texts: pa.Array) -> pa.Array:
    """(N,) :func:`text_key` of each text; by whole columns where texts are ASCII with single spaces."""
    plain = pc.and_(pc.string_is_ascii(texts), pc.invert(pc.match_substring_regex(texts, _SPACES)))
    lower = pc.ascii_lower(texts)
    keys = pc.if_else(pc.ends_with(lower, "."), pc.utf8_slice_codeunits(lower, 0, -1), lower)
    others = pc.invert(plain)
    if pc.any(others).as_py():
        found = [text_key(text) for text in texts.filter(others).to_pylist()]
        keys = pc.replace_with_mask(keys, others, pa.array(found, pa.string()))
    return keys.cast(pa.large_string())


def _positions(names: Sequence[str], among: Sequence[str]) -> NDArray[np.int64]:
    """Position of each name, -1 for others; one element at least, so that -1 can index it."""
    position = {name: i for i, name in enumerate(among)}
    return np.array([position.get(name, -1) for name in names] or [-1], dtype=np.int64)


def _position(value: str, among: Sequence[str], kind: str) -> int:
    if value not in among:
        raise KdkitError("KD-DATA-013", f"no {kind} '{value}' in the data", fix=did_you_mean(value, tuple(among)))
    return among.index(value)
