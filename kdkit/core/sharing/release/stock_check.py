"""Run by path in a process of its own, without kdkit: what stock libraries make of a student, by the lines of its card.

``python -P stock_check.py FOLDER``: the folder, which becomes the current one, holds ``open_clip.lines`` and perhaps
``transformers.lines`` (Python), ``texts.json`` and ``0.png``, ``1.png``, ... Written are ``features.safetensors`` with
``LIBRARY.image`` and ``LIBRARY.text``, (N, D) float32, not normalized; ``errors.json``, what a library raised instead;
and ``environment.json``, versions of libraries.
"""

import json
import os
import platform
import runpy
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file


def open_clip_features(loaded: Any, pictures: list[Any], texts: list[str]) -> tuple[Any, ...]:
    model = loaded["model"].eval()
    pixels = torch.stack([loaded["preprocess"](picture) for picture in pictures])
    return model.encode_image(pixels), model.encode_text(loaded["tokenizer"](texts))


def transformers_features(loaded: Any, pictures: list[Any], texts: list[str]) -> tuple[Any, ...]:
    model, tokenizer = loaded["model"].eval(), loaded["tokenizer"]
    length = model.config.text_config.max_position_embeddings
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    pixels = loaded["processor"](images=pictures, return_tensors="pt")["pixel_values"]
    image = model.get_image_features(pixels)
    text = model.get_text_features(**{key: tokens[key] for key in ("input_ids", "attention_mask")})
    return tuple(getattr(output, "pooler_output", output) for output in (image, text))


LIBRARIES = {"open_clip": open_clip_features, "transformers": transformers_features}


def main(folder: Path) -> None:
    os.chdir(folder)
    texts = json.loads(Path("texts.json").read_text(encoding="utf-8"))
    pictures = [Image.open(f"{number}.png") for number in range(len(list(Path().glob("[0-9]*.png"))))]
    features: dict[str, torch.Tensor] = {}
    errors: dict[str, str] = {}
    for library, compute in LIBRARIES.items():
        lines = Path(f"{library}.lines")
        if not lines.is_file():
            continue
        try:
            loaded = runpy.run_path(str(lines))
            with torch.no_grad():
                image, text = compute(loaded, pictures, texts)
        except Exception as error:  # whatever it is: the library cannot load it
            errors[library] = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
        else:
            features |= {f"{library}.image": image.float().contiguous(), f"{library}.text": text.float().contiguous()}
    save_file(features, "features.safetensors")
    Path("errors.json").write_text(json.dumps(errors), encoding="utf-8")
    environment = {"python": platform.python_version()}
    for library in ("torch", "open_clip_torch", "timm", "transformers"):
        environment[library] = version(library)
    Path("environment.json").write_text(json.dumps(environment), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
