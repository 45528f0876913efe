"""Run by path in a process of its own, without kdkit: what stock open_clip makes of an exported folder.

``python -P stock_check.py FOLDER INPUTS OUTPUT``: ``INPUTS`` holds ``texts.json`` and ``0.png``, ``1.png``, ...;
``OUTPUT`` becomes a safetensors file with ``image`` and ``text``, (N, D) float32, not normalised.
"""

import json
import sys
from pathlib import Path


def main(folder: str, inputs: Path, output: Path) -> None:
    import open_clip
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    texts = json.loads((inputs / "texts.json").read_text(encoding="utf-8"))
    pictures = [Image.open(path) for path in sorted(inputs.glob("*.png"))]
    with torch.no_grad():
        image = model.encode_image(torch.stack([transform(picture) for picture in pictures]))
        text = model.encode_text(tokenizer(texts))
    save_file({"image": image.float().contiguous(), "text": text.float().contiguous()}, output)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
