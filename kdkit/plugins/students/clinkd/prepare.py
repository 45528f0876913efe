"""Convert a sample to tensors of equal shapes, and a batch of them to network arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import BOX_FAMILY, RopeVariant, Sample
from kdkit.core.data.images import open_further_images
from kdkit.plugins.answers.boxes.own import OwnBoxes
from kdkit.plugins.students.clinkd.chat import check_text, prompt_of
from kdkit.plugins.students.clinkd.images import ImageSettings
from kdkit.plugins.students.clinkd.rotary import position_rows
from kdkit.plugins.students.clinkd.settings import Settings
from kdkit.plugins.students.clinkd.tokens import END, IMAGE, PAD, Tokens

IGNORED = -100
"""Label after the end of an answer."""


@dataclass(frozen=True)
class Prompt:
    """A tokenized sample without its answer.

    Attributes:
        ids: (S,) token ids, with as many image tokens as the images need.
        positions: (3, S + 1), the last one for the first token of the answer.
        patches: (N, 3 * P * P) uint8 of all images; ``grids``: (t, h, w) of each, in patches.
        sizes: (width, height) of each in pixels, resized.
    """

    ids: Tensor
    positions: Tensor
    patches: Tensor
    grids: Tensor
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Preparation:
    """Everything that turns samples into inputs; deterministic, safe in threads."""

    settings: Settings
    tokens: Tokens
    images: ImageSettings
    variant: RopeVariant
    boxes: OwnBoxes

    def prompt(self, image: Image.Image, sample: Sample) -> Prompt:
        """Tokenize a sample without its answer. Raises: KdkitError naming the sample."""
        settings = self.settings
        pictures = [image, *open_further_images(sample)]
        if len(pictures) > settings.max_images:
            raise _refused(sample, f"{len(pictures)} images, the model takes {settings.max_images}", "max_images")
        try:
            sizes = tuple(self.images.resized(*picture.size) for picture in pictures)
            patches, grids = zip(*(self.images.patches(picture) for picture in pictures), strict=True)
        except KdkitError as error:
            raise KdkitError(
                "KD-STUD-033",
                f"sample '{sample.id}': {error.what}",
                where=sample.origin,
                why=error.why,
                fix="correct the sample, or leave it out of the data",
            ) from error
        converted = self.boxes.question(sample, sizes)
        text = prompt_of(converted, images=len(pictures), system=settings.system, question=settings.question)
        merge = self.images.merge_size
        merged = [(t, h // merge, w // merge) for t, h, w in grids]
        ids = self._with_images(self.tokens.encode(text), merged)
        self._check_length(sample, ids, len(ids) + 1)
        modality = (ids == self.tokens.id(IMAGE)).long()
        positions = self.variant.positions(torch.cat([modality, modality.new_zeros(1)]), merged)
        return Prompt(ids, position_rows(positions), torch.cat(patches), torch.tensor(grids), sizes)

    def _with_images(self, ids: Sequence[int], grids: Sequence[tuple[int, int, int]]) -> Tensor:
        """Each image token repeated for its image."""
        counts, image = iter(t * h * w for t, h, w in grids), self.tokens.id(IMAGE)
        repeats = torch.tensor([next(counts) if token == image else 1 for token in ids])
        return torch.tensor(ids).repeat_interleave(repeats)

    def _check_length(self, sample: Sample, ids: Tensor, length: int) -> None:
        most, count = self.settings.max_tokens, int((ids == self.tokens.id(IMAGE)).sum())
        if length > most:
            what = f"{length} tokens ({count} of them image tokens), the model takes {most}"
            raise _refused(sample, what, "max_tokens, or lower max_pixels")

    def inputs(self, image: Image.Image, sample: Sample) -> dict[str, Tensor]:
        """A sample with its answer, right-padded.

        Returns:
            ``tokens`` (max_tokens,) int64; ``positions`` (3, max_tokens); ``length`` () of what is not padding;
            ``start`` () index of the answer's first token; ``answer_ids`` (max_answer,) with -100 after the end
            token; ``patches`` (most patches, 3 * P * P) uint8; ``grids`` (max_images, 3), zeros where absent.

        Raises:
            KdkitError: naming the sample.
        """
        settings, prompt = self.settings, self.prompt(image, sample)
        answer = self._answer(sample, prompt.sizes)
        start, length = len(prompt.ids), len(prompt.ids) + len(answer)
        self._check_length(sample, prompt.ids, length)
        after = prompt.positions[:, -1:] + torch.arange(1, len(answer)).to(prompt.positions.dtype)
        most = settings.max_images * self.images.most_patches
        return {
            "tokens": padded(torch.cat([prompt.ids, answer]), settings.max_tokens, self.tokens.id(PAD)),
            "positions": padded(torch.cat([prompt.positions, after], dim=1), settings.max_tokens),
            "length": torch.tensor(length),
            "start": torch.tensor(start),
            "answer_ids": padded(answer, settings.max_answer, IGNORED),
            "patches": padded(prompt.patches.T, most).T.contiguous(),
            "grids": padded(prompt.grids.T, settings.max_images).T.contiguous(),
        }

    def check_answer(self, sample: Sample) -> None:
        """Check an answer without its image, unless its boxes become pixels. Raises: KdkitError."""
        if not (self.boxes.pixels and sample.extra.get(BOX_FAMILY)):
            self._answer(sample, ())

    def answer_tokens(self, sample: Sample) -> list[int] | None:
        """Tokens of an answer with the end token; None if invalid, or if its boxes become pixels."""
        if self.boxes.pixels and sample.extra.get(BOX_FAMILY):
            return None
        try:
            ids: list[int] = self._answer(sample, ()).tolist()
        except KdkitError:
            return None
        return ids

    def _answer(self, sample: Sample, sizes: tuple[tuple[int, int], ...]) -> Tensor:
        """(A,) tokens with the end token."""
        text, most = self.boxes.answer(sample, sizes), self.settings.max_answer
        check_text(sample, text)
        answer = torch.tensor([*self.tokens.encode(text), self.tokens.id(END)])
        if len(answer) > most:
            raise _refused(sample, f"the answer has {len(answer)} tokens, the model takes {most}", "max_answer")
        return answer


def padded(x: Tensor, size: int, value: int = 0, *, left: bool = False) -> Tensor:
    """Pad the last dimension to ``size``."""
    room = size - x.shape[-1]
    return torch.nn.functional.pad(x, (room, 0) if left else (0, room), value=value)


def network_images(images: ImageSettings, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``patches`` (B, most, ...) and ``grids`` (B, max_images, 3) -> the network's arguments, without padding."""
    grids = inputs["grids"]
    counts = grids.prod(dim=-1).sum(dim=-1).tolist()
    patches = torch.cat([row[:count] for row, count in zip(inputs["patches"], counts, strict=True)])
    return {"pixel_values": images.normalized(patches), "image_grid_thw": grids[grids[..., 0] > 0]}


def _refused(sample: Sample, what: str, option: str) -> KdkitError:
    fix = f"raise {option}: in student.config, or in the options of the teacher that reads it"
    return KdkitError("KD-STUD-035", f"sample '{sample.id}': {what}", where=sample.origin, fix=fix)
