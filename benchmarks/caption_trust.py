"""Trust by captions beside zero-shot accuracy, for the demo's five dual encoders in its nine domains.

    python benchmarks/caption_trust.py [--images 60] [--seed 0]

Every teacher and domain gets a skill above chance, (accuracy - chance) / (1 - chance), by both measures. They are
averaged over the pairs that zero-shot classification knows (skill above 0.5) and over the others. Captions are drawn
anew for the same pictures: all naming the finding, or as in the demo's training split, where half name the modality
alone and a tenth a wrong finding.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from kdkit.core.evaluation.trust.retrieval import CHANCE, hits
from kdkit.core.evaluation.zero_shot import class_embeddings
from kdkit.plugins.demo.captions import CaptionMix, write_captions
from kdkit.plugins.demo.dataset import CORRECT, draw_split
from kdkit.plugins.demo.images import DOMAINS, FINDINGS
from kdkit.plugins.students.open_clip import OpenClipStudent, load_student

MIXES = {"captions name the finding": CORRECT, "half do not, a tenth is wrong": CaptionMix()}


def unit(features: torch.Tensor) -> np.ndarray:
    rows = features.double().numpy()
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def skills(model: OpenClipStudent, domain: str, images: int, seed: int) -> list[float]:
    """Zero-shot skill, then the skill by the captions of each mix."""
    drawn = list(draw_split(domain, "calibration", seed=seed, count=images))
    labels, classes = [row["label"] for row, _ in drawn], FINDINGS[domain]
    pixels = torch.stack([model.preprocess(Image.fromarray(picture)) for _, picture in drawn])
    image = unit(model.encode_image(pixels))
    prompts = {label: [f"a {domain} image of {label}.", f"{domain} showing {label}."] for label in classes}
    named = class_embeddings(prompts, lambda texts: model.encode_text(texts).float().numpy())
    right = np.mean([classes[best] == label for best, label in zip((image @ named.T).argmax(1), labels, strict=True)])
    found = [(right - 1 / len(classes)) / (1 - 1 / len(classes))]
    for mix in MIXES.values():
        rng = np.random.default_rng([seed, 9])
        captions = [write_captions(domain, label, rng, 1, mix)[0] for label in labels]
        different = sorted(set(captions))
        own = np.array([different.index(caption) for caption in captions])
        similarity = image @ unit(model.encode_text(different)).T
        others = np.arange(len(different)) != own[:, None]
        beaten = others & (similarity >= similarity[np.arange(len(own)), own][:, None])
        mean = hits(beaten.sum(1), others.sum(1)).mean()
        found.append((mean - CHANCE) / (1 - CHANCE))
    return found


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    weights = Path(str(files("kdkit.plugins.demo"))) / "weights"
    models = [
        load_student(folder) for folder in sorted(weights.iterdir()) if (folder / "open_clip_config.json").exists()
    ]
    rows = np.array([skills(model, domain, given.images, given.seed) for model in models for domain in DOMAINS])
    known = rows[:, 0] > 0.5
    print(f"{'skill above chance by':32}{known.sum():>4} known{(~known).sum():>5} others  correlation")
    for number, name in enumerate(["zero-shot accuracy", *MIXES]):
        skill = rows[:, number]
        related = np.corrcoef(skill, rows[:, 0])[0, 1]
        print(f"{name:32}{skill[known].mean():10.2f}{skill[~known].mean():12.2f}{related:13.2f}")


if __name__ == "__main__":
    main()
