"""Run by path in a process of its own: loads a student by the lines of its card and computes features or answers.

``python -P stock_check.py FOLDER``: the folder, which becomes the current one, holds ``check.json``, the pictures
``0.png``, ``1.png``, ... and per library ``LIBRARY.lines``: the card's lines and the probe, see ``Published``.
It writes ``found.safetensors``, ``errors.json`` (library -> exception) and ``environment.json`` (versions).
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


def features(loaded: Any, check: Any) -> dict[str, torch.Tensor]:
    pictures = [Image.open(f"{number}.png") for number in range(check["pictures"])]
    found = {"image": loaded["encode_image"](pictures), "text": loaded["encode_text"](check["texts"])}
    return {name: value.float().contiguous() for name, value in found.items()}


def answers(loaded: Any, check: Any) -> dict[str, torch.Tensor]:
    found = {}
    for number, messages in enumerate(check["questions"]):
        for message in messages:
            for part in message["content"]:
                if part["type"] == "image":
                    part["image"] = Image.open(f"{part['image']}.png").convert("RGB")
        ids, logits = loaded["generate"](messages, check["length"])
        log_probs = logits.float().log_softmax(-1).gather(1, ids[:, None])[:, 0]
        found[f"{number}.logits"] = logits[0].float().clone()
        found |= {f"{number}.ids": ids.clone(), f"{number}.log_probs": log_probs.contiguous()}
    return found


def main(folder: Path) -> None:
    os.chdir(folder)
    check = json.loads(Path("check.json").read_text(encoding="utf-8"))
    found: dict[str, torch.Tensor] = {}
    errors: dict[str, str] = {}
    for library in check["libraries"]:
        try:
            loaded = runpy.run_path(f"{library}.lines")
            with torch.no_grad():
                computed = answers(loaded, check) if "questions" in check else features(loaded, check)
        except Exception as error:  # whatever it is: the library cannot load it
            errors[library] = f"{type(error).__name__}: {' '.join(str(error).split())[:600]}"
        else:
            found |= {f"{library}.{name}": value for name, value in computed.items()}
    save_file(found, "found.safetensors")
    Path("errors.json").write_text(json.dumps(errors), encoding="utf-8")
    environment = {"python": platform.python_version()}
    for distribution in check["distributions"]:
        try:
            environment[distribution] = version(distribution)
        except PackageNotFoundError:
            environment[distribution] = "unknown"
    Path("environment.json").write_text(json.dumps(environment), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
