"""Similarities of unit rows in tiles, their softmaxes over rows and columns, and what their gradients need.

A matrix (B, B) of similarities is computed tile by tile, and again where it is needed twice, so nothing of its size is
held. Rows are not copied to scale them: each product is divided by the lengths of its two rows. A softmax takes two
passes: logsumexps of tiles add up by ``logaddexp`` to normalizers (online softmax, Milakov and Gimelshein 2018, arXiv
1805.02867, algorithm 3). With them, a tile's probabilities and slopes follow from the tile alone, in both directions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from kdkit.plugins.losses.rows import mask_rows

SHORTEST = 1e-12
"""Shorter rows count as this long, as in ``torch.nn.functional.normalize``."""
LARGEST_EXPONENT = 64.0
"""exp of all logits up to this size, and their sums, are normal numbers of float32: no row needs a shift of its own."""
READABLE = ("cpu",)
"""Types of devices whose numbers the host reads without waiting."""

Tile = tuple[slice, slice]
Compute = Callable[..., tuple[Tensor, Sequence[Tensor]]]


@dataclass(frozen=True)
class UnitRows:
    """Rows (B, D) that products see with length 1, or as they are if ``inverse`` (B,), 1 / length, is None."""

    rows: Tensor
    inverse: Tensor | None = None

    @classmethod
    def of(cls, rows: Tensor) -> UnitRows:
        rows = rows.detach()
        return cls(rows, torch.linalg.vector_norm(rows, dim=-1).clamp_(min=SHORTEST).reciprocal_())

    @classmethod
    def constant(cls, rows: Tensor) -> UnitRows:
        """Of rows without gradient, whose lengths may be 1 already."""
        found = cls.of(rows)
        assert found.inverse is not None
        near = (found.inverse - 1).abs() <= 8 * torch.finfo(rows.dtype).eps
        return cls(found.rows) if is_readable(rows) and bool(near.all()) else found

    def finish_gradient_(self, gradient: Tensor, scale: Tensor) -> Tensor:
        """Make what :func:`add_gradients` collected the gradient of the rows, if logits are ``scale`` x similarity.

        Returns:
            () the sum of slope x similarity: the gradient of the scale.
        """
        along = row_dots(self.rows, gradient)
        if self.inverse is not None:  # the length of a row has no influence
            gradient.addcmul_(self.rows, (-along * self.inverse.square())[:, None])
        gradient.mul_(scale)
        return along.sum()


# ------------------------------------------------------------------------------------------------- tiles


def default_rows(device: torch.device) -> int:
    """Rows of a tile: few enough for the caches of a CPU, many enough to fill a GPU.

    A multiple of 128: on a CPU, tiles of 342 x 683 took half as long again as those of 384 x 768.
    """
    return 384 if device.type == "cpu" else 2048


def tiles(rows: range, columns: int, size: int) -> list[Tile]:
    """Tiles of ``size`` rows and twice as many columns, which cover some rows of a matrix with ``columns`` columns."""
    return [(part, other) for part in parts(rows, size) for other in parts(range(columns), 2 * size)]


def parts(rows: range, size: int) -> list[slice]:
    return [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


def buffers(count: int, like: Tensor, found: Sequence[Tile]) -> list[Tensor]:
    """Flat memory for ``count`` tiles."""
    size = max(((rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in found), default=0)
    return [like.new_empty(size) for _ in range(count)]


def similarities(query: UnitRows, key: UnitRows, tile: Tile, memory: Tensor, scale: Tensor | float = 1.0) -> Tensor:
    """``scale`` x the products of a tile's rows of ``query`` and columns' rows of ``key``, in ``memory``."""
    left, right = query.rows[tile[0]], key.rows[tile[1]]
    alpha = scale if isinstance(scale, float) else 1.0
    found = shaped(memory, tile)
    torch.addmm(found, left, right.T, beta=0, alpha=alpha, out=found)
    return _divided(found, query, key, tile, scale if isinstance(scale, Tensor) else None)


def shaped(memory: Tensor, tile: Tile) -> Tensor:
    """A buffer as a matrix of the tile's size."""
    rows, columns = tile[0].stop - tile[0].start, tile[1].stop - tile[1].start
    return memory[: rows * columns].view(rows, columns)


def add_gradients(
    slope: Tensor, query: UnitRows, key: UnitRows, tile: Tile, to_query: Tensor, to_key: Tensor | None = None
) -> None:
    """Add to gradients (B, D) what ``slope``, the gradient of a tile's logits, gives; it is overwritten."""
    _divided(slope, query, key, tile)
    pairs = [(to_query[tile[0]], slope, key.rows[tile[1]])]
    if to_key is not None:
        pairs.append((to_key[tile[1]], slope.T, query.rows[tile[0]]))
    for total, left, right in pairs:
        torch.addmm(total, left, right, out=total)  # unlike addmm_, torch's counter of operations knows it


def _divided(found: Tensor, query: UnitRows, key: UnitRows, tile: Tile, scale: Tensor | None = None) -> Tensor:
    """A tile x ``scale``, divided by the lengths of its rows and columns, in place."""
    factor = None if query.inverse is None else query.inverse[tile[0], None]
    if scale is not None:
        factor = scale if factor is None else scale * factor
    if factor is not None:
        found.mul_(factor)
    return found if key.inverse is None else found.mul_(key.inverse[tile[1]])


def row_dots(x: Tensor, y: Tensor) -> Tensor:
    """(rows,) sums of the products of two matrices' rows, without a matrix of products."""
    return torch.bmm(x[:, None], y[:, :, None])[:, 0, 0]


# ------------------------------------------------------------------------------------- absent samples


def absent_samples(weight: Tensor) -> Tensor | None:
    """(B,) bool where the weight is 0; None if there are none, which is not looked for on a GPU."""
    absent = weight == 0
    return None if is_readable(weight) and not bool(absent.any()) else absent


def present_rows(x: Tensor, absent: Tensor | None) -> Tensor:
    """(B, D) with zeros for absent samples; ``x`` itself if there are none."""
    return x if absent is None else mask_rows(x, ~absent)


def hide_(logits: Tensor, tile: Tile, absent: Tensor | None, domain: Tensor | None = None) -> Tensor:
    """Set logits (of absent samples even NaN) to -inf: of absent samples, and between samples of different domains."""
    rows, columns = tile
    if domain is not None:
        logits.masked_fill_(domain[rows, None] != domain[columns], -torch.inf)
    if absent is not None:
        logits.masked_fill_(absent[rows, None] | absent[columns], -torch.inf)
    return logits


# ------------------------------------------------------------------------------------------- softmaxes


def is_bounded(scale: Tensor | float) -> bool:
    """Whether all exponentials of ``scale`` x cosine are known to be normal numbers."""
    return (not isinstance(scale, Tensor) or is_readable(scale)) and float(scale) <= LARGEST_EXPONENT


def is_readable(x: Tensor) -> bool:
    """Whether the host may look at numbers; for those of a GPU, it would have to wait."""
    return x.device.type in READABLE


def log_normalizers(
    query: UnitRows,
    key: UnitRows,
    scale: Tensor | float,
    found: Sequence[Tile],
    absent: Sequence[Tensor | None],
    domain: Tensor | None = None,
) -> Tensor:
    """(len(absent), 2, B) float64: for each set of absent samples, logsumexps of rows, and of columns over the tiles'
    rows.

    Those of rows without tiles, or of absent samples, are -inf. In float32 a logarithm of 20 is off by 1e-6: an error
    of all probabilities of a row, which close to the target is as large as the gradient. Apple's GPUs have no float64:
    there, normalizers are as the rows.
    """
    exact = query.rows.dtype if query.rows.device.type == "mps" else torch.float64
    bounded, (memory,) = is_bounded(scale), buffers(1, query.rows, found)
    total = query.rows.new_full((len(absent), 2, len(query.rows)), -torch.inf, dtype=exact)
    for tile in found:
        logits = similarities(query, key, tile, memory, scale)
        for number, missing in enumerate(absent):
            visible = hide_(logits if len(absent) == 1 else logits.clone(), tile, missing, domain)
            powers = visible.exp_() if bounded else None
            for axis in (0, 1):
                some = visible.logsumexp(1 - axis).to(exact) if powers is None else powers.sum(1 - axis).to(exact).log()
                normalizer = total[number, axis, tile[axis]]
                torch.logaddexp(normalizer, some, out=normalizer)
    return total


def gathered_normalizers(found: Tensor, gather: Callable[[Tensor], Tensor]) -> Tensor:
    """(..., 2, B) with logsumexps of columns over the rows of all ranks; a collective call."""
    return torch.stack([found[..., 0, :], gather(found[None, ..., 1, :]).logsumexp(0)], -2)


def weighted(normalizers: Tensor, weight: Tensor) -> Tensor:
    """(2, B) normalizers that give weight x probability: ``weight * exp(l - n) = exp(l - (n - log(weight)))``."""
    return torch.where(weight > 0, normalizers - weight.to(normalizers.dtype).log(), torch.inf)


def add_softmaxes_(
    logits: Tensor, tile: Tile, normalizers: Tensor, by_row: Tensor, by_column: Tensor, *, bounded: bool
) -> None:
    """Add the (weighted) softmaxes over rows and columns; ``logits`` is overwritten."""
    rows, columns = normalizers[0, tile[0], None], normalizers[1, tile[1]]
    if bounded:
        powers = logits.exp_()
        by_row.addcmul_(powers, (-rows).exp().to(powers.dtype))
        by_column.addcmul_(powers, (-columns).exp().to(powers.dtype))
    else:
        by_row.add_((logits - rows.to(logits.dtype)).exp_())
        by_column.add_(logits.sub_(columns.to(logits.dtype)).exp_())


# ------------------------------------------------------------------------------------------- autograd


def with_gradients(compute: Compute, *inputs: Tensor) -> Tensor:
    """The value () of ``compute(*inputs)``, which returns it with the gradient of each input, computed without a graph.

    The first backward pass hands the gradients over without a copy; another one computes them again.
    """
    return cast(Tensor, _KnownGradients.apply(compute, *inputs))


class _KnownGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, compute: Compute, *inputs: Tensor) -> Tensor:
        ctx.compute = compute
        ctx.save_for_backward(*inputs)
        value, ctx.gradients = compute(*inputs)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:
            _, gradients = ctx.compute(*ctx.saved_tensors)
        return None, *(gradient.mul_(grad) for gradient in gradients)
