"""The second repository of a model: its text tower's config and tokenizer, where the folder lacks them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kdkit.core.base.tensors import read_header
from kdkit.core.contracts import Companion
from kdkit.plugins.loaders.hugging_face import TOKENIZER_FILES, VOCABULARIES
from kdkit.plugins.loaders.layouts import Shapes
from kdkit.plugins.loaders.unimed_clip import is_unimed_clip, unimed_clip_config

BIO_CLINICAL_BERT = "hf:emilyalsentzer/Bio_ClinicalBERT@d5892b39a4adaed74b92212a44081509db72f87b"
"""The text tower of MedCLIP: medclip/constants.py of github.com/RyanWangZf/MedCLIP at 9c3396f."""
PUBMED_BERT = "hf:microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract-fulltext"
"""The text tower of PMC-CLIP by its present name: RN50_fusion4.json of github.com/WeixiongLin/PMC-CLIP at b0b81e3."""


def find_companions(folder: Path) -> Iterator[Companion]:
    """Yield the text tower's files, then the tokenizer's; see ``contracts.LoaderSpec.companions``."""
    text_cfg = _text_cfg(folder / "open_clip_config.json") or _text_cfg_of_weights(folder)
    model, tokenizer = text_cfg.get("hf_model_name"), text_cfg.get("hf_tokenizer_name")
    if isinstance(model, str) and model and not _has_text_config(folder):
        yield Companion(source=f"hf:{model}", subfolder="text", purpose="the text tower's config as text/config.json")
    complete = _has_vocabulary(folder) or (tokenizer == model and _has_vocabulary(folder / "text"))
    if isinstance(tokenizer, str) and tokenizer and not complete:
        yield Companion(source=f"hf:{tokenizer}", names=TOKENIZER_FILES, purpose="the tokenizer as tokenizer.json")


def medclip_companions(folder: Path) -> Iterator[Companion]:
    """As :func:`find_companions`, for MedCLIP."""
    return _text_tower(folder, BIO_CLINICAL_BERT)


def pmc_clip_companions(folder: Path) -> Iterator[Companion]:
    """As :func:`find_companions`, for PMC-CLIP."""
    return _text_tower(folder, PUBMED_BERT)


def _text_tower(folder: Path, source: str) -> Iterator[Companion]:
    if not (_has_text_config(folder) and (_has_vocabulary(folder) or _has_vocabulary(folder / "text"))):
        yield Companion(source=source, subfolder="text", purpose="the text tower's config and tokenizer as text/")


def _text_cfg_of_weights(folder: Path) -> dict[str, Any]:
    """The ``text_cfg`` that follows from the shapes of the weights, for weights without a config."""
    for path in sorted(folder.glob("*.safetensors")):
        shapes: Shapes = read_header(path).shapes
        if is_unimed_clip(shapes):
            return dict(unimed_clip_config(shapes)["text_cfg"])
    return {}


def _text_cfg(path: Path) -> dict[str, Any]:
    try:
        text_cfg = json.loads(path.read_bytes())["model_cfg"]["text_cfg"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}  # the loader reports a damaged config
    return text_cfg if isinstance(text_cfg, dict) else {}


def _has_text_config(folder: Path) -> bool:
    if (folder / "text" / "config.json").is_file():
        return True
    try:
        beside = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    # A config.json beside the weights may also be that of a whole dual encoder.
    return isinstance(beside, dict) and "model_type" in beside and "vision_config" not in beside


def _has_vocabulary(folder: Path) -> bool:
    return any((folder / name).is_file() for name in VOCABULARIES)
