"""Train the demo's five specialists again and print how good they are. About a minute of one core each.

python benchmarks/train_demo_teachers.py [NAME ...] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import CLIP, create_model_and_transforms, get_tokenizer
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from kdkit.plugins.demo.captions import NOUNS, CaptionMix, word_list
from kdkit.plugins.demo.dataset import draw_split
from kdkit.plugins.demo.images import DOMAINS, FINDINGS
from kdkit.plugins.demo.student import PREPROCESS_CONFIG, model_config
from kdkit.plugins.demo.teachers import SPECIALISTS, WEIGHTS, Specialist
from kdkit.plugins.loaders.word_tokenizer import word_tokenizer_files

EXAM_SEED = 7_000
EXAM_SIZE = 500
PROMPTS = ("{noun} showing {label}", "{noun} of a patient with {label}", "{label} on {noun}", "findings are {label}")
OWN_CAPTIONS = CaptionMix(generic=0.1, wrong=0.03)
"""The captions of a specialist's own data are better than those of the distillation pool."""


CARD = """\
---
license: apache-2.0
---
A stand-in for a specialist, made by kdkit's benchmarks/train_demo_teachers.py from pictures that a program draws.
It knows nothing about real images.
"""


@dataclass(frozen=True, slots=True)
class TrainingPlan:
    """How a specialist is trained."""

    images: int = 3000
    """Pictures of each of its domains."""
    steps: int | None = None
    """Batches seen; by default as many as the specialist asks for."""
    batch: int = 64
    rate: float = 2.5e-3
    captions: CaptionMix = OWN_CAPTIONS


def train_specialist(specialist: Specialist, folder: Path, plan: TrainingPlan | None = None) -> None:
    """Train one specialist and leave it in ``folder``: configuration, weights in half precision, tokenizer."""
    plan = plan or TrainingPlan()
    torch.manual_seed(specialist.seed)
    config = model_config(specialist.embed_dim)
    save_skeleton(folder, config)
    images, texts = _own_data(specialist, plan)
    tokens = get_tokenizer(f"local-dir:{folder}")(texts)
    model = CLIP(**config)
    _fit(model, images, tokens, plan, plan.steps or specialist.steps)
    halves = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    save_file(halves, folder / "open_clip_model.safetensors")


def save_skeleton(folder: Path, config: dict[str, Any]) -> None:
    """Write everything of an open_clip folder but the weights: the configuration and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": config, "preprocess_cfg": PREPROCESS_CONFIG}
    (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    for name, text in word_tokenizer_files(word_list()).items():
        (folder / name).write_bytes(text)
    (folder / "README.md").write_text(CARD, encoding="utf-8")


def normalize_pixels(pictures: Sequence[np.ndarray[Any, np.dtype[np.uint8]]]) -> Tensor:
    """uint8 (SIZE, SIZE, 3) pictures -> float (count, 3, SIZE, SIZE), as ``PREPROCESS_CONFIG`` says."""
    mean, std = torch.tensor(PREPROCESS_CONFIG["mean"]), torch.tensor(PREPROCESS_CONFIG["std"])
    scaled = torch.from_numpy(np.stack(pictures)).float().div_(255)
    return scaled.sub_(mean).div_(std).permute(0, 3, 1, 2).contiguous()


def _own_data(specialist: Specialist, plan: TrainingPlan) -> tuple[Tensor, list[str]]:
    """Pictures (count, 3, SIZE, SIZE) and captions of the specialist's domains."""
    rows = [
        drawn
        for domain in specialist.domains
        for drawn in draw_split(domain, "train", seed=specialist.seed, count=plan.images, mix=plan.captions)
    ]
    return normalize_pixels([picture for _, picture in rows]), [row["text"] for row, _ in rows]


def _fit(model: CLIP, images: Tensor, tokens: Tensor, plan: TrainingPlan, steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=plan.rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, steps))
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(images), (plan.batch,))
        loss = _clip_loss(model, images[chosen], tokens[chosen])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        model.logit_scale.data.clamp_(0, math.log(100))


def _warm_cosine(step: int, steps: int, warm: int = 50) -> float:
    """The factor on the learning rate: linear up over ``warm`` steps, then half a cosine down to zero."""
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _clip_loss(model: CLIP, images: Tensor, tokens: Tensor) -> Tensor:
    """The symmetric contrastive loss over a batch of (count, 3, SIZE, SIZE) pictures and (count, length) tokens."""
    picture, text = model.encode_image(images, normalize=True), model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp() * picture @ text.T
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def main() -> None:
    """Train the named specialists (all by default), then examine them on pictures that they have not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="specialists to train (default: all)")
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="where to write them (default: the package data)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    named = {specialist.name: specialist for specialist in SPECIALISTS}
    print("teacher   cpu_s  " + " ".join(f"{domain:>10}" for domain in DOMAINS))
    for name in chosen.names or named:
        started = time.process_time()
        train_specialist(named[name], chosen.folder / name)
        spent = time.process_time() - started
        scores = [f"{_accuracy(chosen.folder / name, domain):10.3f}" for domain in DOMAINS]
        print(f"{name:9} {spent:5.1f}  " + " ".join(scores), flush=True)


@torch.inference_mode()
def _accuracy(folder: Path, domain: str) -> float:
    """Zero-shot accuracy of a saved teacher on a fresh split of one domain."""
    model, _, _ = create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    rows = list(draw_split(domain, "calibration", seed=EXAM_SEED, count=EXAM_SIZE))
    images = model.encode_image(normalize_pixels([picture for _, picture in rows]), normalize=True)
    best = (images @ _class_vectors(model, folder, domain).T).argmax(dim=1)
    truth = torch.tensor([FINDINGS[domain].index(row["label"]) for row, _ in rows])
    return float((best == truth).float().mean())


def class_prompts(domain: str, label: str) -> list[str]:
    """The prompt ensemble of a finding."""
    return list(dict.fromkeys(p.format(noun=noun, label=label) for p in PROMPTS for noun in NOUNS[domain]))


def _class_vectors(model: CLIP, folder: Path, domain: str) -> Tensor:
    """One unit vector per finding, shape (findings, embed_dim): the mean over the unit vectors of its prompts."""
    tokenizer = get_tokenizer(f"local-dir:{folder}")
    means = [
        model.encode_text(tokenizer(class_prompts(domain, label)), normalize=True).mean(dim=0)
        for label in FINDINGS[domain]
    ]
    return F.normalize(torch.stack(means), dim=-1)


if __name__ == "__main__":
    main()
