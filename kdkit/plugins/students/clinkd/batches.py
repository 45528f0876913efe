"""Prompts as ``generate`` takes them: with the images in their embeddings, or beside token ids."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from kdkit.plugins.students.clinkd.answer_reader import padded


class Batch(Protocol):
    """B prompts, left-padded to S tokens."""

    @property
    def mask(self) -> Tensor:
        """(B, S), 1 for what is no padding."""
        ...

    def arguments(self) -> dict[str, Tensor]:
        """What ``generate`` takes."""
        ...

    def repeated(self, times: int) -> Batch:
        """Every prompt ``times`` times, one after the other."""
        ...

    def continued(self, network: Any, ids: Tensor, known: Tensor) -> dict[str, Tensor]:
        """What the network's ``model`` takes for the prompts with ``ids`` (B, A) behind them, of which ``known`` are
        no padding."""
        ...


def padded_ids(prompts: Sequence[Tensor], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, S) of prompts, left-padded."""
    size = max(len(ids) for ids in prompts)
    ids = torch.stack([padded(row, size, pad, left=True) for row in prompts])
    mask = torch.stack([padded(torch.ones_like(row), size, left=True) for row in prompts])
    return ids.to(device), mask.to(device)


@dataclass(frozen=True)
class Embedded:
    """Fulfils :class:`Batch`: ``embeddings`` (B, S, H), ``mask`` (B, S), ``positions`` (3, B, S) or None for those of
    the mask."""

    embeddings: Tensor
    mask: Tensor
    positions: Tensor | None

    def arguments(self) -> dict[str, Tensor]:
        return {"inputs_embeds": self.embeddings, "attention_mask": self.mask, **_named(self.positions)}

    def repeated(self, times: int) -> Embedded:
        return Embedded(
            self.embeddings.repeat_interleave(times, 0),
            self.mask.repeat_interleave(times, 0),
            None if self.positions is None else self.positions.repeat_interleave(times, 1),
        )

    def continued(self, network: Any, ids: Tensor, known: Tensor) -> dict[str, Tensor]:
        return {
            "inputs_embeds": torch.cat([self.embeddings, network.get_input_embeddings()(ids)], dim=1),
            **_continued(self.mask, self.positions, known),
        }


@dataclass(frozen=True)
class WithImages:
    """Fulfils :class:`Batch`: ``ids`` (B, S), ``mask`` (B, S), ``positions`` as above, and the images beside them.

    Attributes:
        rows: what ``images`` makes the network's image arguments of, for that many tokens.
        types: (B, S) of families that take ``token_type_ids``.
        joined: whether a prompt has several of the rows that image arguments have: to repeat these one by one, as
            ``generate`` of some versions of transformers does, would mix up images.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor | None
    rows: Sequence[Any]
    images: Callable[[Sequence[Any], int], dict[str, Tensor]]
    types: Tensor | None = None
    joined: bool = False

    def arguments(self) -> dict[str, Tensor]:
        images = self.images(self.rows, self.ids.shape[1])
        return {"input_ids": self.ids, "attention_mask": self.mask, **_named(self.positions, self.types), **images}

    def repeated(self, times: int) -> WithImages:
        return replace(
            self,
            ids=self.ids.repeat_interleave(times, 0),
            mask=self.mask.repeat_interleave(times, 0),
            positions=None if self.positions is None else self.positions.repeat_interleave(times, 1),
            rows=[row for row in self.rows for _ in range(times)],
            types=None if self.types is None else self.types.repeat_interleave(times, 0),
        )

    def continued(self, network: Any, ids: Tensor, known: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        whole = torch.cat([self.ids, ids], dim=1)
        types = None if self.types is None else torch.cat([self.types, torch.zeros_like(ids)], dim=1)
        return {
            "input_ids": whole,
            **_continued(self.mask, self.positions, known),
            **_named(None, types),
            **self.images(self.rows, whole.shape[1]),
        }


def _named(positions: Tensor | None, types: Tensor | None = None) -> dict[str, Tensor]:
    given = {"position_ids": positions, "token_type_ids": types}
    return {name: x for name, x in given.items() if x is not None}


def _continued(mask: Tensor, positions: Tensor | None, known: Tensor) -> dict[str, Tensor]:
    """Mask and position ids of prompts with ``known`` (B, A) behind them."""
    whole = torch.cat([mask, known], dim=1)
    if positions is None:
        return {"attention_mask": whole, "position_ids": (whole.cumsum(1) - 1).clamp(min=0)}
    count = torch.arange(1, known.shape[1] + 1, device=mask.device)
    after = positions[..., -1:] + count.to(positions.dtype)
    return {"attention_mask": whole, "position_ids": torch.cat([positions, after], dim=-1)}
