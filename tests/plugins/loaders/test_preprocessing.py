"""Overridden preprocessing: what images become, position embeddings of another size, refusals, the fingerprint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from kdkit.core.contracts import Sample
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from kdkit.core.teachers import add_and_measure, open_teacher
from kdkit.core.teachers.measure import measure
from kdkit.core.teachers.signals import as_signal_source
from kdkit.plugins.loaders.preprocessing import open_processor, read_overrides
from tests.errors import raises_error
from tests.plugins.loaders.vision_models import DATA, VIT, timm_folder, transformers_folder
from tests.tiny_models import make_open_clip_folder, make_transformers_clip_folder

MAKERS: dict[str, Callable[[Path], Path]] = {
    "open_clip": lambda path: make_open_clip_folder(path, image_size=32),
    "transformers": lambda path: make_transformers_clip_folder(path, image_size=32),
    "transformers-vision": lambda path: transformers_folder(path, "vit"),
    "timm": lambda path: timm_folder(path, "vit_tiny_patch16_224", VIT, DATA),
}
LOADERS = tuple(MAKERS)
SAMPLE = Sample(id="a", image=Path("a.png"), text="ct", domain="d")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("overrides")
    return {name: make(root / name) for name, make in MAKERS.items()}


def load(name: str, folders: dict[str, Path], **options: Any) -> Any:
    return load_catalogue().make("loader", name, folder=folders[name], **options)


def pixels(model: Any, image: Image.Image) -> torch.Tensor:
    item = as_signal_source(model).prepare(image, SAMPLE)
    found: torch.Tensor = item[0] if isinstance(item, tuple) else item
    return found


@pytest.mark.parametrize("name", LOADERS)
def test_mean_std_and_size_are_those_that_were_asked_for(name: str, folders: dict[str, Path]) -> None:
    model = load(name, folders, mean=[0.1, 0.2, 0.3], std=0.5, image_size=112)
    source = as_signal_source(model)
    found = measure(model, source, {}, None)
    assert found.image_size == (112, 112)
    assert found.mean == pytest.approx((0.1, 0.2, 0.3), abs=1e-4)
    assert found.std == pytest.approx((0.5, 0.5, 0.5), abs=1e-4)
    rows = source.compute([source.prepare(Image.new("RGB", (70, 50)), SAMPLE)])
    assert bool(torch.isfinite(rows["image"]).all()), "position embeddings fit the new size"
    assert model.identity() != load(name, folders).identity()


@pytest.mark.parametrize("name", LOADERS)
def test_squash_keeps_the_borders_that_a_center_crop_loses(name: str, folders: dict[str, Path]) -> None:
    image = Image.new("RGB", (120, 40))
    image.paste((255, 255, 255), (0, 0, 20, 40))  # white at the left border alone
    squashed = pixels(load(name, folders, resize_mode="squash"), image)
    cropped = pixels(load(name, folders, resize_mode="shortest"), image)
    assert squashed.shape == cropped.shape
    assert float(squashed[0, :, 0].min()) > float(squashed[0, :, -1].max())
    assert float(cropped.std()) == pytest.approx(0, abs=1.5), "black but for the channels' offsets"
    assert float(cropped[0].max() - cropped[0].min()) < 1e-4


@pytest.mark.parametrize("name", LOADERS)
def test_interpolations_differ(name: str, folders: dict[str, Path]) -> None:
    image = Image.effect_noise((90, 90), 80).convert("RGB")
    one, other = (pixels(load(name, folders, interpolation=kind), image) for kind in ("bilinear", "bicubic"))
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"mean": 2.0},
        {"mean": [0.5, 0.5]},
        {"mean": "openai"},
        {"std": 0},
        {"std": [0.2, float("nan"), 0.2]},
        {"interpolation": "bicubik"},
        {"resize_mode": "crop"},
        {"image_size": 0},
        {"image_size": True},
        {"image_size": "224"},
        {"image_size": 10**6},
    ],
    ids=str,
)
def test_impossible_values_are_refused_before_anything_is_loaded(options: dict[str, Any], tmp_path: Path) -> None:
    for name in LOADERS:
        with raises_error("KD-TEACH-030", mentions=(f"'{next(iter(options))}'",)):
            load_catalogue().make("loader", name, folder=tmp_path / "nowhere", **options)


@pytest.mark.parametrize("name", ["open_clip", "transformers", "transformers-vision"])
def test_a_size_that_is_no_multiple_of_the_patches_is_refused(name: str, folders: dict[str, Path]) -> None:
    with raises_error("KD-TEACH-030", mentions=("'image_size'",)):
        load(name, folders, image_size=33)


def test_what_a_processor_cannot_do_is_refused(folders: dict[str, Path]) -> None:
    for name in ("transformers", "transformers-vision"):
        with raises_error("KD-TEACH-031", mentions=("longest",)):
            load(name, folders, resize_mode="longest")


def make_processor(folder: Path, kind: str = "CLIPImageProcessor", **settings: Any) -> Path:
    folder.mkdir()
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": kind, **settings}))
    return folder


def process(folder: Path, **wanted: Any) -> Any:
    processor = open_processor(folder, read_overrides(folder, **wanted), local_files_only=True)
    return processor(Image.new("RGB", (61, 47), (255, 0, 0)), return_tensors="np")["pixel_values"][0]


def test_options_switch_on_the_steps_that_the_files_switch_off(tmp_path: Path) -> None:
    folder = make_processor(tmp_path / "m", do_normalize=False, do_resize=False, do_center_crop=False)
    assert process(folder).shape == (3, 47, 61)
    assert process(folder, image_size=32).shape == (3, 32, 32)
    assert process(folder, image_size=32).min(axis=(1, 2)) == pytest.approx([1, 0, 0]), "no padding"
    assert process(folder, resize_mode="squash").shape == (3, 224, 224)
    assert process(folder, mean=0.5, std=0.5).max(axis=(1, 2)) == pytest.approx([1, -1, -1])


def test_a_mode_that_follows_from_the_size_cannot_be_chosen(tmp_path: Path) -> None:
    folder = make_processor(tmp_path / "m", "ConvNextImageProcessor", size={"shortest_edge": 64})
    assert process(folder, image_size=32, resize_mode="shortest").shape == (3, 32, 32)
    assert process(folder, image_size=384).shape == (3, 384, 384)
    for options in ({"resize_mode": "squash"}, {"resize_mode": "shortest", "image_size": 384}):
        with raises_error("KD-TEACH-031", mentions=(f"resize_mode={options['resize_mode']}",)):
            process(folder, **options)


def test_an_unknown_option_is_refused_with_the_known_ones(folders: dict[str, Path]) -> None:
    with raises_error("KD-PLUG-005", mentions=("'size'", "image_size", "resize_mode")):
        load("open_clip", folders, size=3)


def test_overrides_are_locked_and_change_the_fingerprint(tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / "registry.yaml").write_text("version: 1\n", encoding="utf-8")
    project = Project(tmp_path)
    fields = {"from": f"local:{folders['open_clip']}"}
    plain, _ = add_and_measure(project, "a", fields)
    changed, measured = add_and_measure(project, "b", {**fields, "options": {"mean": 0.25, "image_size": 48}})
    assert measured is not None
    assert measured.image_size == (48, 48)
    assert changed.options == {"mean": 0.25, "image_size": 48}
    assert changed.fingerprint != plain.fingerprint
    assert open_teacher(project.reloaded(), "b").fingerprint == changed.fingerprint
