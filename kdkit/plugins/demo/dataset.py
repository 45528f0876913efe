"""Labeled pictures with captions: the samples of the source ``procedural``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kdkit.plugins.demo.captions import CaptionMix, write_captions
from kdkit.plugins.demo.images import DOMAINS, FINDINGS, render

SPLITS: tuple[str, ...] = ("train", "calibration", "test")
CORRECT = CaptionMix(generic=0.0, wrong=0.0)
"""Captions of calibration and test rows name the true finding."""


def draw_split(
    domain: str, split: str, *, seed: int, count: int, mix: CaptionMix | None = None
) -> Iterator[tuple[dict[str, Any], NDArray[np.uint8]]]:
    """Rows of the manifest and uint8 (SIZE, SIZE, 3) pictures of one split of a domain, findings in turn.

    ``image`` is relative to the manifest's folder, ``label`` is the true finding.
    ``mix`` replaces the default captions: half generic and a tenth wrong in train, correct elsewhere.

    Raises:
        ValueError: an unknown domain.
    """
    if domain not in FINDINGS:
        raise ValueError(f"unknown domain {domain!r}; choose from {', '.join(DOMAINS)}")
    mix = mix or (CaptionMix() if split == "train" else CORRECT)
    drawn = [_draw_finding(domain, split, label, seed, count, mix) for label in FINDINGS[domain]]
    for index in range(count):
        label = FINDINGS[domain][index % len(drawn)]
        pictures, texts = drawn[index % len(drawn)]
        place = index // len(drawn)
        name = f"{domain}-{split}-{seed}-{index:05d}"
        about = {"text": texts[place], "domain": domain, "label": label, "split": split}
        yield {"id": name, "image": f"images/{domain}/{name}.png", **about}, pictures[place]


def _draw_finding(
    domain: str, split: str, label: str, seed: int, count: int, mix: CaptionMix
) -> tuple[NDArray[np.uint8], list[str]]:
    """Pictures and captions of one finding for a split of ``count``, from a random generator of its own."""
    labels = FINDINGS[domain]
    rng = np.random.default_rng([seed, DOMAINS.index(domain), SPLITS.index(split), labels.index(label)])
    share = -(-count // len(labels))
    return render(domain, label, rng, share), write_captions(domain, label, rng, share, mix)
