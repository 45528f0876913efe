"""Specialists for the real images: small open_clip models that have each seen the training images of a few domains."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from kdkit.plugins.students.open_clip import OpenClipStudent, create_student

SIZE = 56
"""Edge in pixels of what every model sees: half of the files' 112."""
PREPROCESS = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
BATCH, RATE, SMOOTHING, SHIFT = 64, 3e-3, 0.1, 4


@dataclass(frozen=True)
class Specialist:
    """A teacher of ``domains``; ``turns``: its pictures have no up and down (microscopy, skin)."""

    name: str
    domains: tuple[str, ...]
    embed_dim: int
    seed: int
    turns: bool
    steps: int


SPECIALISTS = (
    Specialist("radiology", ("chest_xray", "chest_ct", "brain_mri", "radiology_bodypart"), 128, 11, False, 900),
    Specialist("tissue", ("lung_histology", "cervical_cytology"), 96, 12, True, 600),
    Specialist("surface", ("dermoscopy", "breast_ultrasound"), 64, 13, False, 900),
    Specialist("cells", ("blood_microscopy", "nuclei_microscopy"), 80, 14, True, 400),
)


def model_config(embed_dim: int, words: Sequence[str]) -> dict[str, Any]:
    """``config`` of an ``open_clip`` student: the demo's towers (GroupNorm, 0.2 million parameters) at this size."""
    vision = {
        "image_size": SIZE,
        "timm_model_name": "test_efficientnet_gn",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    }
    text = {"context_length": 24, "vocab_size": len(words) + 4, "width": 64, "heads": 2, "layers": 2, "mlp_ratio": 2.0}
    return {
        "model_cfg": {"embed_dim": embed_dim, "vision_cfg": vision, "text_cfg": text},
        "preprocess_cfg": PREPROCESS,
        "tokenizer": {"words": list(words)},
    }


def train_missing(
    folder: Path, rows: Sequence[Mapping[str, Any]], images: Path, words: Sequence[str], share: float = 1.0
) -> None:
    """Train every specialist that ``folder`` lacks, for ``share`` of its steps, on training rows of its domains."""
    for specialist in SPECIALISTS:
        if (folder / specialist.name).is_dir():
            continue
        own = [row for row in rows if row["modality"] in specialist.domains and row["split"] == "train"]
        started = time.process_time()
        model = _train(specialist, own, images, words, max(1, round(share * specialist.steps)))
        draft = folder / f".{specialist.name}"
        shutil.rmtree(draft, ignore_errors=True)
        model.eval().save(draft)
        os.replace(draft, folder / specialist.name)
        print(
            f"trained {specialist.name} on {len(own)} images in {time.process_time() - started:.0f} CPU s", flush=True
        )


def _train(
    specialist: Specialist, rows: Sequence[Mapping[str, Any]], images: Path, words: Sequence[str], steps: int
) -> OpenClipStudent:
    torch.manual_seed(specialist.seed)
    model = create_student(**model_config(specialist.embed_dim, words))
    pixels = torch.stack([_pixels(images / row["image"]) for row in rows])
    captions = list(dict.fromkeys(row["caption"] for row in rows))
    tokens = model.tokenizer(captions)
    named = torch.tensor([captions.index(row["caption"]) for row in rows])
    weight = 1 / torch.bincount(named).float().sqrt()  # rare classes are drawn somewhat more often
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.98), weight_decay=0.1)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / 50, 0.5 * (1 + math.cos(math.pi * step / steps)))
        chosen = torch.multinomial(weight[named], BATCH, replacement=True)
        out = model({"pixels": _augment(pixels[chosen], specialist.turns), "tokens": tokens})
        scores = out["logit_scale"] * F.normalize(out["image"], dim=-1) @ F.normalize(out["text"], dim=-1).T
        # All captions of its domains at once: CLIP's loss without a caption counting as its own negative.
        loss = F.cross_entropy(scores, named[chosen], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model


def _pixels(path: Path) -> Tensor:
    """(3, SIZE, SIZE) as ``PREPROCESS`` says."""
    with Image.open(path) as image:
        small = image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 255 - 0.5) / 0.25


def _augment(pixels: Tensor, turns: bool) -> Tensor:
    """(B, 3, SIZE, SIZE): each mirrored or not (with ``turns`` also upside down and transposed), the batch moved."""
    flipped = torch.where(_coins(pixels), pixels.flip(3), pixels)
    if turns:
        flipped = torch.where(_coins(pixels), flipped.flip(2), flipped)
        flipped = torch.where(_coins(pixels), flipped.transpose(2, 3), flipped)
    padded = F.pad(flipped, (SHIFT,) * 4, mode="reflect")
    down, right = torch.randint(2 * SHIFT + 1, (2,)).tolist()
    return padded[:, :, down : down + SIZE, right : right + SIZE]


def _coins(pixels: Tensor) -> Tensor:
    return torch.rand(len(pixels), 1, 1, 1) < 0.5
