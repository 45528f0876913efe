"""A sample's answer as tokens, and the limits that a sample must keep; the same for all families."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import BOX_FAMILY, OWN_TOKENS, OwnTokens, Sample
from kdkit.plugins.answers.boxes.own import OwnBoxes
from kdkit.plugins.students.clinkd.chat import check_text
from kdkit.plugins.students.clinkd.families.spec import FamilySpec
from kdkit.plugins.students.clinkd.settings import Settings
from kdkit.plugins.students.clinkd.tokens import IMAGE, Tokens

IGNORED = -100
"""Label after the end of an answer."""


@dataclass(frozen=True)
class AnswerReader:
    """What turns the answers of samples into tokens; deterministic, safe in threads."""

    family: FamilySpec
    settings: Settings
    tokens: Tokens
    boxes: OwnBoxes

    def check_answer(self, sample: Sample) -> None:
        """Check an answer without its image, unless its boxes become pixels. Raises: KdkitError."""
        own = isinstance(sample.extra.get(OWN_TOKENS), OwnTokens)
        if own or not (self.boxes.pixels and sample.extra.get(BOX_FAMILY)):
            self.read_answer(sample, ())

    def answer_tokens(self, sample: Sample) -> list[int] | None:
        """Tokens of an answer with the end token; None if invalid, or if its boxes become pixels."""
        if self.boxes.pixels and sample.extra.get(BOX_FAMILY):
            return None
        try:
            ids: list[int] = self.read_answer(sample, ()).tolist()
        except KdkitError:
            return None
        return ids

    def read_answer(
        self, sample: Sample, sizes: tuple[tuple[int, int], ...], prompt: int = 0, most: int | None = None
    ) -> Tensor:
        """(A,) tokens with the end token.

        :class:`OwnTokens` of this tokenizer are taken as they are, up to the first end token and as far as they fit. A
        token that has no place in an answer becomes the end token: what is learned at a place depends on the tokens
        before it alone.

        Args:
            sizes: (width, height) of the images as the model sees them.
            prompt: tokens of the prompt.
            most: tokens of an answer that is no :class:`OwnTokens`; by default ``max_answer``.
        """
        own = sample.extra.get(OWN_TOKENS)
        if isinstance(own, OwnTokens) and own.tokenizer == self.tokens.digest():
            room = min(self.settings.max_answer, self.settings.max_tokens - prompt)
            return torch.tensor(self._up_to_end(own.ids)[:room])
        text, most = self.boxes.answer(sample, sizes), self.settings.max_answer if most is None else most
        check_text(sample, text, self.tokens.marks.structure)
        answer = torch.tensor([*self.tokens.encode_answer(text), self.tokens.id(self.tokens.marks.end)])
        if len(answer) > most:
            raise refused(sample, f"the answer has {len(answer)} tokens, the model takes {most}", "max_answer")
        return answer

    def _up_to_end(self, ids: Sequence[int]) -> list[int]:
        end, kept = self.tokens.id(self.tokens.marks.end), list[int]()
        for token in ids:
            kept.append(end if token in self.tokens.unwritable or token == self.image_token else token)
            if kept[-1] in self.tokens.ends:
                break
        return kept or [end]

    def check_length(self, sample: Sample, ids: Tensor, length: int) -> None:
        """Refuse a sample of more than ``max_tokens``; ``ids`` are those of its prompt."""
        most, count = self.settings.max_tokens, int((ids == self.image_token).sum())
        if length > most:
            what = f"{length} tokens ({count} of them image tokens), the model takes {most}"
            raise refused(sample, what, "max_tokens, or lower max_pixels")

    @property
    def image_token(self) -> int:
        """The id of the tokens that images take the place of."""
        return self.tokens.id(IMAGE)

    def require_images(self, sample: Sample, count: int) -> None:
        """Refuse a sample of more than ``max_images``."""
        if count > self.settings.max_images:
            what = f"{count} images, the model takes {self.settings.max_images}"
            raise refused(sample, what, "max_images")


def padded(x: Tensor, size: int, value: int = 0, *, left: bool = False) -> Tensor:
    """Pad the last dimension to ``size``."""
    room = size - x.shape[-1]
    return torch.nn.functional.pad(x, (room, 0) if left else (0, room), value=value)


def refused(sample: Sample, what: str, option: str) -> KdkitError:
    """The error of a sample that exceeds what ``option`` allows."""
    fix = f"raise {option}: in student.config, or in the options of the teacher that reads it"
    return KdkitError("KD-STUD-035", f"sample '{sample.id}': {what}", where=sample.origin, fix=fix)
