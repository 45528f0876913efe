"""Images among a student's inputs as bytes, without loss.

Preprocessing resizes 8-bit images and then maps each byte of a channel to a number: ``(byte / 255 - mean) / std``. So a
channel of prepared pixels has at most 256 values. They are found by preparing 256 images of one gray each, for any
family of students. A row is kept as bytes only if the bytes give exactly its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from kdkit.core.contracts import Sample, Student

GRAYS = 256
Tables = Mapping[str, NDArray[np.float32]]
Prepared = Mapping[str, Tensor]


class InputBytes:
    """Converts a student's prepared inputs to bytes and back.

    Args:
        tables: name of an input of shape (C, H, W) -> (C, 256) float32, its number for each byte.
    """

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    @classmethod
    def of(cls, student: Student, sample: Sample) -> InputBytes:
        """Those of ``student``; no input becomes bytes if its preprocessing is of another kind.

        Args:
            student: of any family.
            sample: any that the student can be taught; its text is prepared beside each gray.
        """
        first = student.prepare(Image.new("RGB", (GRAYS, GRAYS)), sample)
        names = [name for name, x in first.items() if x.dtype == torch.float32 and x.ndim == 3 and x.shape[0] <= 4]
        if not names:
            return cls({})
        size = (first[names[0]].shape[2], first[names[0]].shape[1])
        rows = [student.prepare(Image.new("RGB", size, (gray,) * 3), sample) for gray in range(GRAYS)]
        found = {name: _table([row[name] for row in rows]) for name in names}
        return cls({name: table for name, table in found.items() if table is not None})

    def encode(self, row: Prepared) -> dict[str, Tensor] | None:
        """One sample's inputs with (C, H, W) uint8 instead of numbers; None if that would lose something."""
        coded = dict(row)
        for name, table in self.tables.items():
            numbers = row[name].numpy()
            first, last = table[:, :1, None], table[:, -1:, None]
            bytes_ = np.rint((numbers - first) / (last - first) * (GRAYS - 1)).clip(0, GRAYS - 1).astype(np.uint8)
            if not np.array_equal(self._numbers(name, bytes_[None])[0], numbers):
                return None
            coded[name] = torch.from_numpy(bytes_)
        return coded

    def decode(self, inputs: Prepared) -> dict[str, Tensor]:
        """Stacked inputs (B, ...) with numbers again, as :meth:`encode` got them."""
        return {
            name: torch.from_numpy(self._numbers(name, x.numpy())) if name in self.tables and _is_bytes(x) else x
            for name, x in inputs.items()
        }

    def _numbers(self, name: str, bytes_: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, C, H, W) uint8 -> float32."""
        table, found = self.tables[name], np.empty(bytes_.shape, np.float32)
        for channel, values in enumerate(table):
            np.take(values, bytes_[:, channel], mode="clip", out=found[:, channel])
        return found


def _is_bytes(x: Tensor) -> bool:
    return x.dtype == torch.uint8


def _table(rows: list[Tensor]) -> NDArray[np.float32] | None:
    """(C, 256): the number of each gray; None if an image of one gray has several, or they do not ascend."""
    stacked = torch.stack(rows)  # (256, C, H, W)
    table = stacked[:, :, 0, 0]
    if not torch.equal(stacked, table[:, :, None, None].expand_as(stacked)):
        return None
    ascending = bool((table.diff(dim=0) > 0).all())
    return np.ascontiguousarray(table.numpy().T) if ascending else None
