"""Sequence packing: samples share rows in the language tower, and attend to themselves alone.

The vision tower, the embeddings and the positions of a batch are computed as ever, each sample in a row of its own with
padding behind it. Hooks then put the samples into few rows as the language tower is called, and take its states apart
again. The tower gets no padding, positions that start anew with each sample, and either text positions that start anew,
from which transformers makes a block-diagonal mask (its form of packed sequences), or blocks of the masks that the
family made itself. Everything behind the tower sees the shapes that it would see without packing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.settings import WHERE

TOLERANCE = {torch.float32: 5e-3, torch.float64: 1e-5}
"""Largest length of the difference of a token's packed and separate states, relative to the length of these. It allows
TF32 and rounding over many layers: a token that sees another sample differs by the order of its own length."""
ROUNDED = 0.1
"""The same for other dtypes."""
_TRIED = (7, 4, 6)
"""Lengths of the sequences with which packing is tried."""
_PLAIN = ("inputs_embeds", "position_ids", "attention_mask", "visual_pos_masks", "deepstack_visual_embeds")
"""Tensors among a language tower's arguments that can be packed."""


def pack_rows(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Samples in rows of at most ``tokens`` tokens, by first fit, longest first; a longer sample has its own row.

    Example:
        >>> pack_rows([3, 9, 5, 4, 12], tokens=10)
        [[4], [1], [2, 3], [0]]
    """
    rows: list[list[int]] = []
    room: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda one: (-lengths[one], one)):
        size = lengths[number]
        at = next((row for row, free in enumerate(room) if free >= size), None)
        if at is None:
            rows.append([number])
            room.append(tokens - size)
        else:
            rows[at].append(number)
            room[at] -= size
    return rows


@dataclass(frozen=True)
class Packed:
    """Where the tokens of B samples, padded to S, stand in P rows of L tokens.

    Attributes:
        sample, place: (P, L) the sample and the place in it; sample -1 for filling.
        row, column: (B, S) the way back; 0 for padding.
        order: the samples as they follow each other in the rows.
    """

    sample: Tensor
    place: Tensor
    row: Tensor
    column: Tensor
    order: tuple[int, ...]

    @classmethod
    def of(cls, lengths: Sequence[int], size: int, rows: Sequence[Sequence[int]], device: torch.device) -> Packed:
        """The places of samples of these lengths, padded to ``size``, in ``rows``."""
        longest = max(sum(lengths[one] for one in row) for row in rows)
        sample = torch.full((len(rows), longest), -1)
        place = torch.zeros((len(rows), longest), dtype=torch.long)
        way = torch.zeros((2, len(lengths), size), dtype=torch.long)
        for number, row in enumerate(rows):
            start = 0
            for one in row:
                end, own = start + lengths[one], torch.arange(lengths[one])
                sample[number, start:end], place[number, start:end] = one, own
                way[0, one, : len(own)], way[1, one, : len(own)] = number, start + own
                start = end
        order = tuple(one for row in rows for one in row)
        return cls(sample.to(device), place.to(device), way[0].to(device), way[1].to(device), order)

    def pack(self, x: Tensor) -> Tensor:
        """(B, S, ...) -> (P, L, ...), zeros in the filling."""
        found = x[self.sample.clamp(min=0), self.place]
        return found.masked_fill((self.sample < 0).reshape(*self.sample.shape, *[1] * (x.ndim - 2)), 0)

    def unpack(self, x: Tensor) -> Tensor:
        """(P, L, ...) -> (B, S, ...); what stands in the padding has no meaning."""
        return x[self.row, self.column]

    def blocks(self, mask: Tensor) -> Tensor:
        """Attention masks (B, heads, S, S), bool or added, -> (P, heads, L, L): each sample's own blocks.

        Filling sees itself alone, so that no row of the softmax is empty.
        """
        allowed, forbidden = (True, False) if mask.dtype == torch.bool else (0.0, torch.finfo(mask.dtype).min)
        at, place = self.sample.clamp(min=0), self.place
        found = mask[at[:, :, None], :, place[:, :, None], place[:, None, :]].permute(0, 3, 1, 2)
        same = self.sample[:, :, None] == self.sample[:, None, :]
        filling = (self.sample < 0)[:, :, None] & same
        own = torch.eye(self.sample.shape[1], dtype=torch.bool, device=mask.device)
        found = found.masked_fill(~same[:, None], forbidden).masked_fill(filling[:, None], forbidden)
        return found.masked_fill((filling & own)[:, None], allowed)


class Packing:
    """Packs the samples of a batch in a network's language tower.

    Args:
        network: the transformers model.
        tokens: of a row, at most.

    Raises:
        KdkitError: a family, an implementation of attention or a version of transformers that cannot keep the samples
            of a row apart: two sequences are tried.
    """

    def __init__(self, network: Any, family: FamilySpec, tokens: int) -> None:
        self.family, self.tokens = family, tokens
        if family.unpacked:
            raise _refused(family, family.unpacked)
        self._require_exact(network)

    @contextmanager
    def rows(self, network: Any, lengths: Sequence[int], size: int, tokens: int | None = None) -> Iterator[None]:
        """Within it, the language tower gets the samples of these lengths, padded to ``size``, in rows.

        Args:
            tokens: of a row, at most; by default those of all.
        """
        tower = getattr(network.model, self.family.language)
        # Kernels for sequences of any lengths take one row, and no time for what samples do not see of each other.
        single = str(tower.config._attn_implementation).startswith("flash")
        rows = [sorted(range(len(lengths)))] if single else pack_rows(lengths, tokens or self.tokens)
        packed = Packed.of(lengths, size, rows, tower.get_input_embeddings().weight.device)
        hooks = [
            tower.register_forward_pre_hook(
                lambda _, args, given: (args, self._packed(packed, given)), with_kwargs=True, prepend=True
            ),
            tower.register_forward_hook(lambda _, __, output: _unpacked(packed, output)),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _packed(self, packed: Packed, given: Mapping[str, Any]) -> dict[str, Any]:
        """The language tower's arguments with samples in rows."""
        if others := [name for name, x in given.items() if isinstance(x, Tensor) and name not in _PLAIN]:
            raise _refused(self.family, f"its language tower also takes {', '.join(others)}")
        made = dict(given)
        made["inputs_embeds"] = packed.pack(given["inputs_embeds"])
        text, positions = packed.place[None], given.get("position_ids")
        if positions is not None and positions.ndim == 3:
            axes = torch.stack([packed.pack(axis) for axis in positions[-3:]])
            made["position_ids"] = torch.cat([text.to(axes.dtype), axes])
        else:
            made["position_ids"] = text[0]
        mask = given.get("attention_mask")
        made["attention_mask"] = self._masks(packed, mask) if _is_made(mask) else None
        shown = given.get("visual_pos_masks")
        if shown is not None:
            made["visual_pos_masks"] = packed.pack(shown)
            counts = shown.sum(1).tolist()
            made["deepstack_visual_embeds"] = [_in_order(x, counts, packed.order) for x in given[_PLAIN[-1]]]
        return made

    def _masks(self, packed: Packed, mask: Any) -> Any:
        masks = mask.values() if isinstance(mask, dict) else [mask]
        if not all(isinstance(one, Tensor) and one.ndim == 4 for one in masks):
            raise _refused(self.family, "its attention masks are of a kind that kdkit cannot cut into blocks")
        return (
            {name: packed.blocks(one) for name, one in mask.items()} if isinstance(mask, dict) else packed.blocks(mask)
        )

    @torch.no_grad()
    def _require_exact(self, network: Any) -> None:
        """Compare sequences of random embeddings in one row with the same ones in rows of their own."""
        tower = getattr(network.model, self.family.language)
        words = tower.get_input_embeddings().weight
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(len(words), (len(_TRIED), max(_TRIED)), generator=generator).to(words.device)
        index = torch.arange(max(_TRIED), device=words.device).expand(ids.shape)
        known = index < torch.tensor(_TRIED, device=words.device)[:, None]
        positions = index if self.family.positions == "index" else index.expand(3, *ids.shape)
        given = {"inputs_embeds": words[ids], "attention_mask": known.long(), "position_ids": positions}
        mode = tower.training
        tower.eval()
        try:
            apart = tower(**given, use_cache=False).last_hidden_state[known]
            with self.rows(network, _TRIED, max(_TRIED), sum(_TRIED)):
                together = tower(**given, use_cache=False).last_hidden_state[known]
        finally:
            tower.train(mode)
        lengths = apart.double().norm(dim=-1)
        difference = float(((apart.double() - together.double()).norm(dim=-1) / lengths).max())
        if not difference <= TOLERANCE.get(apart.dtype, ROUNDED):
            kind = tower.config._attn_implementation
            why = f"with {kind} attention, states of packed sequences differ by {difference:.2g} of their length"
            raise _refused(self.family, why)


def _is_made(mask: Any) -> bool:
    """Whether the family made its masks itself; of a mask of padding nothing is left."""
    return mask is not None and not (isinstance(mask, Tensor) and mask.ndim == 2)


def _in_order(x: Tensor, counts: Sequence[int], order: Sequence[int]) -> Tensor:
    """The image tokens (N, H) of samples that have ``counts`` of them, in another order of the samples."""
    parts = torch.split(x, list(counts))
    return torch.cat([parts[number] for number in order])


def _unpacked(packed: Packed, output: Any) -> Any:
    output["last_hidden_state"] = packed.unpack(output["last_hidden_state"])
    return output


def _refused(family: FamilySpec, why: str) -> KdkitError:
    return KdkitError(
        "KD-STUD-550",
        f"samples of the family {family.name} cannot share rows exactly",
        where=f"{WHERE}.init",
        why=why,
        fix="remove optimizer.pack_tokens from the recipe or registry; optimizer.micro_batch saves memory too",
    )
