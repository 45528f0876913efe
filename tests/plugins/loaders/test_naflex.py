"""SigLIP 2 NaFlex: the features of stock transformers for images of any aspect ratio, alone and in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from kdkit.plugins.loaders.naflex import NaFlexEncoder
from tests.tiny_models import TEXTS, close, pictures


def test_features_equal_stock_transformers(folders: dict[str, Path], encoders: dict[str, Any]) -> None:
    model: Any = transformers.AutoModel.from_pretrained(folders["naflex"]).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folders["naflex"], backend="pil")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["naflex"])
    inputs = processor(images=pictures(), return_tensors="pt")
    assert len({tuple(shape) for shape in inputs["spatial_shapes"].tolist()}) == 4
    ours: NaFlexEncoder = encoders["naflex"]
    items = torch.stack([ours.preprocess(image) for image in pictures()])
    assert torch.equal(items[:, 1:], inputs["pixel_values"])
    assert torch.equal(items[:, 0, :2], inputs["spatial_shapes"].float())
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=16, return_tensors="pt")
    with torch.no_grad():
        assert close(ours.encode_image(items), model.get_image_features(**inputs).pooler_output)
        assert close(ours.encode_text(TEXTS), model.get_text_features(input_ids=tokens["input_ids"]).pooler_output)


def test_padding_changes_nothing(encoders: dict[str, Any]) -> None:
    ours: NaFlexEncoder = encoders["naflex"]
    item = ours.preprocess(pictures()[3])[None]
    used = int(item[0, 0, :2].prod())
    noise = item.clone()
    noise[:, used + 1 :] = 7
    assert used < item.shape[1] - 1
    assert close(ours.encode_image(noise), ours.encode_image(item))
