"""Adding a teacher of BiomedCLIP's size from a local folder, against the least that it has to do.

    python benchmarks/add_teacher.py [--repeats 2]

The least is measured in this process, on the same files: their hashes, one load, and one forward pass of an image and a
text. Adding also copies the files into the project, because a local folder may change, and probes twice. Weights are
random; 784 MB are written to a temporary folder and removed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from kdkit.core.base.hashes import sha256_of
from kdkit.core.contracts import Sample
from kdkit.core.project.project import Project
from kdkit.core.teachers import add_teacher
from kdkit.core.teachers.signals import as_signal_source
from kdkit.plugins.loaders.open_clip import load_open_clip

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(30517))]
BERT = {"model_type": "bert", "vocab_size": len(VOCABULARY), "hidden_size": 768, "num_hidden_layers": 12}
BERT |= {"num_attention_heads": 12, "intermediate_size": 3072, "max_position_embeddings": 512, "pad_token_id": 0}
TEXT = {"hf_model_name": "org/text", "hf_tokenizer_name": "org/text", "hf_proj_type": "mlp", "context_length": 256}
VISION = {"timm_model_name": "vit_base_patch16_224", "timm_model_pretrained": False, "timm_pool": "", "image_size": 224}
MODEL = {
    "embed_dim": 512,
    "vision_cfg": {**VISION, "timm_proj": "linear"},
    "text_cfg": {**TEXT, "hf_pooler_type": "cls_last_hidden_state_pooler"},
}


def write_folder(folder: Path) -> int:
    """BiomedCLIP's layout at full size, with random weights; returns its bytes."""
    import open_clip
    from transformers import BertTokenizerFast

    (folder / "text").mkdir(parents=True)
    (folder / "text" / "config.json").write_text(json.dumps(BERT), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": MODEL}), encoding="utf-8")
    text_cfg = {**MODEL["text_cfg"], "hf_model_name": str(folder / "text"), "hf_model_pretrained": False}  # type: ignore[dict-item]
    shape: Any = {**MODEL, "text_cfg": text_cfg}
    tensors = {name: tensor.clone() for name, tensor in open_clip.model.CustomTextCLIP(**shape).state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def least(folder: Path) -> dict[str, float]:
    """Seconds of the parts that cannot be left out."""
    from PIL import Image

    start = time.perf_counter()
    for path in folder.rglob("*"):
        if path.is_file():
            sha256_of(path)
    hashed = time.perf_counter()
    source = as_signal_source(load_open_clip(folder))
    loaded = time.perf_counter()
    sample = Sample(id="a", image=Path("a.png"), text="w1 w2", domain="d")
    source.compute([source.prepare(Image.new("RGB", (61, 47)), sample)])
    return {"hash": hashed - start, "load": loaded - hashed, "forward": time.perf_counter() - loaded}


def add(folder: Path, project: Path) -> float:
    """Seconds of adding the folder to a new project."""
    project.mkdir()
    (project / "registry.yaml").write_text("version: 1\n", encoding="utf-8")
    opened = Project(project)
    start = time.perf_counter()
    add_teacher(opened, "big", {"from": f"local:{folder}"})
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        size = write_folder(root / "teacher")
        least(root / "teacher")  # imports, page cache
        ratios = []
        for turn in range(repeats):
            parts, seconds = least(root / "teacher"), add(root / "teacher", root / f"project-{turn}")
            ratios.append(seconds / sum(parts.values()))
            shown = ", ".join(f"{part} {value:.2f} s" for part, value in parts.items())
            print(f"{size / 1e6:.0f} MB: {shown}; add-teacher {seconds:.2f} s, {ratios[-1]:.2f} x", flush=True)
    print(f"median {statistics.median(ratios):.2f} x, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
