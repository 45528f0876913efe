"""Train the demo's five specialists again and print how good they are. About a minute of one core each.

python benchmarks/train_demo_teachers.py [NAME ...] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from open_clip import CLIP, create_model_and_transforms, get_tokenizer
from torch import Tensor
from torch.nn import functional as F

from kdkit.plugins.demo.captions import class_prompts
from kdkit.plugins.demo.dataset import draw_split
from kdkit.plugins.demo.images import DOMAINS, FINDINGS
from kdkit.plugins.demo.teachers import SPECIALISTS, WEIGHTS, find_specialist
from kdkit.plugins.demo.training import normalize_pixels, train_specialist

EXAM_SEED = 7_000
EXAM_SIZE = 500


def main() -> None:
    """Train the named specialists (all by default), then examine them on pictures that they have not seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="specialists to train (default: all)")
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="where to write them (default: the package data)")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    print("teacher   cpu_s  " + " ".join(f"{domain:>10}" for domain in DOMAINS))
    for name in chosen.names or [specialist.name for specialist in SPECIALISTS]:
        started = time.process_time()
        train_specialist(find_specialist(name), chosen.folder / name)
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
    truth = torch.tensor([FINDINGS[domain].index(row.label) for row, _ in rows])
    return float((best == truth).float().mean())


def _class_vectors(model: CLIP, folder: Path, domain: str) -> Tensor:
    """One unit vector per finding, shape (findings, embed_dim): the mean over the unit vectors of its prompts."""
    tokenizer = get_tokenizer(f"local-dir:{folder}")
    means = [
        model.encode_text(tokenizer(prompts), normalize=True).mean(dim=0) for prompts in class_prompts(domain).values()
    ]
    return F.normalize(torch.stack(means), dim=-1)


if __name__ == "__main__":
    main()
