"""Trust by probes beside zero-shot accuracy, for the image features of the demo's five dual encoders in nine domains.

    python benchmarks/probe_trust.py [--images 60] [--seed 0]

Probes measure teachers without text. Here they measure teachers that have texts too, so that the scales can be
compared: over the pairs of teacher and domain that zero-shot classification knows (skill above 0.5), and the others.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from caption_trust import unit
from PIL import Image
from projects import print_table

from kdkit.core.evaluation.trust.probe import PROBES, probe_hits
from kdkit.core.evaluation.zero_shot import class_embeddings
from kdkit.plugins.demo.dataset import draw_split
from kdkit.plugins.demo.images import DOMAINS, FINDINGS
from kdkit.plugins.students.open_clip import OpenClipStudent, load_student

MEASURES = ("zero-shot", *PROBES, "mean of both probes")


def accuracies(model: OpenClipStudent, domain: str, images: int, seed: int) -> list[float]:
    """By each of :data:`MEASURES`, then chance."""
    drawn, classes = list(draw_split(domain, "calibration", seed=seed, count=images)), FINDINGS[domain]
    labels = np.array([classes.index(row["label"]) for row, _ in drawn])
    image = unit(model.encode_image(torch.stack([model.preprocess(Image.fromarray(picture)) for _, picture in drawn])))
    prompts = {label: [f"a {domain} image of {label}.", f"{domain} showing {label}."] for label in classes}
    named = class_embeddings(prompts, lambda texts: model.encode_text(texts).float().numpy())
    probed = probe_hits(image, labels, np.arange(len(labels)), len(classes)).mean(0)
    return [float(((image @ named.T).argmax(1) == labels).mean()), *probed, probed.mean(), 1 / len(classes)]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    weights = Path(str(files("kdkit.plugins.demo"))) / "weights"
    models = [
        load_student(folder) for folder in sorted(weights.iterdir()) if (folder / "open_clip_config.json").exists()
    ]
    found = np.array([accuracies(model, domain, given.images, given.seed) for model in models for domain in DOMAINS])
    accuracy, chance = found[:, :-1], found[:, -1:]
    skill = (accuracy - chance) / (1 - chance)
    known = skill[:, 0] > 0.5
    print(f"{known.sum()} known pairs, {(~known).sum()} foreign ones")
    rows = []
    for number, name in enumerate(MEASURES):
        values = [part[chosen, number].mean() for part in (accuracy, skill) for chosen in (known, ~known)]
        related = np.corrcoef(skill[:, number], skill[:, 0])[0, 1]
        rows.append([name, *(f"{value:.3f}" for value in values), f"{related:.3f}"])
    headers = ("measure", "accuracy, known", "foreign", "skill, known", "foreign", "correlation of skill")
    print_table(headers, rows)


if __name__ == "__main__":
    main()
