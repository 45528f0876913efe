"""PMC-CLIP: the contrastive features of its checkpoint, with a text tower that reads padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2

from kdkit.core.teachers.pickles import convert_pickles
from kdkit.plugins.loaders.open_clip_companions import pmc_clip_companions
from kdkit.plugins.loaders.pmc_clip import load_pmc_clip
from tests.errors import raises_error
from tests.plugins.loaders.original_layouts import CAPTIONS, add_by_files, gray_pictures, make_pmc_clip
from tests.tiny_models import close


def test_features_are_those_of_its_stock_parts(tmp_path: Path) -> None:
    towers = make_pmc_clip(tmp_path / "m")
    facts, ours = add_by_files(tmp_path / "m", tmp_path / "project")
    assert (facts.loader, facts.dims) == ("pmc-clip", {"image": 40, "text": 40})
    transform = image_transform_v2(PreprocessCfg(size=64), is_train=False)
    pixels = torch.stack([transform(image) for image in gray_pictures()])
    assert torch.equal(torch.stack([ours.preprocess(image) for image in gray_pictures()]), pixels)
    tokens = towers.tokenizer(CAPTIONS, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    with torch.no_grad():
        assert close(ours.encode_image(pixels), towers.image(pixels))
        unmasked = towers.bert(input_ids=tokens["input_ids"])
        assert close(ours.encode_text(CAPTIONS), unmasked.last_hidden_state[:, 0] @ towers.projections["text"])
        masked = towers.bert(**tokens).last_hidden_state[:, 0] @ towers.projections["text"]
        assert not close(ours.encode_text(CAPTIONS), masked, 1e-3), "padding is read as words"
        folder = tmp_path / "project/.kdkit/artifacts/mine"
        notebook = load_pmc_clip(folder, pooling="pooler")
        assert close(notebook.encode_text(CAPTIONS), unmasked.pooler_output @ towers.projections["text"])
    assert notebook.identity() != ours.identity()
    with raises_error("KD-LOAD-080", mentions=("pooling=cls", "pooling=pooler")):
        load_pmc_clip(folder, pooling="mean")


@pytest.mark.parametrize(
    ("change", "id", "mentions"),
    [
        ({"visual.bn1.weight": None}, "KD-LOAD-084", ("missing: bn1.weight", "PMC-CLIP")),
        ({"adapter.weight": torch.zeros(2)}, "KD-LOAD-084", ("unexpected: adapter.weight",)),
        ({"text_encoder.embeddings.LayerNorm.bias": torch.zeros(9)}, "KD-LOAD-084", ("embeddings.LayerNorm.bias",)),
        ({"text_projection": None}, "KD-LOAD-085", ("missing: text_projection", "PMC-CLIP")),
        ({"visual.layer1.0.conv1.weight": None}, "KD-LOAD-085", ("layer1.0.conv1.weight",)),
    ],
    ids=["missing", "unexpected", "another shape", "another layout", "no sizes"],
)
def test_other_weights_are_refused(
    tmp_path: Path, change: dict[str, torch.Tensor | None], id: str, mentions: tuple[str, ...]
) -> None:
    make_pmc_clip(tmp_path)
    state = {**torch.load(tmp_path / "checkpoint.pt")["state_dict"]}
    for name, value in change.items():
        state.pop(f"module.{name}", None)
        if value is not None:
            state[f"module.{name}"] = value
    torch.save(state, tmp_path / "checkpoint.pt")
    convert_pickles(tmp_path, "here")
    with raises_error(id, where=str(tmp_path / "checkpoint.safetensors"), mentions=mentions):
        load_pmc_clip(tmp_path)


def test_its_text_tower_is_a_companion_and_a_bert(tmp_path: Path) -> None:
    make_pmc_clip(tmp_path)
    convert_pickles(tmp_path, "here")
    assert list(pmc_clip_companions(tmp_path)) == []
    (tmp_path / "text/config.json").write_text('{"model_type": "roberta"}', encoding="utf-8")
    with raises_error("KD-LOAD-086", mentions=("roberta",)):
        load_pmc_clip(tmp_path)
    (tmp_path / "text/vocab.txt").unlink()
    assert [item.subfolder for item in pmc_clip_companions(tmp_path)] == ["text"]
