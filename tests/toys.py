"""Small models that fulfil the contracts, quick enough to train in a test."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdkit.core.contracts import Sample, SignalSpec

LETTERS = 26
SIDE = 8


def count_letters(text: str) -> Tensor:
    """(26,) float32: how often each letter occurs."""
    counts = np.zeros(LETTERS, dtype=np.float32)
    for letter in text.lower():
        if "a" <= letter <= "z":
            counts[ord(letter) - ord("a")] += 1
    return torch.from_numpy(counts)


class ToyEncoder(nn.Module):
    """A dual encoder of two small perceptrons; teacher (``DualEncoder``) and student (``Student``) at once.

    Image: 8 x 8 gray pixels. Text: counts of letters.
    """

    def __init__(self, width: int = 16, hidden: int = 32, dropout: float = 0.0) -> None:
        super().__init__()
        self.width, self.hidden, self.dropout = width, hidden, dropout
        self.image_tower = nn.Sequential(
            nn.Linear(SIDE * SIDE, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.text_tower = nn.Sequential(nn.Linear(LETTERS, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.log_scale = nn.Parameter(torch.tensor(2.0))

    # as a student
    @property
    def outputs(self) -> Mapping[str, int]:
        return {"image": self.width, "text": self.width}

    @property
    def config(self) -> Mapping[str, Any]:
        return {"width": self.width, "hidden": self.hidden, "dropout": self.dropout}

    def prepare(self, image: Image, sample: Sample) -> Mapping[str, Tensor]:
        return {"pixels": self.preprocess(image), "letters": count_letters(sample.text)}

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            "image": self.encode_image(inputs["pixels"]),
            "text": self.text_tower(inputs["letters"]),
            "logit_scale": self.log_scale.exp(),
        }

    def alter(self, inputs: Mapping[str, Tensor], seeds: Tensor) -> Mapping[str, Tensor]:
        """Noise of each row's own seed."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds.tolist()]
        return {
            name: x + torch.stack([torch.randn(x.shape[1:], generator=generator) for generator in generators])
            for name, x in inputs.items()
        }

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(dict(self.state_dict()), folder / "toy.safetensors")
        (folder / "toy.json").write_text(json.dumps(dict(self.config)), encoding="utf-8")

    # as a dual encoder
    @property
    def embed_dim(self) -> int:
        return self.width

    def identity(self) -> Mapping[str, str]:
        return {"preprocess": f"gray {SIDE}x{SIDE}", "tokenizer": "letters"}

    def preprocess(self, image: Image) -> Tensor:
        gray = np.asarray(image.convert("L").resize((SIDE, SIDE)), dtype=np.float32) / 255.0
        return torch.from_numpy(gray).expand(3, SIDE, SIDE).clone()

    def encode_image(self, pixels: Tensor) -> Tensor:
        out: Tensor = self.image_tower(pixels[:, 0].flatten(1))
        return out

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        out: Tensor = self.text_tower(torch.stack([count_letters(text) for text in texts]))
        return out


def make_toy(**config: Any) -> ToyEncoder:
    """Student factory."""
    return ToyEncoder(**config)


def load_toy(folder: Path) -> ToyEncoder:
    """Student and teacher loader."""
    model = ToyEncoder(**json.loads((folder / "toy.json").read_text(encoding="utf-8")))
    model.load_state_dict(load_file(folder / "toy.safetensors"))
    return model.eval()


class ToyVision(nn.Module):
    """A teacher without text (``SignalSource``): gray pixels through ``matrix`` (SIDE * SIDE, D)."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    @property
    def signals(self) -> tuple[SignalSpec, ...]:
        return (SignalSpec("image", (int(self.matrix.shape[1]),)),)

    def identity(self) -> Mapping[str, str]:
        return {"preprocess": f"gray {SIDE}x{SIDE}"}

    def prepare(self, image: Image, sample: Sample) -> Tensor:
        del sample
        gray = np.asarray(image.convert("L").resize((SIDE, SIDE)), dtype=np.float32) / 255.0
        return torch.from_numpy(gray).flatten()

    def compute(self, items: Sequence[Tensor]) -> Mapping[str, Tensor]:
        return {"image": torch.stack(list(items)) @ self.matrix}

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"matrix": self.matrix.detach().contiguous()}, folder / "toy-vision.safetensors")


def load_toy_vision(folder: Path) -> ToyVision:
    """Teacher loader."""
    return ToyVision(load_file(folder / "toy-vision.safetensors")["matrix"])
