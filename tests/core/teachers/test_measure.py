"""What the probe measures, compared with what a folder's config says, and with the catalogue."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdkit.core.contracts import FactSource, TeacherSpec
from kdkit.core.teachers import add_and_measure
from kdkit.core.teachers.measure import Measured, differences, measure
from kdkit.core.teachers.signals import as_signal_source
from kdkit.plugins.loaders.open_clip import load_open_clip
from tests.core.teachers import stub
from tests.tiny_models import make_open_clip_folder

SPEC = TeacherSpec(
    name="a",
    summary="",
    source="hf:org/a",
    loader="stub",
    image_dim=4,
    image_size=224,
    context_length=77,
    mean=(0.481, 0.458, 0.408),
    std=(0.269, 0.261, 0.276),
    sources=(FactSource(facts=("image_size",), source="hf:org/a card"),),
)
FOUND = Measured(
    dims={"image": 4, "text": 4},
    image_size=(224, 224),
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    context_length=77,
)


def test_size_context_and_normalization_are_measured(tmp_path: Path) -> None:
    model = load_open_clip(make_open_clip_folder(tmp_path / "a", image_size=48, context_length=12))
    found = measure(model, as_signal_source(model), {"image": 32, "text": 32}, 0.25)
    assert (found.image_size, found.context_length, found.images_per_second) == ((48, 48), 12, 4.0)
    assert found.mean == pytest.approx((0.5, 0.5, 0.5), abs=1e-5)
    assert found.std == pytest.approx((0.25, 0.25, 0.25), abs=1e-5)
    assert found.weights_bytes == 4 * sum(parameter.numel() for parameter in model.parameters())
    assert "4 images/s" in found.cost


def test_a_model_that_tells_nothing_is_measured_without_error() -> None:
    class Answers:
        signals = ()

        def identity(self) -> dict[str, str]:
            return {}

        def prepare(self, *_: object) -> str:
            return "no pixels"

        def compute(self, *_: object) -> dict[str, object]:
            return {}

    model: object = Answers()
    assert measure(model, model, {}, None) == Measured({})  # type: ignore[arg-type]


def test_rounded_facts_are_equal_and_unknown_ones_are_not_compared() -> None:
    assert list(differences(SPEC, FOUND, {})) == []
    nothing = TeacherSpec(name="a", summary="", source="hf:org/a", loader="stub")
    assert list(differences(nothing, FOUND, {})) == []
    assert list(differences(SPEC, Measured({}), {})) == []


def test_each_difference_is_told_with_the_source_of_the_fact() -> None:
    other = replace(FOUND, dims={"image": 5}, image_size=(336, 336), mean=(0.5, 0.5, 0.5), context_length=64)
    lines = list(differences(SPEC, other, {}))
    assert [line.split(":")[0] for line in lines] == ["image dim", "image size", "context length", "mean"]
    assert "336" in lines[1]
    assert "224" in lines[1]
    assert "hf:org/a card" in lines[1]
    assert len(list(differences(SPEC, other, {"mean": 0.5, "image_size": 336}))) == 2, "meant to differ"


def test_adding_warns_of_differences_and_measures(tmp_path: Path) -> None:
    spec = TeacherSpec(name="a", summary="", source="hf:org/a", loader="stub", image_dim=9, image_size=1)
    project, notes = stub.make_project(tmp_path, spec), stub.Notes()
    stub.write(tmp_path / "folder")
    locked, measured = add_and_measure(project, "a", {"from": "local:folder"}, reporter=notes)
    assert measured is not None
    assert measured.dims == locked.dims == {"image": 4, "text": 4}
    assert (measured.image_size, measured.weights_bytes) == ((1, 1), 3 * 4 * 4)
    assert [text for text in notes.warnings if "image dim: 4" in text and "9" in text]
    assert add_and_measure(project, "a", {"from": "local:folder"}) == (locked, None), "added already"
