"""What is known about a published model, each fact with its source. A fact that is not known is absent."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

Distillation = Literal["allowed", "non-commercial", "forbidden", "unknown"]
Kind = Literal["image-text", "image", "text", "answers"]
Channels = Literal["RGB", "gray"]
ResizeMode = Literal["shortest", "longest", "squash"]


@dataclass(frozen=True, kw_only=True)
class FactSource:
    """Where facts come from."""

    facts: tuple[str, ...]
    """Names of fields of :class:`TeacherFacts`."""
    source: str
    """A public place: ``hf:ORG/REPO FILE``, ``github:OWNER/NAME@COMMIT PATH``, an address, or how it was measured."""
    verified: bool = True
    """The source is the model's own, or a measurement; False for third parties and memory."""


@dataclass(frozen=True, kw_only=True)
class TeacherFacts:
    """Facts about a published model. ``kdkit teachers show`` prints them; empty values are unknown.

    ``add-teacher`` compares ``image_dim``, ``text_dim``, ``image_size``, ``context_length``, ``mean`` and ``std`` with
    the loaded model.
    """

    kind: Kind = "image-text"
    """What it reads into features; ``answers`` for a model that answers questions."""
    architecture: str = ""
    """Both towers in a few words."""
    parameters: int | None = None
    """Number of weights of all towers that are used."""
    image_dim: int | None = None
    """Width of an image's features."""
    text_dim: int | None = None
    """Width of a text's features."""
    image_size: int | None = None
    """Height and width in pixels."""
    interpolation: str = ""
    """How images are resized: ``bicubic``, ``bilinear``, ``nearest`` or ``lanczos``."""
    resize_mode: ResizeMode | Literal[""] = ""
    """Which side is resized to ``image_size``: ``shortest``, before the center is cropped; ``longest``, before padding;
    ``squash``: both."""
    crop: str = ""
    """What the mode alone does not say, such as ``resize to 256, crop 224`` or ``pad with gray``."""
    mean: tuple[float, ...] = ()
    """Per channel, of pixels in [0, 1]."""
    std: tuple[float, ...] = ()
    """Per channel, of pixels in [0, 1]."""
    channels: Channels | Literal[""] = ""
    """``gray`` for models that make every image gray first."""
    context_length: int | None = None
    """Tokens of a text, with special ones."""
    truncation: str = ""
    """What the original code does with longer texts; kdkit truncates."""
    tokenizer: str = ""
    """Kind and vocabulary."""
    template: str = ""
    """The sentence in which the authors put a class: ``a photo of {}``."""
    weights_format: str = ""
    """Of the published files: ``safetensors``, ``pickle (.bin)`` ..."""
    license: str = "unknown"
    """The name that counts for the weights, in the spelling of SPDX or the Hub."""
    license_card: str = ""
    """As the model card says it."""
    license_file: str = ""
    """As the license file or the repository of its code says it."""
    distillation: Distillation = "unknown"
    """Whether its license allows training a student on its outputs: ``"allowed"``; ``"non-commercial"``, for projects
    with ``use: research`` alone; ``"forbidden"``; or ``"unknown"``, which counts as not allowed outside of research
    unless ``license`` is a known one. ``notes`` gives the reason."""
    commercial: bool | None = None
    """Whether its license allows commercial use of the model itself."""
    gated: bool | None = None
    """Whether the Hub requires accepting terms before download."""
    domains: tuple[str, ...] = ()
    """Domains that its authors name; trust is measured and does not depend on them."""
    training_data: str = ""
    """What it was trained on."""
    overlaps: tuple[str, ...] = ()
    """Public test sets whose images, or images of the same collection, were in its training data."""
    paper: str = ""
    """Link to its paper."""
    verified: str = ""
    """What was run or compared, and how; empty if nothing was."""
    checked: str = ""
    """The day on which the facts were looked up: ``2026-11-30``."""
    sources: tuple[FactSource, ...] = ()
    """Where each fact comes from."""


ABOUT = ("kind", "distillation", "verified", "checked", "sources")
"""Fields that need no source of their own: a choice of words, a conclusion, and the record itself."""


def known_facts(facts: TeacherFacts) -> dict[str, Any]:
    """Field -> value of everything that is known, in the order of the class, without :data:`ABOUT`."""
    values = {field.name: getattr(facts, field.name) for field in fields(TeacherFacts) if field.name not in ABOUT}
    return {name: value for name, value in values.items() if value not in (None, "", (), "unknown")}


def sources_of(facts: TeacherFacts) -> dict[str, tuple[FactSource, ...]]:
    """Field -> its sources; a field without any is not in the result."""
    found: dict[str, tuple[FactSource, ...]] = {}
    for source in facts.sources:
        for name in source.facts:
            found[name] = (*found.get(name, ()), source)
    return found
