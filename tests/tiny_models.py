"""Writes tiny models with random weights into folders, in the layouts of real ones, without network.

Every ``make_*`` is deterministic in ``seed``, leaves the global random state alone and returns the folder.
Beside them: pictures and texts to feed the models.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from kdkit.plugins.loaders.word_tokenizer import word_tokenizer_files

if TYPE_CHECKING:
    from torch import Tensor

WORDS: tuple[str, ...] = (
    *("a", "an", "the", "of", "with", "and", "no", "photo", "image", "scan", "showing", "normal", "abnormal"),
    *("ct", "mri", "xray", "chest", "brain", "lung", "skin", "fundus", "histology", "oct", "ultrasound"),
    *("nodule", "tumor", "pneumonia", "melanoma", "nevus", "polyp", "stroke", "cyst", "glaucoma", "drusen"),
)

BIOMED_TEXT_TOWER = "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract"
_OPENAI_MEAN, _OPENAI_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]

TEXTS = ["a ct scan of the chest", "", "an mri image of the brain showing a tumor, " * 40, "Zebra!"]
"""Known words, nothing, far more than any context, unknown words."""


def pictures(count: int = 4, seed: int = 0) -> list[Image.Image]:
    """RGB noise of awkward sizes: wide, tall, small, thin."""
    rng = np.random.default_rng(seed)
    sizes = [(40, 61), (200, 90), (32, 32), (17, 300)]
    return [Image.fromarray(rng.integers(0, 256, (*sizes[i % 4], 3), dtype=np.uint8)) for i in range(count)]


def close(a: Tensor, b: Tensor, tolerance: float = 1e-6) -> bool:
    """Whether no entry differs by more than ``tolerance`` of the largest one (of 1 where all are small)."""
    assert a.shape == b.shape
    assert bool(a.isfinite().all())
    return bool((a - b).abs().max() <= tolerance * max(1.0, float(b.abs().max())))


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def _json(data: Any) -> bytes:
    return json.dumps(data, indent=2).encode()


def open_clip_config(
    *, embed_dim: int = 32, image_size: int = 32, words: Sequence[str] = WORDS, context_length: int = 16
) -> dict[str, Any]:
    """A plain open_clip ``model_cfg``: one-layer ViT and text transformer, no BatchNorm, no dropout."""
    return {
        "embed_dim": embed_dim,
        "vision_cfg": {"image_size": image_size, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {
            "context_length": context_length,
            "vocab_size": len(words) + 4,
            "hf_tokenizer_name": "tokenizer-in-this-folder",
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
    }


def make_open_clip_folder(
    path: Path | str,
    *,
    embed_dim: int = 32,
    image_size: int = 32,
    seed: int = 0,
    words: Sequence[str] = WORDS,
    context_length: int = 16,
) -> Path:
    """An ordinary open_clip folder that ``open_clip.create_model_and_transforms("local-dir:...")`` loads.

    Files: ``open_clip_config.json``, ``open_clip_model.safetensors``, ``tokenizer.json``,
    ``tokenizer_config.json``.
    """
    import open_clip
    from safetensors.torch import save_file

    folder = Path(path)
    model_cfg = open_clip_config(embed_dim=embed_dim, image_size=image_size, words=words, context_length=context_length)
    preprocess_cfg = {
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    _write(folder, word_tokenizer_files(words))
    _write(folder, {"open_clip_config.json": _json({"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg})})
    with _seeded(seed):
        model = open_clip.model.CLIP(**model_cfg)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def make_biomedclip_folder(
    path: Path | str,
    *,
    text_repo: Path | str | None = None,
    weights: Literal["safetensors", "bin"] = "safetensors",
    embed_dim: int = 32,
    seed: int = 0,
) -> Path:
    """BiomedCLIP's layout: timm image tower, Hugging Face text tower named by a Hub id, BERT tokenizer files.

    ``hf_model_name`` names a Hub repository that cannot be reached here; what is needed of it (its
    ``config.json`` and tokenizer) is written to ``text_repo``, by default ``path/text``, which makes ``path``
    a materialized folder. As in the published weights, there is an ``embeddings.position_ids`` that
    transformers has dropped since. ``weights="bin"`` writes ``open_clip_pytorch_model.bin``, the only file
    that the authors publish.
    """
    import torch
    from safetensors.torch import save_file

    folder = Path(path)
    text_folder = Path(text_repo) if text_repo is not None else folder / "text"
    vocabulary = _bert_vocabulary()
    tokenizer = _bert_tokenizer_files(vocabulary)
    text_config = {**_BERT, "vocab_size": len(vocabulary)}
    model_cfg = {
        "embed_dim": embed_dim,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": {
            "hf_model_name": BIOMED_TEXT_TOWER,
            "hf_tokenizer_name": BIOMED_TEXT_TOWER,
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 256,
        },
    }
    config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": _OPENAI_MEAN, "std": _OPENAI_STD}}
    _write(folder, {**tokenizer, "open_clip_config.json": _json(config)})
    _write(text_folder, {**tokenizer, "config.json": _json(text_config)})
    with _seeded(seed):
        tensors = _biomedclip_tensors(model_cfg, text_folder)
    tensors["text.transformer.embeddings.position_ids"] = torch.arange(_BERT["max_position_embeddings"])[None]
    if weights == "bin":
        torch.save(tensors, folder / "open_clip_pytorch_model.bin")
    else:
        save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


_BERT: dict[str, Any] = {
    "architectures": ["BertForMaskedLM"],
    "model_type": "bert",
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 0,
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
}


def make_bert_folder(path: Path | str, *, seed: int = 0, words: Sequence[str] | None = None) -> Path:
    """A tiny ``BertForMaskedLM`` with its tokenizer, or one of ``words``: the layout of BiomedBERT."""
    import transformers

    folder, vocabulary = Path(path), _bert_vocabulary()
    _write(folder, _bert_tokenizer_files(vocabulary) if words is None else word_tokenizer_files(words))
    with _seeded(seed):
        config = transformers.BertConfig(**{**_BERT, "vocab_size": len(vocabulary)})
        transformers.BertForMaskedLM(config).save_pretrained(folder)
    return folder


def _biomedclip_tensors(model_cfg: dict[str, Any], text_folder: Path) -> dict[str, Any]:
    import open_clip

    text_cfg = {**model_cfg["text_cfg"], "hf_model_name": str(text_folder), "hf_model_pretrained": False}
    model = open_clip.model.CustomTextCLIP(**{**model_cfg, "text_cfg": text_cfg})
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def bert_tower_files(hidden: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The config of a tiny BERT of this width, and its tokenizer's files."""
    vocabulary = _bert_vocabulary()
    config = {**_BERT, "vocab_size": len(vocabulary), "hidden_size": hidden, "num_hidden_layers": 3}
    return config, _bert_tokenizer_files(vocabulary)


def _bert_vocabulary() -> list[str]:
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + [str(digit) for digit in range(10)]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    rest = [word for word in WORDS if word not in letters]
    return [*special, *letters, *(f"##{letter}" for letter in letters), ".", ",", "-", *rest]


def _bert_tokenizer_files(vocabulary: list[str]) -> dict[str, bytes]:
    """The files that ``BertTokenizerFast.save_pretrained`` writes."""
    from tokenizers import BertWordPieceTokenizer

    tokenizer = BertWordPieceTokenizer({word: index for index, word in enumerate(vocabulary)}, lowercase=True)
    special = {name: f"[{name[:-6].upper()}]" for name in ("cls_token", "mask_token", "pad_token", "sep_token")}
    special["unk_token"] = "[UNK]"
    config = {**special, "do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer"}
    return {
        "vocab.txt": "\n".join(vocabulary).encode() + b"\n",
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json(special),
    }


def make_transformers_clip_folder(
    path: Path | str,
    *,
    kind: Literal["clip", "siglip", "naflex"] = "clip",
    embed_dim: int = 32,
    image_size: int = 32,
    seed: int = 0,
    words: Sequence[str] = WORDS,
) -> Path:
    """A tiny ``CLIPModel``, ``SiglipModel`` or ``Siglip2Model`` with its image processor and a word-level tokenizer."""
    import transformers

    folder = Path(path)
    _write(folder, word_tokenizer_files(words))
    end = len(words) + 3
    text: dict[str, Any] = {"vocab_size": end + 1, "hidden_size": embed_dim, "intermediate_size": 48}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
    text |= {"bos_token_id": 2, "eos_token_id": end, "pad_token_id": 0}
    vision = {
        "hidden_size": embed_dim,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    vision |= {"image_size": image_size, "patch_size": 8}
    with _seeded(seed):
        if kind == "clip":
            clip = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=embed_dim)
            transformers.CLIPModel(clip).save_pretrained(folder)
            processor: Any = transformers.CLIPImageProcessor
            size: dict[str, int] = {"shortest_edge": image_size}
        elif kind == "naflex":
            siglip2 = transformers.Siglip2Config(
                text_config={**text, "projection_size": embed_dim}, vision_config={**vision, "num_patches": 16}
            )
            transformers.Siglip2Model(siglip2).save_pretrained(folder)
            transformers.Siglip2ImageProcessor(patch_size=8, max_num_patches=20).save_pretrained(folder)
            return folder
        else:
            siglip = transformers.SiglipConfig(text_config=text, vision_config=vision)
            transformers.SiglipModel(siglip).save_pretrained(folder)
            processor = transformers.SiglipImageProcessor
            size = {"height": image_size, "width": image_size}
    processor(size=size, **({"crop_size": image_size} if kind == "clip" else {})).save_pretrained(folder)
    return folder
