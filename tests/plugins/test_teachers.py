"""The facts of the built-in catalogue are consistent with each other."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest

from kdkit.core.contracts import LoaderSpec, TeacherSpec
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.licenses import LicenseFacts, classify, normalize
from kdkit.core.teachers.source import parse_source
from kdkit.plugins.teachers import kdkit_teachers

TEACHERS: tuple[TeacherSpec, ...] = kdkit_teachers()
NINE = TEACHERS[:9]
VISION = ("timm", "transformers-vision")


def test_the_first_nine_are_those_of_mmkd_clip() -> None:
    assert [spec.name for spec in NINE] == [
        *("biomedclip", "bmc-clip", "unimed-clip", "quiltnet", "genmedclip", "plip", "pmc-clip", "pubmedclip"),
        "medclip",
    ]
    widths = {spec.name: spec.image_dim for spec in NINE}
    assert {name for name, width in widths.items() if width == 768} == {"bmc-clip", "pmc-clip"}
    assert sum(width or 0 for width in widths.values()) == 5120  # as measured in the released features


def test_there_are_at_least_twenty_others() -> None:
    assert len(TEACHERS) >= len(NINE) + 20
    assert len({spec.name for spec in TEACHERS}) == len(TEACHERS)


@pytest.mark.parametrize("spec", TEACHERS, ids=lambda spec: spec.name)
def test_facts_fit_together(spec: TeacherSpec) -> None:
    assert spec.summary
    if spec.source:
        assert parse_source(spec.source).kind == "hf"
    assert bool(spec.unavailable) == (not (spec.source and spec.loader)), "it can be loaded, or it says why not"
    if spec.loader:
        assert load_catalogue().get("loader", spec.loader)
    assert normalize(spec.license) == normalize(normalize(spec.license))
    for source in spec.extra_sources.values():
        parse_source(source)
    if spec.loader in VISION:
        assert spec.text_dim is None
        assert "no text" in spec.summary
        module, _, name = load_catalogue().spec(LoaderSpec, spec.loader).factory.partition(":")
        assert set(spec.options) <= set(inspect.signature(getattr(import_module(module), name)).parameters)
    else:
        assert spec.image_dim == spec.text_dim, "dual encoders share one space"


@pytest.mark.parametrize("spec", TEACHERS, ids=lambda spec: spec.name)
def test_distillation_follows_from_the_license(spec: TeacherSpec) -> None:
    expected = {
        "permissive": {"allowed"},
        "non-commercial": {"non-commercial"},
        "no-derivatives": {"forbidden"},
        "unknown": {"unknown"},
    }
    assert spec.distillation in expected[classify(spec.license)]
    if spec.distillation in ("forbidden", "non-commercial"):
        assert spec.notes, "the reason"
    assert LicenseFacts(spec.license).strictest == classify(spec.license)
