"""The open_clip student: contracts, exact round trip, stock open_clip reads what it saves."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import DualEncoder, Sample
from kdkit.plugins.loaders.open_clip import load_open_clip
from kdkit.plugins.students.open_clip import OpenClipStudent, create_student, load_student
from tests.errors import raises_error
from tests.tiny_models import (
    TEXTS,
    WORDS,
    close,
    make_biomedclip_folder,
    make_open_clip_folder,
    open_clip_config,
    pictures,
)

SAMPLES = [Sample(id=str(i), image=Path("x.png"), text=text, domain="ct") for i, text in enumerate(TEXTS)]


def word_config(**text_cfg: Any) -> dict[str, Any]:
    config = open_clip_config(embed_dim=24)
    del config["text_cfg"]["hf_tokenizer_name"]
    config["text_cfg"] |= text_cfg
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"}
    return {"model_cfg": config, "preprocess_cfg": preprocess, "tokenizer": {"words": list(WORDS)}}


@pytest.fixture(scope="module")
def biomedclip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_biomedclip_folder(tmp_path_factory.mktemp("biomedclip"))


@pytest.fixture(params=["words", "biomedclip"])
def student(request: pytest.FixtureRequest, biomedclip: Path) -> OpenClipStudent:
    torch.manual_seed(0)
    return create_student(**(word_config() if request.param == "words" else {"init": str(biomedclip)}))


def batch(student: OpenClipStudent) -> dict[str, Tensor]:
    rows = [student.prepare(image, sample) for image, sample in zip(pictures(), SAMPLES, strict=True)]
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def same_state(a: OpenClipStudent, b: OpenClipStudent) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


# --------------------------------------------------------------------------------------------- contracts


def test_outputs_are_the_encoders_features_and_the_scale(student: OpenClipStudent) -> None:
    assert student.training
    assert isinstance(student.eval(), DualEncoder)
    inputs = batch(student)
    assert inputs["pixels"].dtype == torch.float32
    assert inputs["tokens"].dtype == torch.int64
    result = student(inputs)
    assert {name: result[name].shape[1] for name in student.outputs} == dict(student.outputs)
    assert result["logit_scale"].shape == ()
    assert abs(float(result["logit_scale"].detach()) - 1 / 0.07) < 1e-4
    assert close(result["image"].detach(), student.encode_image(inputs["pixels"]))
    assert close(result["text"].detach(), student.encode_text(TEXTS))
    assert not close(result["image"].detach().norm(dim=1), torch.ones(4), 0.01), "features are not normalized"


def test_bias_of_siglip_is_kept_but_not_trained(tmp_path: Path) -> None:
    config = word_config()
    config["model_cfg"]["init_logit_bias"] = -10.0
    student = create_student(**config)
    assert [name for name, p in student.named_parameters() if not p.requires_grad] == ["model.logit_bias"]
    student.save(tmp_path)
    assert same_state(load_student(tmp_path), student)


def test_every_parameter_learns_from_a_contrastive_loss(student: OpenClipStudent) -> None:
    inputs = batch(student)
    result = student.eval()(inputs)
    image, text = (torch.nn.functional.normalize(result[name], dim=1) for name in ("image", "text"))
    logits = result["logit_scale"] * image @ text.T
    torch.autograd.backward(torch.nn.functional.cross_entropy(logits, torch.arange(4)))
    without = [name for name, parameter in student.named_parameters() if parameter.grad is None]
    assert not without
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_training_keeps_the_scale_between_1_and_100() -> None:
    student = create_student(**word_config())
    scale: Any = student.model.logit_scale
    for start, kept in ((9.0, 100.0), (-2.0, 1.0)):
        torch.nn.init.constant_(scale, start)
        result = student.train()(batch(student))["logit_scale"]
        assert abs(float(result.detach()) - kept) < 1e-3
        torch.autograd.backward(result)
        assert scale.grad is not None, "at the bound it can still move back"
    torch.nn.init.constant_(scale, 9.0)
    assert float(student.eval()(batch(student))["logit_scale"].detach()) > 8000, "evaluation changes nothing"


def test_inputs_are_deterministic_and_equal_in_shape(student: OpenClipStudent) -> None:
    first, again = batch(student), batch(student)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["pixels"].shape[0] == first["tokens"].shape[0] == 4


def test_copy_shares_nothing_trainable(student: OpenClipStudent) -> None:
    twin = copy.deepcopy(student)
    assert same_state(twin, student)
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    assert not same_state(twin, student)


# ------------------------------------------------------------------------------------------------ saving


def test_saved_student_is_the_same_bit_for_bit(student: OpenClipStudent, tmp_path: Path) -> None:
    student.save(tmp_path / "a")
    again = load_student(tmp_path / "a")
    assert same_state(again, student)
    assert again.identity() == student.identity()
    assert not again.training
    again.save(tmp_path / "b")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path / "b") for p in (tmp_path / "b").rglob("*") if p.is_file())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    assert not [name for name in files if name.suffix in {".bin", ".pt", ".pth", ".pkl"}]


def test_config_is_json_and_makes_the_same_architecture(student: OpenClipStudent, tmp_path: Path) -> None:
    student.save(tmp_path / "a")
    for one in (student, load_student(tmp_path / "a")):
        config = json.loads(json.dumps(one.config))
        again = create_student(**config)
        shapes = {name: value.shape for name, value in again.state_dict().items()}
        assert shapes == {name: value.shape for name, value in student.state_dict().items()}
        assert again.identity() == student.identity()


def test_config_of_words_does_not_depend_on_any_folder(tmp_path: Path) -> None:
    student = create_student(**word_config())
    student.save(tmp_path / "a")
    again = load_student(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    assert again.config == student.config
    assert str(tmp_path) not in json.dumps(again.config)
    again.save(tmp_path / "b")
    assert (tmp_path / "b" / "tokenizer.json").is_file()


@pytest.mark.parametrize("kind", ["words", "bpe"])
def test_stock_open_clip_reads_the_saved_folder(kind: str, tmp_path: Path) -> None:
    config = word_config()
    if kind == "bpe":
        del config["tokenizer"]
        config["model_cfg"]["text_cfg"]["vocab_size"] = 49408
    student = create_student(**config).eval()
    student.save(tmp_path)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{tmp_path}")
    inputs = batch(student)
    assert torch.equal(inputs["pixels"], torch.stack([transform(image) for image in pictures()]))
    assert torch.equal(inputs["tokens"], tokenizer(TEXTS))
    with torch.no_grad():
        image, text, scale = model.eval()(inputs["pixels"], inputs["tokens"])
        ours = student(inputs)
    unit = torch.nn.functional.normalize
    assert close(unit(ours["image"], dim=1), image)
    assert close(unit(ours["text"], dim=1), text)
    assert torch.equal(ours["logit_scale"], scale)


def test_a_student_can_become_a_teacher(student: OpenClipStudent, tmp_path: Path) -> None:
    student.eval().save(tmp_path)
    teacher = load_open_clip(tmp_path)
    pixels = batch(student)["pixels"]
    torch.testing.assert_close(teacher.encode_image(pixels), student.encode_image(pixels))
    torch.testing.assert_close(teacher.encode_text(TEXTS), student.encode_text(TEXTS))  # other memory: other last bits


# ---------------------------------------------------------------------------------------------- creation


def test_seed_decides_the_weights() -> None:
    torch.manual_seed(3)
    first = create_student(**word_config())
    second = create_student(**word_config())
    torch.manual_seed(3)
    assert same_state(create_student(**word_config()), first)
    assert not same_state(second, first)


def test_init_starts_from_the_folders_weights(tmp_path: Path) -> None:
    folder = make_open_clip_folder(tmp_path)
    student = create_student(init=str(folder))
    assert student.training
    torch.testing.assert_close(student.eval().encode_text(TEXTS), load_open_clip(folder).encode_text(TEXTS))


def test_architecture_by_name(tmp_path: Path) -> None:
    config = open_clip_config(embed_dim=24)
    config["text_cfg"] |= {"vocab_size": 49408}
    del config["text_cfg"]["hf_tokenizer_name"]
    (tmp_path / "kdkit-tiny-named.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "kdkit-tiny-named.json")
    student = create_student(arch="kdkit-tiny-named")
    assert student.outputs == {"image": 24, "text": 24}
    assert student.config["model_cfg"] == config
    with raises_error("KD-LOAD-021", mentions=("no architecture",)):
        create_student(arch="kdkit-tiny-nomed")


def test_unusual_pictures_are_prepared() -> None:
    student = create_student(**word_config())
    for size in ((1, 1), (1, 500), (3, 2)):
        assert student.preprocess(Image.new("RGB", size)).shape == (3, 32, 32)


WITH_TOWER = word_config(hf_model_name="org/tower")
WITH_NAMED_TOKENIZER = {"model_cfg": open_clip_config()}


@pytest.mark.parametrize(
    ("config", "where"),
    [
        ({}, "student.config"),
        ({"arch": "ViT-B-16", "init": "x"}, "student.config"),
        ({"init": "x", "tokenizer": {"words": ["ct"]}}, "student.config"),
        (WITH_TOWER, "student.config.text_config"),
        (WITH_NAMED_TOKENIZER, "student.config.tokenizer"),
        ({**word_config(), "tokenizer": {"word": []}}, "student.config.tokenizer"),
        ({**word_config(), "tokenizer": {"folder": "/nowhere"}}, "/nowhere"),
        ({**word_config(), "preprocess_cfg": {"sdt": [1, 1, 1]}}, "student.config.preprocess_cfg"),
        (word_config(vocab_size=7), "student.config.model_cfg.text_cfg.vocab_size"),
        (word_config(color="blue"), "student.config"),
        ({**word_config(), "model_cfg": {"embed_dim": 3}}, "student.config"),
    ],
)
def test_a_config_that_cannot_be_built_says_where(config: dict[str, Any], where: str) -> None:
    with pytest.raises(KdkitError) as caught:
        create_student(**config)
    assert caught.value.where == where
