"""Loaders give what the stock libraries give, from complete folders only, and refuse anything else."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import DualEncoder
from kdkit.plugins.loaders.open_clip import OpenClipEncoder, load_open_clip
from kdkit.plugins.loaders.transformers_clip import load_transformers_clip
from kdkit.plugins.loaders.word_tokenizer import word_tokenizer_files, words_of
from tests.errors import raises_error
from tests.tiny_models import (
    BIOMED_TEXT_TOWER,
    TEXTS,
    WORDS,
    close,
    make_biomedclip_folder,
    make_open_clip_folder,
    make_transformers_clip_folder,
    open_clip_config,
    pictures,
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "open_clip": make_open_clip_folder(root / "open_clip", embed_dim=24),
        "biomedclip": make_biomedclip_folder(root / "biomedclip"),
        "clip": make_transformers_clip_folder(root / "clip"),
        "siglip": make_transformers_clip_folder(root / "siglip", kind="siglip"),
    }


LOADERS: dict[str, Callable[[Path], Any]] = {
    "open_clip": load_open_clip,
    "biomedclip": load_open_clip,
    "clip": load_transformers_clip,
    "siglip": load_transformers_clip,
}


@pytest.fixture(scope="module")
def encoders(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: LOADERS[name](folder) for name, folder in folders.items()}


@pytest.fixture(params=list(LOADERS))
def encoder(request: pytest.FixtureRequest, encoders: dict[str, Any]) -> Any:
    return encoders[request.param]


@pytest.fixture
def folder(request: pytest.FixtureRequest, folders: dict[str, Path], tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(folders[request.param], tmp_path / "copy"))


# ------------------------------------------------------------------------------ against the stock libraries


def stock_biomedclip(folder: Path, scratch: Path) -> str:
    """The folder as a person would have to repair it by hand for stock open_clip."""
    shutil.copytree(folder, scratch)
    config = json.loads((scratch / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = str(scratch / "text")
    (scratch / "open_clip_config.json").write_text(json.dumps(config))
    return f"local-dir:{scratch}"


@pytest.mark.parametrize("name", ["open_clip", "biomedclip"])
def test_features_equal_stock_open_clip(
    name: str, folders: dict[str, Path], encoders: dict[str, Any], tmp_path: Path
) -> None:
    source = f"local-dir:{folders[name]}"
    if name == "biomedclip":
        source = stock_biomedclip(folders[name], tmp_path / "repaired")
    model, _, transform = open_clip.create_model_and_transforms(source)
    tokenizer, ours = open_clip.get_tokenizer(source), encoders[name]
    model.eval()
    pixels = torch.stack([transform(image) for image in pictures()])
    assert torch.equal(torch.stack([ours.preprocess(image) for image in pictures()]), pixels)
    assert torch.equal(ours.tokenizer(TEXTS), tokenizer(TEXTS))
    with torch.no_grad():
        assert close(ours.encode_image(pixels), model.encode_image(pixels))
        assert close(ours.encode_text(TEXTS), model.encode_text(tokenizer(TEXTS)))


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_features_equal_stock_transformers(name: str, folders: dict[str, Path], encoders: dict[str, Any]) -> None:
    model: Any = transformers.AutoModel.from_pretrained(folders[name]).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folders[name])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders[name])
    padding = "max_length" if name == "siglip" else True  # SigLIP is always padded, as it was trained
    tokens = tokenizer(TEXTS, padding=padding, truncation=True, max_length=16, return_tensors="pt")
    inputs = {key: tokens[key] for key in ("input_ids", "attention_mask")}
    pixels = processor(images=pictures(), return_tensors="pt")["pixel_values"]
    ours = encoders[name]
    assert torch.equal(torch.stack([ours.preprocess(image) for image in pictures()]), pixels)
    with torch.no_grad():
        # the features that the model itself compares: its similarity matrix is made of them
        whole = model(**inputs, pixel_values=pixels)
    unit = torch.nn.functional.normalize
    assert close(unit(ours.encode_image(pixels)), whole.image_embeds)
    assert close(unit(ours.encode_text(TEXTS)), whole.text_embeds)


def test_processor_saved_in_one_file_is_the_same(
    folders: dict[str, Path], encoders: dict[str, Any], tmp_path: Path
) -> None:
    """transformers 5 writes image processor and tokenizer of a ``CLIPProcessor`` into processor_config.json."""
    folder = Path(shutil.copytree(folders["clip"], tmp_path / "m"))
    whole = transformers.CLIPProcessor(
        image_processor=transformers.AutoImageProcessor.from_pretrained(folder),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
    )
    (folder / "preprocessor_config.json").unlink()
    whole.save_pretrained(folder)
    identity = load_transformers_clip(folder).identity()
    assert identity["preprocessing"] == encoders["clip"].identity()["preprocessing"]


# ------------------------------------------------------------------------------------------ every encoder


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


# -------------------------------------------------------------------------------------- open_clip folders


def test_published_layout_with_pickled_tensors_gives_the_same_features(
    encoders: dict[str, Any], tmp_path: Path
) -> None:
    """BiomedCLIP's authors publish a .bin; the text tower's config may also lie beside it."""
    folder = make_biomedclip_folder(tmp_path / "m", text_repo=tmp_path / "tower", weights="bin")
    with raises_error("KD-LOAD-023") as caught:
        load_open_clip(folder)
    assert BIOMED_TEXT_TOWER in caught.value.what
    shutil.copy(tmp_path / "tower" / "config.json", folder / "config.json")
    assert close(load_open_clip(folder).encode_text(TEXTS), encoders["biomedclip"].encode_text(TEXTS))


def test_the_text_tower_uses_the_first_token(encoders: dict[str, Any]) -> None:
    """cls_last_hidden_state_pooler, then the projection: written out by hand."""
    encoder: OpenClipEncoder = encoders["biomedclip"]
    tower: Any = encoder.model.text
    tokens = encoder.tokenizer(TEXTS)
    with torch.no_grad():
        hidden = tower.transformer(input_ids=tokens, attention_mask=(tokens != 0).long()).last_hidden_state
        assert close(encoder.encode_text(TEXTS), tower.proj(hidden[:, 0]))
    assert tokens.shape == (4, 256)


def test_identity_follows_preprocessing_and_tokenizer_not_weights(tmp_path: Path) -> None:
    first = load_open_clip(make_open_clip_folder(tmp_path / "a")).identity()
    assert load_open_clip(make_open_clip_folder(tmp_path / "b", seed=1)).identity() == first
    words = (*WORDS[:-2], WORDS[-1], WORDS[-2])
    other = load_open_clip(make_open_clip_folder(tmp_path / "c", words=words)).identity()
    assert {key for key in first if other[key] != first[key]} == {"tokenizer"}
    larger = load_open_clip(make_open_clip_folder(tmp_path / "d", image_size=40)).identity()
    assert {key for key in first if larger[key] != first[key]} == {"preprocessing"}


def test_reduced_precision_stays_near(folders: dict[str, Path], encoders: dict[str, Any]) -> None:
    half = load_open_clip(folders["open_clip"], precision="bf16")
    pixels = torch.stack([half.preprocess(image) for image in pictures()])
    features, exact = half.encode_image(pixels), encoders["open_clip"].encode_image(pixels)
    assert features.dtype == torch.float32
    assert 1e-6 < float((features - exact).abs().max()) < 0.1 * float(exact.abs().max())
    assert half.identity() != encoders["open_clip"].identity()


def test_copies_and_pickles_of_the_tokenizer_agree(encoders: dict[str, Any]) -> None:
    tokenizer = encoders["biomedclip"].tokenizer
    assert copy.deepcopy(tokenizer) is tokenizer
    again = pickle.loads(pickle.dumps(tokenizer))  # noqa: S301  # as a data loader's worker receives it
    assert torch.equal(again(TEXTS), tokenizer(TEXTS))


def test_weights_only_folder_of_an_architecture_known_by_name(tmp_path: Path) -> None:
    """As BMC-CLIP is published: one file with ``module.`` prefixes; open_clip's own BPE tokenizer."""
    model_cfg = open_clip_config(embed_dim=24)
    model_cfg["text_cfg"] |= {"vocab_size": 49408, "hf_tokenizer_name": None}
    (tmp_path / "kdkit-tiny-arch.json").write_text(json.dumps(model_cfg))
    open_clip.add_model_config(tmp_path / "kdkit-tiny-arch.json")
    model = open_clip.create_model("kdkit-tiny-arch").eval()
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, tmp_path / "X.pt")
    encoder = load_open_clip(tmp_path, arch="kdkit-tiny-arch", weights="X.pt")
    tokens = open_clip.get_tokenizer("kdkit-tiny-arch")(TEXTS)
    assert torch.equal(encoder.tokenizer(TEXTS), tokens)
    with torch.no_grad():
        assert close(encoder.encode_text(TEXTS), model.encode_text(tokens))
    assert encoder.embed_dim == 24


# ---------------------------------------------------------------------------------------------- refusals


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("bomb-went-off"),))


def spoil_config(folder: Path) -> None:
    (folder / "open_clip_config.json").unlink()


def spoil_no_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()


def spoil_truncated(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def spoil_missing_key(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    tensors = load_file(path)
    del tensors["text_projection"]
    save_file(tensors, path)


def spoil_extra_key(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    save_file({**load_file(path), "visual.surprise": torch.zeros(1)}, path)


def spoil_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def spoil_tokenizer_content(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def spoil_json(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text('{"model_cfg": ')


def spoil_no_model_cfg(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text("{}")


def spoil_unknown_field(folder: Path) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["vision_cfg"]["color"] = "blue"
    path.write_text(json.dumps(config))


@pytest.mark.parametrize("folder", ["open_clip"], indirect=True)
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_config, "not an open_clip model"),
        (spoil_no_weights, "no weights"),
        (spoil_truncated, "damaged"),
        (spoil_missing_key, "do not fit"),
        (spoil_extra_key, "do not fit"),
        (spoil_tokenizer, "the tokenizer"),
        (spoil_tokenizer_content, "not a usable tokenizer"),
        (spoil_json, "not readable as JSON"),
        (spoil_no_model_cfg, "not an open_clip model"),
        (spoil_unknown_field, "do not fit|cannot build"),
    ],
)
def test_an_incomplete_folder_is_refused_with_its_name(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(folder)
    with pytest.raises(KdkitError, match=words) as caught:
        load_open_clip(folder)
    assert caught.value.where


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "pytorch_model.bin"])
def test_a_pickle_with_code_is_refused_unread(
    name: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, load = ("open_clip", load_open_clip) if name.startswith("open") else ("clip", load_transformers_clip)
    folder = Path(shutil.copytree(folders[source], tmp_path / "m"))
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    torch.save({"visual.proj": Bomb()}, folder / name)
    with pytest.raises(KdkitError, match="pickle"):
        load(folder)
    assert not (tmp_path / "bomb-went-off").exists()


def test_unknown_architecture_suggests_a_known_one(tmp_path: Path) -> None:
    with raises_error("KD-LOAD-021") as caught:
        load_open_clip(tmp_path, arch="ViT-B-61")
    assert "did you mean 'ViT-B-16'" in caught.value.fix


@pytest.mark.parametrize("folder", ["clip"], indirect=True)
def test_transformers_folder_with_a_missing_weight_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["visual_projection.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with raises_error("KD-LOAD-031", mentions=("dual encoder",)) as caught:
        load_transformers_clip(folder)
    assert "visual_projection.weight" in caught.value.why


def test_transformers_folder_of_another_kind_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    with raises_error("KD-LOAD-031", mentions=("dual encoder",)):
        load_transformers_clip(tmp_path)
    with raises_error("KD-LOAD-031", mentions=("dual encoder",)):
        load_transformers_clip(folders["biomedclip"] / "text")


# ------------------------------------------------------------------------------------ word-level tokenizer


def test_word_tokenizer_files_are_read_back_and_recognized(folders: dict[str, Path]) -> None:
    files = word_tokenizer_files(WORDS)
    assert words_of(files) == list(WORDS)
    assert words_of({**files, "special_tokens_map.json": b"{}"}) is None
    names = ("tokenizer.json", "tokenizer_config.json")
    assert words_of({name: (folders["biomedclip"] / name).read_bytes() for name in names}) is None


@pytest.mark.parametrize("words", [["two words"], [""], ["CT"], ["ct", "ct"], ["x-ray"], ["<pad>"]])
def test_word_that_can_never_be_met_is_refused(words: list[str]) -> None:
    with raises_error("KD-LOAD-032", where="tokenizer.words"):
        word_tokenizer_files(words)
