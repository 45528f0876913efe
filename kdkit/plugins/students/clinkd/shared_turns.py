"""Turns of one conversation in a batch: an earlier turn stands in the sequence of a later one, and is read there.

A language tower is causal, so the states of an earlier turn are the same in both. Conversations then cost one sequence
and one look at their images, and each turn keeps its own loss. No state behind an answer's last token is read, so the
later sequence may leave out the token that ended the answer. A turn whose tokens, positions or images are not those
of the later sequence is computed by itself: after a chat template that changes or drops earlier turns, after text whose
tokens merge over the border of an answer, or where the later turn adds an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

_OWN = ("tokens", "length", "start", "answer_ids", "positions")
"""Inputs that differ between the turns of a conversation; all others are images."""


def owners(inputs: Mapping[str, Tensor]) -> list[int]:
    """(B,) the sample in whose sequence each one stands; its own number if in none.

    Args:
        inputs: of B samples, as a student prepares them.
    """
    lengths: Sequence[int] = inputs["length"].tolist()
    rows = [row.tobytes() for row in inputs["tokens"].cpu().numpy()]
    width = inputs["tokens"].element_size()
    begins = [row[: width * (length - 1)] for row, length in zip(rows, lengths, strict=True)]
    found = list(range(len(lengths)))
    kept: list[int] = []
    for one in sorted(found, key=lambda number: (-lengths[number], number)):
        whole = next(
            (
                other
                for other in kept
                if rows[other].startswith(begins[one]) and _same(inputs, one, other, lengths[one] - 1)
            ),
            one,
        )
        found[one] = whole
        if whole == one:
            kept.append(one)
    return found


def _same(inputs: Mapping[str, Tensor], one: int, other: int, length: int) -> bool:
    """Whether positions of the first ``length`` tokens, and all images, are equal."""
    positions = inputs.get("positions")
    if positions is not None and not torch.equal(positions[one][..., :length], positions[other][..., :length]):
        return False
    return all(torch.equal(x[one], x[other]) for name, x in inputs.items() if name not in _OWN)
