"""What holds for the encoders of both loaders."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from kdkit.core.contracts import CountsTokens, DualEncoder
from kdkit.plugins.loaders.open_clip import load_open_clip
from kdkit.plugins.loaders.transformers_clip import load_transformers_clip
from tests.errors import raises_error
from tests.plugins.loaders.models import LOADERS
from tests.tiny_models import TEXTS, WORDS, close, pictures


def test_fulfils_the_contract(encoder: Any) -> None:
    fulfilled = isinstance(encoder, DualEncoder)
    assert fulfilled
    pixels = torch.stack([encoder.preprocess(image) for image in pictures(2)])
    assert pixels.dtype == torch.float32
    image, text = encoder.encode_image(pixels), encoder.encode_text(TEXTS[:2])
    assert image.shape == text.shape == (2, encoder.embed_dim)
    assert not image.requires_grad
    assert not text.requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not any(module.training for module in encoder.modules())
    assert {"preprocessing", "tokenizer"} <= encoder.identity().keys()
    assert all(isinstance(value, str) for value in encoder.identity().values())


def test_a_sample_does_not_depend_on_its_batch(encoder: Any) -> None:
    images = pictures(3)
    pixels = torch.stack([encoder.preprocess(image) for image in images])
    alone = torch.cat([encoder.encode_image(pixels[i : i + 1]) for i in range(3)])
    assert close(encoder.encode_image(pixels), alone, 1e-5)
    # the third text is far longer than the context, so a padded batch differs most from texts alone
    alone = torch.cat([encoder.encode_text([text]) for text in TEXTS])
    assert close(encoder.encode_text(TEXTS), alone, 1e-5)
    assert not close(alone[:1], alone[3:], 1e-3), "different texts must not look alike"


def test_calls_from_threads_equal_calls_in_turn(encoder: Any) -> None:
    texts = [" ".join(WORDS[i : i + 1 + i % 7]) for i in range(16)]
    images = pictures(8)
    expected = [encoder.encode_text([text]) for text in texts]
    pixels = [encoder.preprocess(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda text: encoder.encode_text([text]), texts))
        assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(pool.map(encoder.preprocess, images), pixels, strict=True))


def test_loading_leaves_the_random_state_alone(folders: dict[str, Path]) -> None:
    for name, load in LOADERS.items():
        torch.manual_seed(5)
        load(folders[name])
        drawn = torch.rand(3)
        torch.manual_seed(5)
        assert torch.equal(drawn, torch.rand(3)), name


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("bomb-went-off"),))


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "pytorch_model.bin"])
def test_a_pickle_with_code_is_refused_and_never_runs(
    name: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, load = ("open_clip", load_open_clip) if name.startswith("open") else ("clip", load_transformers_clip)
    folder = Path(shutil.copytree(folders[source], tmp_path / "m"))
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    torch.save({"visual.proj": Bomb()}, folder / name)
    with raises_error("KD-LOAD-027" if source == "open_clip" else "KD-LOAD-030"):
        load(folder)
    assert not (tmp_path / "bomb-went-off").exists()


def test_tokens_are_counted_before_texts_are_cut(encoder: Any) -> None:
    counts_tokens = isinstance(encoder, CountsTokens)
    assert counts_tokens
    limit = encoder.context_length
    texts = [" ".join([WORDS[i % len(WORDS)] for i in range(length)]) for length in range(1, limit + 12)]
    counts = list(encoder.count_tokens(texts))
    assert counts == sorted(counts)
    assert encoder.count_tokens([]) == []
    short = [text for text, count in zip(texts, counts, strict=True) if count < limit]
    long = [text for text, count in zip(texts, counts, strict=True) if count > limit + 1]
    for chosen, same in ((short[-1], False), (long[0], True)):  # more words change what the model reads, or not
        both = encoder.encode_text([chosen, f"{chosen} {WORDS[1]}"])
        assert close(both[:1], both[1:], 1e-6) == same
