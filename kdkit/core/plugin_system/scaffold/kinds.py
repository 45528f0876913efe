"""The kinds of plugins that can be generated, one per family."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from kdkit.core.plugin_system.catalogue import Family


@dataclass(frozen=True)
class Kind:
    """One kind of plugin.

    Attributes:
        summary: one line about the generated plugin, for its pyproject and README.
        requires: distributions that its code imports, besides kdkit.
        layers: shared folders below ``templates/``, besides ``common`` and the kind's own.
    """

    summary: str
    requires: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()


ENCODER = "encoder"
"""A small dual encoder with its weights: teachers and loaders are made of it."""
MODEL_REQUIRES = ("numpy", "pillow", "safetensors", "torch")

KINDS: Mapping[Family, Kind] = {
    "teacher": Kind("a teacher that knows eight colors", MODEL_REQUIRES, (ENCODER,)),
    "student": Kind("a small dual encoder to distill into", MODEL_REQUIRES),
    "aligner": Kind("an aligner that projects at random, and keeps angles", ("torch",)),
    "loss": Kind("a loss that forgives outliers", ("torch",)),
    "rope": Kind("a RoPE variant in which image tokens take small steps", ("torch",)),
    "source": Kind("a source that reads captions from text files beside the images"),
    "reader": Kind("a reader of raw gray frames", ("pillow",)),
    "policy": Kind("a trust policy that weighs by proven skill", ("numpy",)),
    "task": Kind("a task that measures how often an image finds its caption", ("numpy",)),
    "recipe": Kind("a recipe with a strict gate"),
    "suite": Kind("a benchmark suite of one data set"),
    "loader": Kind("a loader for an architecture of its own", MODEL_REQUIRES, (ENCODER,)),
}
"""In the order of ``kdkit new-plugin --help``."""
