"""The words of the demo world: captions for training, prompts for zero-shot classification, and the word list."""

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
"""What a picture of each domain is called."""

PROMPTS: tuple[str, ...] = (
    "{noun} showing {label}",
    "{noun} of a patient with {label}",
    "{label} on {noun}",
    "findings are {label}",
)
"""The prompt ensemble, with {noun} and {label} to fill in."""

_CAPTIONS: tuple[str, ...] = (
    *PROMPTS,
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
    """How captions err: the share that names only the modality, and the share that names a wrong finding."""

    generic: float = 0.5
    wrong: float = 0.1


def write_captions(domain: str, label: str, rng: np.random.Generator, count: int, mix: CaptionMix) -> list[str]:
    """``count`` captions for pictures of ``label``; the shares in ``mix`` of them name a wrong finding, or none."""
    return [_write_caption(domain, label, rng, mix) for _ in range(count)]


def _write_caption(domain: str, label: str, rng: np.random.Generator, mix: CaptionMix) -> str:
    fate = rng.random()
    noun = _pick(NOUNS[domain], rng)
    if fate < mix.generic:
        return _pick(_GENERIC, rng).format(noun=noun)
    if fate < mix.generic + mix.wrong:
        label = _pick(tuple(other for other in FINDINGS[domain] if other != label), rng)
    return _pick(_CAPTIONS, rng).format(noun=noun, label=label)


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def prompt_templates(domain: str) -> tuple[str, ...]:
    """The prompt ensemble of a domain: templates that still hold ``{label}``."""
    return tuple(dict.fromkeys(prompt.replace("{noun}", noun) for prompt in PROMPTS for noun in NOUNS[domain]))


def class_prompts(domain: str) -> dict[str, list[str]]:
    """Every prompt of every finding of a domain; a class embedding is the mean over its prompts."""
    templates = prompt_templates(domain)
    return {label: [template.format(label=label) for template in templates] for label in FINDINGS[domain]}


def all_texts() -> Iterator[str]:
    """Every text that this world can produce: captions and prompts, all domains and findings."""
    for domain in DOMAINS:
        for noun in NOUNS[domain]:
            yield from (text.format(noun=noun) for text in _GENERIC)
            yield from (text.format(noun=noun, label=label) for text in _CAPTIONS for label in FINDINGS[domain])


def word_list() -> list[str]:
    """All words in use, sorted: the vocabulary of the demo's tokenizers."""
    return sorted({word for text in all_texts() for word in text.split()})
