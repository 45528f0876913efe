"""Run by path in a process of its own: what a student answers when it is loaded by the lines of its card.

``python -P answer_check.py FOLDER``: the folder, which becomes the current one, holds ``card.lines`` (Python that
defines ``model`` and ``processor``, see ``Published.lines``), ``questions.json`` (``questions``: messages as
transformers has them, an image being the number of a picture; ``longest``: tokens of an answer; ``libraries``) and
``0.png``, ``1.png``, ... Written are ``answers.safetensors`` with, of each question, ``N.logits`` (V,) of the answer's
first token, its ``N.ids`` and their ``N.log_probs``; ``errors.json``, what was raised instead; and
``environment.json``, versions of libraries.
"""

import json
import os
import platform
import runpy
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import save_file


def answer(loaded: Any, messages: list[Any], longest: int) -> dict[str, Any]:
    for message in messages:
        for part in message["content"]:
            if part["type"] == "image":
                part["image"] = Image.open(f"{part['image']}.png").convert("RGB")
    inputs = loaded["processor"].apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    found = loaded["model"].generate(
        **inputs, max_new_tokens=longest, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    ids = found.sequences[0, inputs["input_ids"].shape[1] :]
    logits = torch.cat(found.logits).float()
    log_probs = logits.log_softmax(-1).gather(1, ids[:, None])[:, 0]
    return {"logits": logits[0].clone(), "ids": ids.clone(), "log_probs": log_probs.contiguous()}


def main(folder: Path) -> None:
    os.chdir(folder)
    asked = json.loads(Path("questions.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = {}
    errors: dict[str, str] = {}
    try:
        loaded = runpy.run_path("card.lines")
        with torch.no_grad():
            for number, messages in enumerate(asked["questions"]):
                given = answer(loaded, messages, asked["longest"])
                found |= {f"{number}.{name}": value for name, value in given.items()}
    except Exception as error:  # whatever it is: the lines cannot be used
        errors["lines"] = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
    save_file(found, "answers.safetensors")
    Path("errors.json").write_text(json.dumps(errors), encoding="utf-8")
    environment = {"python": platform.python_version()}
    for library in asked["libraries"]:
        try:
            environment[library] = version(library)
        except PackageNotFoundError:
            environment[library] = "unknown"
    Path("environment.json").write_text(json.dumps(environment), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
