"""Captions of the demo's pictures, and the list of their words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kdkit.plugins.demo.images import DOMAINS, FINDINGS

NOUNS: dict[str, tuple[str, ...]] = {
    "ct": ("ct scan", "computed tomography image"),
    "mri": ("mri scan", "magnetic resonance image"),
    "xray": ("chest radiograph", "xray image"),
    "ultrasound": ("ultrasound image", "sonogram"),
    "fundus": ("fundus photograph", "retinal photograph"),
    "dermoscopy": ("dermoscopy image", "skin photograph"),
    "histology": ("histology slide", "microscopy image"),
    "endoscopy": ("endoscopy image", "endoscopic view"),
    "oct": ("oct scan", "optical coherence tomography image"),
}
"""Names of a picture of each domain."""
_CAPTIONS: tuple[str, ...] = (
    "{noun} showing {label}",
    "{noun} of a patient with {label}",
    "{label} on {noun}",
    "findings are {label}",
    "the {noun} confirms {label}",
    "this {noun} demonstrates {label}",
    "{label} is seen on this {noun}",
)
_GENERIC: tuple[str, ...] = (
    "{noun}",
    "{noun} of an adult patient",
    "one more {noun}",
    "routine {noun} without comment",
)


@dataclass(frozen=True, slots=True)
class CaptionMix:
    """Shares of captions that name only the modality (``generic``) or a wrong finding."""

    generic: float = 0.5
    wrong: float = 0.1


def write_captions(domain: str, label: str, rng: np.random.Generator, count: int, mix: CaptionMix) -> list[str]:
    """``count`` captions for pictures of ``label``."""
    return [_write_caption(domain, label, rng, mix) for _ in range(count)]


def _write_caption(domain: str, label: str, rng: np.random.Generator, mix: CaptionMix) -> str:
    draw = rng.random()
    noun = _pick(NOUNS[domain], rng)
    if draw < mix.generic:
        return _pick(_GENERIC, rng).format(noun=noun)
    if draw < mix.generic + mix.wrong:
        label = _pick(tuple(other for other in FINDINGS[domain] if other != label), rng)
    return _pick(_CAPTIONS, rng).format(noun=noun, label=label)


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def all_texts() -> Iterator[str]:
    """Every possible caption of all domains and findings."""
    for domain in DOMAINS:
        for noun in NOUNS[domain]:
            yield from (text.format(noun=noun) for text in _GENERIC)
            yield from (text.format(noun=noun, label=label) for text in _CAPTIONS for label in FINDINGS[domain])


def word_list() -> list[str]:
    """Sorted vocabulary of the tokenizers of the dual encoders."""
    return sorted({word for text in all_texts() for word in text.split()})
