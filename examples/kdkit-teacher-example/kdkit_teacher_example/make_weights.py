"""Makes a folder for the loader: ``python -m kdkit_teacher_example.make_weights FOLDER``.

Put the conversion of your own checkpoint here. The weights of this example need no training: colors are axes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from kdkit_teacher_example.model import CONFIG, WEIGHTS, ColorEncoder, word_ids

COLORS = {
    "black": (-1, -1, -1),
    "red": (1, -1, -1),
    "green": (-1, 1, -1),
    "blue": (-1, -1, 1),
    "yellow": (1, 1, -1),
    "magenta": (1, -1, 1),
    "cyan": (-1, 1, 1),
    "white": (1, 1, 1),
}
"""Red, green and blue, from -1 to 1."""
SHAPE = {"embed_dim": 8, "image_size": 16, "buckets": 256}
CARD = """\
---
license: mit
---
A stand-in for a model: it compares the mean color of a picture with the colors that a text names.
"""


def write_folder(folder: Path) -> Path:
    """Write config, weights and card; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(SHAPE, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(CARD, encoding="utf-8")
    save_file(dict(make_encoder().state_dict()), folder / WEIGHTS)
    return folder


@torch.no_grad()
def make_encoder() -> ColorEncoder:
    """Axes 0 to 2 are red, green and blue, for pictures and words; on the others every word is a little different."""
    encoder = ColorEncoder(**SHAPE)
    encoder.image.weight.copy_(torch.eye(8, 3))
    encoder.image.bias.copy_(torch.tensor([0, 0, 0, 0.05, 0, 0, 0, 0]))
    generator = torch.Generator().manual_seed(0)
    encoder.words.weight.copy_(0.02 * torch.randn(encoder.buckets, 8, generator=generator))
    for word, axes in COLORS.items():
        encoder.words.weight[word_ids(word, encoder.buckets)[1], :3] = torch.tensor(axes, dtype=torch.float32)
    return encoder


if __name__ == "__main__":
    print(f"wrote {write_folder(Path(sys.argv[1]))}")
