"""Write the demo world to disk: PNG pictures and one ``samples.jsonl``."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kdkit.plugins.demo.captions import CaptionMix, write_captions
from kdkit.plugins.demo.images import DOMAINS, FINDINGS, render

SPLITS: tuple[str, ...] = ("train", "calibration", "test")
MANIFEST = "samples.jsonl"
HONEST = CaptionMix(generic=0.0, wrong=0.0)
"""Captions of calibration and test rows always name the true finding."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of ``samples.jsonl``. ``image`` is relative to the folder; ``label`` is always the true finding."""

    id: str
    image: str
    text: str
    domain: str
    label: str
    split: str


def write_dataset(
    folder: Path, *, seed: int, train: int, calibration: int, test: int, domains: Sequence[str] | None = None
) -> None:
    """Write ``train`` + ``calibration`` + ``test`` pictures of each domain (all nine by default) into a new ``folder``.

    The bytes depend on the arguments alone.  The folder appears complete or not at all: everything is written under a
    temporary name beside it and renamed at the end.  An existing folder is refused.
    """
    chosen = _check_domains(domains)
    with new_folder(folder) as draft:
        _write_all(draft, seed, {"train": train, "calibration": calibration, "test": test}, chosen)


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the name ``folder`` at the end, or is removed on an error.

    Raises:
        FileExistsError: when ``folder`` exists.
    """
    if folder.exists():
        raise FileExistsError(f"{folder} already exists; choose another folder or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".{folder.name}.{uuid4().hex}.part")
    try:
        draft.mkdir()
        yield draft
        os.rename(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _check_domains(domains: Sequence[str] | None) -> tuple[str, ...]:
    chosen = DOMAINS if domains is None else tuple(domains)
    unknown = [domain for domain in chosen if domain not in FINDINGS]
    if unknown:
        raise ValueError(f"unknown domain {unknown[0]!r}; the demo has {', '.join(DOMAINS)}")
    return chosen


def _write_all(draft: Path, seed: int, sizes: dict[str, int], domains: Sequence[str]) -> None:
    with (draft / MANIFEST).open("w", encoding="utf-8", newline="\n") as lines:
        for domain in domains:
            (draft / "images" / domain).mkdir(parents=True)
            for split in SPLITS:
                for row, picture in draw_split(domain, split, seed=seed, count=sizes[split]):
                    Image.fromarray(picture).save(draft / row.image, compress_level=1)
                    lines.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def draw_split(
    domain: str, split: str, *, seed: int, count: int, mix: CaptionMix | None = None
) -> Iterator[tuple[Row, NDArray[np.uint8]]]:
    """The rows and uint8 (SIZE, SIZE, 3) pictures of one split of one domain, findings in turn.

    ``mix`` replaces the usual captions (half generic and a tenth wrong in train, honest elsewhere).
    """
    mix = mix or (CaptionMix() if split == "train" else HONEST)
    drawn = [_draw_finding(domain, split, label, seed, count, mix) for label in FINDINGS[domain]]
    for index in range(count):
        label = FINDINGS[domain][index % len(drawn)]
        pictures, texts = drawn[index % len(drawn)]
        place = index // len(drawn)
        name = f"{domain}-{split}-{seed}-{index:05d}"
        yield Row(name, f"images/{domain}/{name}.png", texts[place], domain, label, split), pictures[place]


def _draw_finding(
    domain: str, split: str, label: str, seed: int, count: int, mix: CaptionMix
) -> tuple[NDArray[np.uint8], list[str]]:
    """Enough pictures and captions of one finding for a split of ``count``, from random numbers of their own."""
    labels = FINDINGS[domain]
    rng = np.random.default_rng([seed, DOMAINS.index(domain), SPLITS.index(split), labels.index(label)])
    share = -(-count // len(labels))
    return render(domain, label, rng, share), write_captions(domain, label, rng, share, mix)
