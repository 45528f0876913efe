"""Text encoders against stock transformers, with the pooling written out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kdkit.core.contracts import TextEncoder
from kdkit.core.teachers.measure import measure
from kdkit.core.teachers.probe import probe
from kdkit.core.teachers.recognize import recognize_loader
from kdkit.core.teachers.signals import as_signal_source
from kdkit.plugins.loaders import kdkit_loaders
from kdkit.plugins.loaders.hugging_face import read_tokenizer_files
from kdkit.plugins.loaders.transformers_text import TransformersText, load_transformers_text
from tests.errors import raises_error
from tests.tiny_models import close, make_bert_folder

TEXTS = ["a scan of a nodule", "cyst", "an image of a small cyst near a large nodule, seen again"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of BiomedBERT: a masked language model, so that the encoder has a prefix and there is no pooler."""
    return make_bert_folder(tmp_path_factory.mktemp("text") / "bert")


def states(folder: Path, texts: list[str], length: int) -> list[torch.Tensor]:
    """(tokens, D) of each text, alone and without padding."""
    model: Any = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    found = []
    for text in texts:
        with torch.no_grad():
            tokens = tokenizer(text, truncation=True, max_length=length, return_tensors="pt")
            found.append(model(**tokens).last_hidden_state[0])
    return found


def test_features_equal_stock_transformers(folder: Path) -> None:
    for pooling, length in (("mean", None), ("cls", None), ("mean", 6)):
        ours = load_transformers_text(folder, pooling=pooling, context_length=length)
        rows = states(folder, TEXTS, ours.context_length)
        wanted = torch.stack([row[0] if pooling == "cls" else row.mean(0) for row in rows])
        assert close(ours.encode_text(TEXTS), wanted)
        assert ours.context_length == (length or ours.longest)
    assert max(len(row) for row in rows) == 6
    assert isinstance(ours, TextEncoder)
    assert recognize_loader(kdkit_loaders(), folder, "bert") == "transformers-text"
    assert load_transformers_text(folder).identity()["pooling"] == "mean"
    assert load_transformers_text(folder).identity() != ours.identity()  # the context


def test_its_only_signal_is_the_text(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_transformers_text(folder)
    source = as_signal_source(model)
    assert [(spec.name, spec.shape) for spec in source.signals] == [("text", (model.embed_dim,))]
    computed: list[int] = []
    with monkeypatch.context() as patch:
        really = model.encode_text

        def counted(texts: Sequence[str]) -> torch.Tensor:
            computed.append(len(texts))
            return really(texts)

        patch.setattr(model, "encode_text", counted)
        found = probe(source, "bert")
    assert computed == [1, 1]  # the second, which is timed, does not read the cache
    assert list(found.signals) == ["text"]
    measured = measure(model, source, {"text": model.embed_dim}, found.seconds)
    assert measured.context_length == model.context_length
    assert measured.image_size is None
    assert "texts/s" in measured.cost


def test_sentence_encoders_say_how_they_pool(folder: Path, tmp_path: Path) -> None:
    sentence = tmp_path / "sentence"
    (sentence / "1_Pooling").mkdir(parents=True)
    for path in folder.iterdir():
        (sentence / path.name).write_bytes(path.read_bytes())
    steps = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", "Normalize")]
    steps[1]["path"] = "1_Pooling"
    modules, pooling = sentence / "modules.json", sentence / "1_Pooling" / "config.json"
    modules.write_text(json.dumps(steps))
    for flag, name in (("cls_token", "cls"), ("mean_tokens", "mean")):
        settings = {f"pooling_mode_{mode}": False for mode in ("cls_token", "mean_tokens", "max_tokens")}
        pooling.write_text(json.dumps({**settings, f"pooling_mode_{flag}": True, "word_embedding_dimension": 32}))
        assert load_transformers_text(sentence).pooling == name
    pooling.write_text(json.dumps({"pooling_mode": "cls"}))  # as version 5 writes it
    assert load_transformers_text(sentence).pooling == "cls"
    pooling.write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with raises_error("KD-LOAD-171", mentions=("max_tokens",)):
        load_transformers_text(sentence)
    assert load_transformers_text(sentence, pooling="mean").pooling == "mean"
    modules.write_text(json.dumps([*steps, {"type": "sentence_transformers.models.Dense"}]))
    pooling.write_text(json.dumps({"pooling_mode": "mean"}))
    with raises_error("KD-LOAD-171", mentions=("Dense",)):
        load_transformers_text(sentence)


def test_what_does_not_fit_is_refused(folder: Path, tmp_path: Path) -> None:
    with raises_error("KD-LOAD-170", mentions=("'max'", "cls")):
        load_transformers_text(folder, pooling="max")
    with raises_error("KD-LOAD-172", mentions=("9999",)):
        load_transformers_text(folder, context_length=9999)
    with raises_error("KD-LOAD-173", mentions=("pooler",)):  # a masked language model has none
        load_transformers_text(folder, pooling="pooler")
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in folder.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    tensors = load_file(broken / "model.safetensors")
    del tensors[next(name for name in tensors if name.endswith("query.weight"))]
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with raises_error("KD-LOAD-173", mentions=("query.weight",)):
        load_transformers_text(broken)
    for file in (*broken.glob("*vocab*"), *broken.glob("tokenizer*")):
        file.unlink()
    with raises_error("KD-TEACH-032", mentions=("tokenizer",)):
        load_transformers_text(broken)
    (broken / "config.json").write_text('{"model_type": "vit"}')
    with raises_error("KD-LOAD-071", mentions=("vit",)):
        load_transformers_text(broken)


def test_sentence_encoders_say_how_long_texts_are(folder: Path, tmp_path: Path) -> None:
    sentence = tmp_path / "sentence"
    sentence.mkdir()
    for path in folder.iterdir():
        (sentence / path.name).write_bytes(path.read_bytes())
    described = sentence / "sentence_bert_config.json"
    described.write_text(json.dumps({"max_seq_length": 6, "do_lower_case": False}))
    ours = load_transformers_text(sentence)
    wanted = torch.stack([row.mean(0) for row in states(folder, TEXTS, 6)])
    assert ours.context_length == 6
    assert close(ours.encode_text(TEXTS), wanted)
    assert load_transformers_text(sentence, context_length=8).context_length == 8
    for length in (9999, None):
        described.write_text(json.dumps({"max_seq_length": length}))
        assert load_transformers_text(sentence).context_length == ours.longest


def test_positions_of_mpnet_begin_behind_the_padding(folder: Path) -> None:
    """The longest text that is taken has a state per token; one more has no position."""
    config = transformers.MPNetConfig(
        vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=12, pad_token_id=1,
    )  # fmt: skip
    model: Any = transformers.MPNetModel(config).eval()
    ours = TransformersText(model, read_tokenizer_files(folder), pooling="mean")
    assert ours.longest == 10
    ids = torch.full((1, ours.longest + 1), 5)
    assert model(ids[:, 1:]).last_hidden_state.shape == (1, ours.longest, 16)
    with pytest.raises(IndexError):
        model(ids)
