"""Samples as inputs of models that are read with the processor of their folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from kdkit.core.contracts import Sample
from kdkit.plugins.loaders.hugging_face import digest_files
from kdkit.plugins.students.clinkd.answer_reader import IGNORED, AnswerReader, padded
from kdkit.plugins.students.clinkd.batches import Batch, Embedded, WithImages, padded_ids
from kdkit.plugins.students.clinkd.chat import messages_of
from kdkit.plugins.students.clinkd.families.processor import FamilyProcessor
from kdkit.plugins.students.clinkd.families.tensors import Layout
from kdkit.plugins.students.clinkd.images import pictures_of

TEMPLATE = "the folder's chat template 1"
"""Part of the student's identity; it changes with the prompt that the same messages give."""


@dataclass(frozen=True)
class Prompt:
    """A tokenized sample without its answer.

    Attributes:
        ids: (S,) token ids, with as many image tokens as the images need.
        tensors: the processor's image tensors, pixels as uint8.
        sizes: (width, height) of each image.
    """

    ids: Tensor
    tensors: Mapping[str, Tensor]
    sizes: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ProcessorPreparation(AnswerReader):
    """Everything that turns samples into inputs; deterministic, safe in threads.

    Attributes:
        processor: of the model's folder.
        image_id: the id of the model's image tokens.
    """

    processor: FamilyProcessor
    image_id: int

    @property
    def image_token(self) -> int:
        return self.image_id

    @property
    def layout(self) -> Layout:
        """The shapes of the image tensors."""
        settings, processor = self.settings, self.processor
        return Layout(self.family, settings.max_images, processor.tiles, settings.max_tokens, processor.normalization)

    def prompt(self, image: Image.Image, sample: Sample) -> Prompt:
        """Tokenize a sample without its answer. Raises: KdkitError naming the sample."""
        settings = self.settings
        pictures = pictures_of(image, sample, square=settings.square)
        self.require_images(sample, len(pictures))
        sizes = tuple(picture.size for picture in pictures)
        messages = messages_of(
            self.boxes.question(sample, sizes),
            images=len(pictures),
            system=settings.system or "",
            question=settings.question,
            structure=self.tokens.marks.structure,
        )
        found, tensors = self.processor.process(sample, self.processor.text(sample, messages), pictures)
        ids = torch.tensor(found)
        self.check_length(sample, ids, len(ids) + 1)
        return Prompt(ids, tensors, sizes)

    def inputs(self, image: Image.Image, sample: Sample) -> dict[str, Tensor]:
        """A sample with its answer, right-padded.

        Returns:
            ``tokens`` (max_tokens,) int64; ``length`` () of what is not padding; ``start`` () index of the answer's
            first token; ``answer_ids`` (max_answer,) with -100 after the end token; the image tensors, see
            :meth:`Layout.pack`.

        Raises:
            KdkitError: naming the sample.
        """
        settings, prompt = self.settings, self.prompt(image, sample)
        answer = self.read_answer(sample, prompt.sizes, len(prompt.ids))
        start, length = len(prompt.ids), len(prompt.ids) + len(answer)
        self.check_length(sample, prompt.ids, length)
        pad = self.tokens.id(self.tokens.marks.pad)
        return {
            "tokens": padded(torch.cat([prompt.ids, answer]), settings.max_tokens, pad),
            "length": torch.tensor(length),
            "start": torch.tensor(start),
            "answer_ids": padded(answer, settings.max_answer, IGNORED),
            **self.layout.pack(prompt.tensors, length),
        }

    def arguments(self, inputs: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
        """The network's arguments beside tokens and mask, for a batch of ``inputs`` cut to ``length`` tokens."""
        layout = self.layout
        types = {"token_type_ids": self._types(inputs["tokens"][:, :length])} if self.family.token_types else {}
        return {**types, **layout.batch(layout.unpack(inputs), length)}

    def batch(self, network: Any, prompts: Sequence[Prompt]) -> Batch:
        """Prompts for ``generate``, left-padded, with their images embedded once where the network allows it."""
        device, layout = network.device, self.layout
        ids, mask = padded_ids([prompt.ids for prompt in prompts], self.tokens.id(self.tokens.marks.pad), device)

        def images(rows: Sequence[Prompt], length: int) -> dict[str, Tensor]:
            given = [{name: x.to(device) for name, x in row.tensors.items()} for row in rows]
            return layout.batch(given, length, prompts=ids.shape[1])

        if self.family.answers == "images":
            types = self._types(ids) if self.family.token_types else None
            axes = self.family.tensors.items()
            flat = [name for name, named in axes if named[0] != "sample"]
            joined = any(len(prompt.tensors[name]) > 1 for prompt in prompts for name in flat)
            return WithImages(ids, mask, None, prompts, images, types, joined)
        found = network.model.get_image_features(**images(prompts, ids.shape[1]))
        found = getattr(found, "pooler_output", found)
        seen = torch.cat(list(found)) if isinstance(found, list | tuple) else found
        places = ids == self.image_id
        embeddings = network.get_input_embeddings()(ids.masked_fill(places, 0))  # some have no row for image tokens
        whole = embeddings.masked_scatter(places[..., None], seen.to(embeddings.dtype))
        return Embedded(whole, mask, None)

    def _types(self, ids: Tensor) -> Tensor:
        return (ids == self.image_id).long()

    def identity(self) -> dict[str, str]:
        """What decides a sample's inputs."""
        settings, processor = self.settings, self.processor
        template = digest_files({"template": processor.template.encode()})
        return {
            "tokenizer": self.tokens.digest(),
            "template": f"{TEMPLATE}, {template}, system {settings.system!r}, question {settings.question!r}",
            "preprocessing": f"{processor.kind}, {processor.settings()}" + ", square" * settings.square,
            "boxes": self.boxes.family,
        }

    def files(self) -> dict[str, bytes]:
        """The processor's files, as they were."""
        return dict(self.processor.files)
