"""Convert a sample to tensors of equal shapes, and a batch of them to network arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import RopeVariant, Sample
from kdkit.plugins.students.clinkd.answer_reader import IGNORED, AnswerReader, padded
from kdkit.plugins.students.clinkd.batches import Batch, Embedded, WithImages, padded_ids
from kdkit.plugins.students.clinkd.chat import TEMPLATE, prompt_of
from kdkit.plugins.students.clinkd.images import CONFIG, ImageSettings, pictures_of
from kdkit.plugins.students.clinkd.rotary import position_rows
from kdkit.plugins.students.clinkd.tokens import IMAGE, PAD


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
class Preparation(AnswerReader):
    """Everything that turns samples into inputs of Qwen's models; deterministic, safe in threads."""

    images: ImageSettings
    variant: RopeVariant

    def prompt(self, image: Image.Image, sample: Sample) -> Prompt:
        """Tokenize a sample without its answer. Raises: KdkitError naming the sample."""
        settings = self.settings
        pictures = pictures_of(image, sample, square=settings.square)
        self.require_images(sample, len(pictures))
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
        text = prompt_of(converted, images=len(pictures), system=settings.system or "", question=settings.question)
        merge = self.images.merge_size
        merged = [(t, h // merge, w // merge) for t, h, w in grids]
        ids = self._with_images(self.tokens.encode(text), merged)
        self.check_length(sample, ids, len(ids) + 1)
        modality = (ids == self.tokens.id(IMAGE)).long()
        positions = self.variant.positions(torch.cat([modality, modality.new_zeros(1)]), merged)
        return Prompt(ids, position_rows(positions), torch.cat(patches), torch.tensor(grids), sizes)

    def _with_images(self, ids: Sequence[int], grids: Sequence[tuple[int, int, int]]) -> Tensor:
        """Each image token repeated for its image."""
        counts, image = iter(t * h * w for t, h, w in grids), self.tokens.id(IMAGE)
        repeats = torch.tensor([next(counts) if token == image else 1 for token in ids])
        return torch.tensor(ids).repeat_interleave(repeats)

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
        answer = self.read_answer(sample, prompt.sizes, len(prompt.ids))
        start, length = len(prompt.ids), len(prompt.ids) + len(answer)
        self.check_length(sample, prompt.ids, length)
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

    def arguments(self, inputs: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
        """The network's arguments beside tokens and mask, for a batch of ``inputs`` cut to ``length`` tokens."""
        positions = inputs["positions"][..., :length].transpose(0, 1)
        return {"position_ids": positions, **network_images(self.images, inputs)}

    def batch(self, network: Any, prompts: Sequence[Prompt]) -> Batch:
        """Prompts for ``generate``, left-padded, with their images embedded once where the network allows it."""
        device = network.device
        ids, mask = padded_ids([prompt.ids for prompt in prompts], self.tokens.id(PAD), device)
        size = ids.shape[1]
        positions = torch.stack([padded(p.positions[:, :-1], size, left=True) for p in prompts], dim=1).to(device)
        if self.family.answers == "images":
            return WithImages(ids, mask, positions, prompts, lambda rows, _: self._images(network, rows))
        embeddings = network.get_input_embeddings()(ids)
        images = self._images(network, prompts)
        seen = network.model.visual(images["pixel_values"], grid_thw=images["image_grid_thw"])
        seen = getattr(seen, "pooler_output", seen)  # transformers before 5.3 gives the merged tokens themselves
        places = (ids == network.config.image_token_id)[..., None]
        return Embedded(embeddings.masked_scatter(places, seen.to(embeddings.dtype)), mask, positions)

    def _images(self, network: Any, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        found = (torch.cat([getattr(p, name) for p in prompts]).to(network.device) for name in ("patches", "grids"))
        patches, grids = found
        return {"pixel_values": self.images.normalized(patches).to(network.dtype), "image_grid_thw": grids}

    def identity(self) -> dict[str, str]:
        """What decides a sample's inputs."""
        settings, images = self.settings, self.images
        return {
            "tokenizer": self.tokens.digest(),
            "template": f"{TEMPLATE}, system {settings.system!r}, question {settings.question!r}",
            "preprocessing": str(images) + ", square" * settings.square,
            "boxes": self.boxes.identity(images.min_pixels, images.max_pixels, images.unit),
        }

    def files(self) -> dict[str, bytes]:
        """Tokenizer and image settings, as files of a saved student."""
        config = json.dumps(self.images.config(), indent=2) + "\n"
        return {**self.tokens.files, CONFIG: config.encode()}


def network_images(images: ImageSettings, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``patches`` (B, most, ...) and ``grids`` (B, max_images, 3) -> the network's arguments, without padding."""
    grids = inputs["grids"]
    counts = grids.prod(dim=-1).sum(dim=-1).tolist()
    patches = torch.cat([row[:count] for row, count in zip(inputs["patches"], counts, strict=True)])
    return {"pixel_values": images.normalized(patches), "image_grid_thw": grids[grids[..., 0] > 0]}
