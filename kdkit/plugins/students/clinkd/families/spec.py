"""What a family of vision-language models differs in: plain data, no library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Axes = tuple[str, ...]
"""Meaning of the first axes of an image tensor: ``sample`` (one row for each sample), ``images`` of a sample, ``tiles``
of an image, ``all tiles`` of all images of a sample, or ``tokens`` of the prompt."""


@dataclass(frozen=True, kw_only=True)
class FamilySpec:
    """One family of models that ``AutoModelForImageTextToText`` of transformers opens.

    Attributes:
        name: ``model_type`` of its ``config.json``.
        summary: the models that people know it by.
        reader: who makes prompts and image tensors: ``chatml`` is kdkit's own code for Qwen's processors (images of any
            size, as bytes); ``processor`` is the processor and the chat template of the model's folder.
        positions: what the language tower's rotary module takes: ``sections`` and ``interleaved`` are time, row and
            column of every token, on those rotary planes; ``index`` is one number for every token.
        boxes: the family of :class:`BoxCodec` of its pretraining, or ``as-is`` if it has none.
        system: the system message of samples without one; empty for none.
        end: the token that ends a turn of its chat template; where the tokenizer has no such token, the special token
            that the folder's template writes behind an answer, or the tokenizer's end token.
        tensors: with ``processor``: the model's image arguments, and the axes of each.
        tiles: with ``processor``: what bounds the tiles of an image, see :func:`tensors.most_tiles`.
        real: the mask among ``tensors`` that is zero for tiles of padding, which are zero after normalization.
        token_types: whether the model takes ``token_type_ids``, 1 for image tokens, which then see each other.
        cells: how the tokens of an image lie over it: by the ``grids`` of its reader, as a ``square``, or not as one
            grid: then attention on images cannot be drawn.
        answers: how ``generate`` takes a batch: as ``embeddings`` with the images in them, or as token ids and
            ``images``, for models that use images in other layers too.
        language, vision: names of the towers below ``model``, for adapters and for freezing.
        unpacked: why the samples of a row cannot be kept apart; empty if they can.
        trained: prefixes of the vision tower's parameters that are trained although the tower is frozen.
    """

    name: str
    summary: str
    reader: Literal["chatml", "processor"] = "processor"
    positions: Literal["sections", "interleaved", "index"] = "index"
    boxes: str = "as-is"
    system: str = ""
    end: str = ""
    tensors: Mapping[str, Axes] = field(default_factory=dict)
    tiles: Literal["one", "crops", "patches", "pinpoints", "splits"] = "one"
    real: str = ""
    token_types: bool = False
    cells: Literal["grids", "square", ""] = ""
    answers: Literal["embeddings", "images"] = "embeddings"
    language: str = "language_model"
    vision: str = "vision_tower"
    unpacked: str = ""
    trained: tuple[str, ...] = ()

    @property
    def rope(self) -> str:
        """The RoPE variant of its pretraining."""
        return {"sections": "mrope", "interleaved": "mrope-interleaved", "index": "rope-1d"}[self.positions]
