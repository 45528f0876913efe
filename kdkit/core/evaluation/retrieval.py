"""Cross-modal retrieval: which caption is nearest to an image, and which image to a caption. Public: tasks of plugins
may use it.

Ranks are exact, and no matrix of all similarities is made: similarities are computed in float32, block by block, and
those too close to the right answer's are computed again in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import Sample
from kdkit.core.data.index import text_key

if TYPE_CHECKING:
    from torch import Tensor

TIE = 1e-12
"""Cosines that differ by less are equal; float64 is exact to 1e-14 here. Ties count against the model."""
BLOCK_IMAGES, BLOCK_TEXTS = 992, 1984
"""Rows of a block of similarities: 8 MB. A mask of a row is 248 words of 8 bytes, and a byte counts to 255."""
FEW = 4
"""If fewer than one in so many rows (columns) of a block may hold a nearer answer, they alone are compared."""
STRIP = 124
"""Images of a block that one thread compares at a time, while their similarities are in its cache."""
_PAIRS = 256
"""Similarities that are computed in float64 at a time: 1 MB of features, which stays in a processor's cache."""

Array = np.ndarray[Any, Any]
Integers = np.ndarray[Any, np.dtype[np.int64]]
InOrder = Callable[..., Iterable[tuple[Integers, Integers]]]
"""``map``, or that of a pool of threads."""


@dataclass(frozen=True)
class CaptionPairs:
    """Which images and captions of N samples belong together.

    Attributes:
        images: the first sample of each distinct image (I).
        texts: the first sample of each distinct caption (T); case, spaces and a final full stop do not count.
        image_of, text_of: (N,) the image and the caption of each sample, as a number in ``images`` and ``texts``.
    """

    images: tuple[Sample, ...]
    texts: tuple[Sample, ...]
    image_of: Integers
    text_of: Integers


def pair_captions(samples: Sequence[Sample]) -> CaptionPairs:
    """The distinct images and captions of samples; two samples with the same image file share an image."""
    images: dict[object, int] = {}
    texts: dict[str, int] = {}
    image_of = np.array([images.setdefault(sample.image, len(images)) for sample in samples], dtype=np.int64)
    text_of = np.array([texts.setdefault(text_key(sample.text), len(texts)) for sample in samples], dtype=np.int64)
    return CaptionPairs(_firsts(samples, image_of), _firsts(samples, text_of), image_of, text_of)


def _firsts(samples: Sequence[Sample], numbers: Integers) -> tuple[Sample, ...]:
    return tuple(samples[row] for row in np.unique(numbers, return_index=True)[1])


def sample_ranks(image: Array, text: Array, image_of: Integers, text_of: Integers) -> tuple[Integers, Integers]:
    """Rank of the best right caption for the image of each sample, and of the best right image for its caption.

    Candidates are the images and captions of these samples. Several captions of an image, and several images with equal
    captions, are all right.

    Args:
        image: (I, D) float32 unit rows.
        text: (T, D) float32 unit rows.
        image_of, text_of: (N,) the image and the caption of each sample, as rows of both.

    Returns:
        (N,) and (N,) int64; 1 is the first.
    """
    images, image_at = np.unique(image_of, return_inverse=True)
    texts, text_at = np.unique(text_of, return_inverse=True)
    right = np.unique(np.stack([image_at, text_at], axis=1), axis=0)
    whole = len(images) == len(image), len(texts) == len(text)  # then a copy would double the memory
    to_text, to_image = mutual_ranks(
        image if whole[0] else image[images], text if whole[1] else text[texts], right.astype(np.int64)
    )
    return to_text[image_at], to_image[text_at]


def mutual_ranks(image: Array, text: Array, right: Integers) -> tuple[Integers, Integers]:
    """Rank of the best right caption of each image, and of the best right image of each caption; 1 is the first.

    The rank is 1 + the number of wrong answers that are at least as near (within :data:`TIE`). It equals that of a
    float64 matrix of all similarities. Memory: the features, and some blocks of 8 MB.

    Args:
        image: (I, D) float32 unit rows.
        text: (T, D) float32 unit rows.
        right: (P, 2) distinct pairs of rows that belong together, sorted; each row is in at least one.

    Returns:
        (I,) and (T,) int64.

    Raises:
        KdkitError: rows that are NaN or infinite; nothing would be nearer than they are.
    """
    import torch

    for what, rows in (("images", image), ("captions", text)):
        _require_finite(what, rows)
    images, texts = (torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)) for rows in (image, text))
    pairs = torch.from_numpy(np.ascontiguousarray(right, dtype=np.int64))
    with torch.inference_mode():
        return _Ranking(images, texts, pairs).ranks()


def _require_finite(what: str, rows: Array) -> None:
    bad = ~np.isfinite(np.einsum("nd,nd->n", rows, rows))
    if bad.any():
        raise KdkitError(
            "KD-EVAL-500",
            f"{int(bad.sum())} of {len(rows)} features of {what} are NaN or infinite (first: row {bad.argmax()})",
            why="every comparison with such a row is false, so each of its answers would count as the nearest",
            fix="check the model's files and preprocessing, then compute its features again",
            code=ExitCode.FOUND,
        )


def at_least_as_near(image: Array, text: Array, right: Array) -> Array:
    """(N, T) bool: whether each caption is at least as near to an image as the image's own caption (within
    :data:`TIE`), as a float64 matrix of all similarities would say.

    Args:
        image, right: (N, D) float32 unit rows of images and of their own captions.
        text: (T, D) float32 unit rows.
    """
    similarity = image @ text.T
    own = np.einsum("nd,nd->n", image, right, dtype=np.float64)
    margin = _margin(image.shape[1])
    near = similarity > (own + margin)[:, None]
    row, column = np.nonzero((similarity > (own - margin)[:, None]) & ~near)
    for start in range(0, len(row), _PAIRS):
        r, c = row[start : start + _PAIRS], column[start : start + _PAIRS]
        near[r, c] = np.einsum("nd,nd->n", image[r], text[c], dtype=np.float64) > own[r] - TIE
    return np.asarray(near)


def _margin(width: int) -> float:
    """How much a float32 cosine may differ from the exact one: ``D u sum |x_i y_i| <= D u`` in any order of summation
    (Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1); 2 u more for rows that are not quite
    unit and for the limits."""
    return 1.01 * (width + 2) * float(np.finfo(np.float32).eps) / 2 + TIE


class _Ranking:
    """Counts the wrong answers that are nearer than the best right one, for both directions in one pass."""

    def __init__(self, images: Tensor, texts: Tensor, right: Tensor) -> None:
        import torch

        self.images, self.texts, self.right = images, texts, right
        self.margin = _margin(images.shape[1])
        cosine = torch.cat([self._exact(part[:, 0], part[:, 1]) for part in torch.split(right, _PAIRS)])
        self.best = [
            torch.full((size,), -torch.inf, dtype=torch.float64).scatter_reduce_(0, rows, cosine, "amax")
            for size, rows in zip((len(images), len(texts)), right.T, strict=True)
        ]
        self.nearer = [torch.zeros(len(rows), dtype=torch.int64) for rows in (images, texts)]

    def ranks(self) -> tuple[Integers, Integers]:
        import torch

        block = torch.empty(BLOCK_IMAGES, BLOCK_TEXTS)
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(threads) as pool:
            in_order = pool.map if threads > 1 else map
            for start, own in self._image_blocks():
                rows = slice(start, min(start + BLOCK_IMAGES, len(self.images)))
                of_rows = _limits(self.best[0][rows], self.margin, BLOCK_IMAGES)
                for first in range(0, len(self.texts), BLOCK_TEXTS):
                    columns = slice(first, min(first + BLOCK_TEXTS, len(self.texts)))
                    self._similarities(block, rows, columns, own)
                    of_columns = _limits(self.best[1][columns], self.margin, BLOCK_TEXTS)
                    for axis, limits in enumerate((of_rows, of_columns)):
                        self._count(block, axis, limits, (start, first), in_order)
        to_text, to_image = ((total + 1).numpy() for total in self.nearer)
        return to_text, to_image

    def _image_blocks(self) -> Iterator[tuple[int, Tensor]]:
        """First image of each block, and the right pairs of its images."""
        import torch

        starts = torch.arange(0, len(self.images), BLOCK_IMAGES)
        bounds = torch.searchsorted(self.right[:, 0].contiguous(), torch.cat([starts, starts[-1:] + BLOCK_IMAGES]))
        for number, start in enumerate(starts.tolist()):
            yield start, self.right[bounds[number] : bounds[number + 1]]

    def _similarities(self, block: Tensor, rows: slice, columns: slice, own: Tensor) -> None:
        """Fill the block; right answers, and what is beyond the last row or column, are at -inf: never nearer."""
        import torch

        height, width = rows.stop - rows.start, columns.stop - columns.start
        torch.mm(self.images[rows], self.texts[columns].T, out=block[:height, :width])
        block[height:] = -torch.inf
        block[:height, width:] = -torch.inf
        here = own[(own[:, 1] >= columns.start) & (own[:, 1] < columns.stop)]
        block[here[:, 0] - rows.start, here[:, 1] - columns.start] = -torch.inf

    def _count(self, block: Tensor, axis: int, limits: Array, corner: tuple[int, int], in_order: InOrder) -> None:
        """Count the nearer entries of the block's rows (axis 0) or columns.

        Most rows and columns of a good model hold none: their maxima tell, which cost less than masks. What float32
        does not decide is decided in float64.
        """
        chosen = np.flatnonzero(block.amax(1 - axis).numpy() > limits[1])
        if not len(chosen):
            return
        part = block.numpy()
        if len(chosen) * FEW < part.shape[axis]:
            part, limits = _take(part, limits, chosen, axis)
        else:
            chosen = np.arange(part.shape[axis])
        strips = [slice(start, start + STRIP) for start in range(0, len(part), STRIP)]
        compared = [limits[:, :, None][:, strip] if axis == 0 else limits[:, None] for strip in strips]
        found = list(in_order(partial(_nearer, axis=axis), [part[strip] for strip in strips], compared))
        counts = np.concatenate([count for count, _ in found]) if axis == 0 else np.sum([c for c, _ in found], axis=0)
        inside = chosen[: len(self.nearer[axis]) - corner[axis]]
        self.nearer[axis][_tensor(inside + corner[axis])] += _tensor(counts[: len(inside)])
        for strip, (_, close) in zip(strips, found, strict=True):
            if len(close):
                place = close + np.array([strip.start, 0])
                place[:, axis] = chosen[place[:, axis]]
                self._decide(place + np.array(corner), axis)

    def _decide(self, places: Integers, axis: int) -> None:
        """Count entries (n, 2) that are within the margin, where they are nearer in float64."""
        import torch

        for part in torch.split(_tensor(places), _PAIRS):
            won = self._exact(part[:, 0], part[:, 1]) > self.best[axis][part[:, axis]] - TIE
            self.nearer[axis].index_add_(0, part[:, axis], won.long())

    def _exact(self, image: Tensor, text: Tensor) -> Tensor:
        rows = self.images.numpy()[image.numpy()], self.texts.numpy()[text.numpy()]
        return _tensor(np.einsum("nd,nd->n", *rows, dtype=np.float64))


def _limits(best: Tensor, margin: float, size: int) -> Array:
    """(2, size) float32: what a similarity must exceed to be surely, and perhaps, nearer than the best right answer."""
    limits = np.full((2, size), np.inf, dtype=np.float32)
    limits[:, : len(best)] = best.numpy() + np.array([[margin], [-margin]])
    return limits


def _take(block: Array, limits: Array, chosen: Integers, axis: int) -> tuple[Array, Array]:
    """The chosen rows (axis 0) or columns, and their limits. Columns are filled up to whole words, with such that no
    entry can exceed."""
    if axis == 0:
        return block[chosen], limits[:, chosen]
    columns = np.pad(chosen, (0, -len(chosen) % 8), mode="edge")
    taken = limits[:, columns]
    taken[:, len(chosen) :] = np.inf
    return np.ascontiguousarray(block[:, columns]), taken


def _nearer(strip: Array, limits: Array, axis: int) -> tuple[Integers, Integers]:
    """Number of entries of each row (axis 0) or column that are surely nearer, and the places of those within the
    margin (n, 2).

    A mask is handled as words of eight bytes (S, BLOCK_TEXTS / 8), which is faster than as bools.
    """
    surely, perhaps = ((strip > limit).view(np.uint64) for limit in limits)
    sums = surely.sum(axis=1 - axis).view(np.uint8).astype(np.int64)
    close = surely ^ perhaps
    place = _places(np.flatnonzero(close != 0), close, strip.shape[1])  # of bools: faster than of words
    return sums if axis else sums.reshape(len(strip), 8).sum(axis=1), place


def _places(word: Integers, mask: Array, width: int) -> Integers:
    """(n, 2) row and column of the set bytes of the words ``word``."""
    number, byte = np.nonzero(mask.ravel()[word].view(np.uint8).reshape(-1, 8))
    return np.stack(np.divmod(word[number] * 8 + byte, width), axis=1)


def _tensor(array: Array) -> Tensor:
    import torch

    return torch.from_numpy(array)
