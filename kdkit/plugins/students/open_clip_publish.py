"""The publisher of the family ``open_clip``: a repository or folder that stock open_clip, and transformers, load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.tensors import read_header
from kdkit.core.contracts import Published
from kdkit.plugins.loaders.open_clip_folder import CONFIG, WEIGHTS
from kdkit.plugins.students.open_clip_transformers import (
    MODEL_CONFIG,
    why_no_form,
    without_origin,
    write_json,
    write_transformers_form,
)

_TOKENIZER_CONFIG = "tokenizer_config.json"
_TEXT_TOWER = "text/config.json"
"""Where a version keeps the config of a Hugging Face text tower."""

_OPEN_CLIP = """\
import open_clip
import torch
from PIL import Image

model, _, preprocess = open_clip.create_model_and_transforms({name})
tokenizer = open_clip.get_tokenizer({name})
model.eval()

labels = ["a normal finding", "an abnormal finding"]  # your classes, as sentences
with torch.no_grad():
    image = model.encode_image(preprocess(Image.open("image.png").convert("RGB"))[None], normalize=True)
    text = model.encode_text(tokenizer(labels), normalize=True)
probabilities = (model.logit_scale.exp() * image @ text.T).softmax(dim=-1)
"""
_TRANSFORMERS = """\
from PIL import Image
from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

model = CLIPModel.from_pretrained({name}).eval()
processor = AutoImageProcessor.from_pretrained({name}, backend="pil")  # resizes as in training
tokenizer = AutoTokenizer.from_pretrained({name})

labels = ["a normal finding", "an abnormal finding"]  # your classes, as sentences
tokens = tokenizer(labels, padding="max_length", truncation=True, max_length={length}, return_tensors="pt")
pixels = processor(images=Image.open("image.png").convert("RGB"), return_tensors="pt")
probabilities = model(**tokens, **pixels).logits_per_image.softmax(dim=-1)
"""


_OPEN_CLIP_PROBE = """

def encode_image(pictures):
    return model.encode_image(torch.stack([preprocess(picture) for picture in pictures]))


def encode_text(texts):
    return model.encode_text(tokenizer(texts))
"""
_TRANSFORMERS_PROBE = """

def encode_image(pictures):
    output = model.get_image_features(processor(images=pictures, return_tensors="pt")["pixel_values"])
    return getattr(output, "pooler_output", output)


def encode_text(texts):
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    output = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    return getattr(output, "pooler_output", output)
"""


def publish(folder: Path, to: Path, name: str, *, merged: bool, skip: Mapping[str, str]) -> Published:  # noqa: ARG001
    """See ``StudentSpec.publisher``.

    Stock open_clip reads the config of a Hugging Face text tower from the Hub or from an absolute path. A repository
    therefore names itself; a folder with such a tower contains its own path and cannot be moved.

    Raises:
        KdkitError: the folder holds no open_clip student.
    """
    tower = _copy(folder, to)
    config = _read(to / CONFIG)
    lines = {"open_clip": _OPEN_CLIP.format(name=json.dumps(_address(name, to), ensure_ascii=False))}
    missing: dict[str, str] = {}
    if name == str(to):
        if tower:
            config["model_cfg"]["text_cfg"]["hf_model_name"] = str(to / "text")
            write_json(to / CONFIG, config)
        names = tuple(sorted(path.name for path in to.iterdir() if path.is_file()))
    else:
        names = _lay_out_for_hub(to, name, config, tower)
        if reason := skip.get("transformers") or why_no_form(config):
            missing["transformers"] = reason
            if config["model_cfg"]["text_cfg"].get("hf_tokenizer_name") and not tower:
                # transformers reads it before the tokenizer; offline it must exist, whatever it says
                write_json(to / MODEL_CONFIG, {"library_name": "open_clip"})
        else:
            write_transformers_form(to)
            length = config["model_cfg"]["text_cfg"].get("context_length", 77)
            lines["transformers"] = _TRANSFORMERS.format(name=json.dumps(name), length=length)
    return Published(
        kind="A vision-language dual encoder",
        library="open_clip",
        tags=("clip", "zero-shot"),
        summary=_summary(to),
        names=names,
        lines=lines,
        probes={"open_clip": _OPEN_CLIP_PROBE, "transformers": _TRANSFORMERS_PROBE},
        distributions=("torch", "open_clip_torch", "timm", "transformers"),
        notes=(f"The architecture of its text tower is that of {tower}.",) if tower else (),
        missing=missing,
        pinned_paths=(CONFIG,) if tower and name == str(to) else (),
    )


def _address(name: str, to: Path) -> str:
    """Its name in open_clip."""
    return f"local-dir:{name}" if name == str(to) else f"hf-hub:{name}"


def _lay_out_for_hub(to: Path, repo: str, config: dict[str, Any], tower: str | None) -> tuple[str, ...]:
    """Make the configs name ``repo`` alone; returns the student's own files."""
    text_cfg = config["model_cfg"]["text_cfg"]
    for key in ("hf_model_name", "hf_tokenizer_name"):
        if text_cfg.get(key):
            text_cfg[key] = repo
    write_json(to / CONFIG, config)
    if tower:
        write_json(to / MODEL_CONFIG, without_origin(_read(to / _TEXT_TOWER)))
        shutil.rmtree(to / "text")
    names = tuple(sorted(path.name for path in to.iterdir()))
    if _TOKENIZER_CONFIG in names and without_origin(tokenizer := _read(to / _TOKENIZER_CONFIG)) != tokenizer:
        write_json(to / _TOKENIZER_CONFIG, without_origin(tokenizer))
    return names


def _summary(folder: Path) -> str:
    """One line about the size of the model in ``folder``."""
    model = _read(folder / CONFIG)["model_cfg"]
    side, length = model["vision_cfg"].get("image_size", 224), model["text_cfg"].get("context_length", 77)
    pixels = "x".join(map(str, side)) if isinstance(side, list) else f"{side}x{side}"
    count = read_header(folder / WEIGHTS).parameters
    return (
        f"Images of {pixels} pixels and texts of up to {length} tokens become vectors of {model['embed_dim']} numbers; "
        f"{count:,} parameters."
    )


def _copy(student_folder: Path, to: Path) -> str | None:
    """Copy what ``Student.save`` wrote; returns the name of the text tower."""
    if not (student_folder / CONFIG).is_file():
        raise KdkitError(
            "KD-STUD-057",
            "not an open_clip student",
            where=str(student_folder),
            why=f"it has no {CONFIG}",
            fix="give a folder that the student's save wrote",
        )
    to.mkdir(parents=True, exist_ok=True)
    for path in sorted(student_folder.iterdir()):
        if path.is_file():
            shutil.copyfile(path, to / path.name)
    name: str | None = _read(student_folder / CONFIG)["model_cfg"]["text_cfg"].get("hf_model_name")
    if name:
        (to / "text").mkdir(exist_ok=True)
        beside = to / MODEL_CONFIG  # of a version that was pulled
        source = beside if beside.is_file() else student_folder / _TEXT_TOWER
        shutil.copyfile(source, to / _TEXT_TOWER)
        beside.unlink(missing_ok=True)
    return name or None


def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return data
