"""The facts of the built-in catalogue are consistent with each other."""

from __future__ import annotations

import datetime
import inspect
import re
from importlib import import_module

import pytest

from kdkit.core.contracts import LoaderSpec, TeacherSpec, known_facts, sources_of
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.licenses import LicenseFacts, classify, normalize
from kdkit.core.teachers.source import parse_source
from kdkit.plugins.teachers import kdkit_teachers

TEACHERS: tuple[TeacherSpec, ...] = kdkit_teachers()
BY_NAME = {spec.name: spec for spec in TEACHERS}
NINE = (
    *("biomedclip", "bmc-clip", "unimed-clip", "quiltnet", "genmedclip", "plip", "pmc-clip", "pubmedclip"),
    "medclip",
)
DIMS = {"image-text": {"image", "text"}, "image": {"image"}, "text": {"text"}, "answers": set[str]()}


def test_the_nine_teachers_of_mmkd_clip_have_the_widths_of_its_released_features() -> None:
    widths = {name: BY_NAME[name].image_dim for name in NINE}
    assert {name for name, width in widths.items() if width == 768} == {"bmc-clip", "pmc-clip"}
    assert sum(width or 0 for width in widths.values()) == 5120


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(TEACHERS)


@pytest.mark.parametrize("spec", TEACHERS, ids=lambda spec: spec.name)
def test_facts_fit_together(spec: TeacherSpec) -> None:
    assert spec.summary
    if spec.source:
        assert parse_source(spec.source).kind in ("hf", "https")
    assert bool(spec.unavailable) == (not (spec.source and spec.loader)), "it can be loaded, or it says why not"
    if spec.loader:
        assert load_catalogue().get("loader", spec.loader)
    assert normalize(spec.license) == normalize(normalize(spec.license))
    for source in spec.extra_sources.values():
        parse_source(source)
        module, _, name = load_catalogue().spec(LoaderSpec, spec.loader).factory.partition(":")
        assert set(spec.options) <= set(inspect.signature(getattr(import_module(module), name)).parameters)
    stated = {name for name in ("image", "text") if getattr(spec, f"{name}_dim") is not None}
    assert stated <= DIMS[spec.kind]
    if spec.kind == "image-text":
        assert spec.image_dim == spec.text_dim, "dual encoders share one space"
    if spec.kind == "image":
        assert "no text" in spec.summary
    if spec.kind == "text":
        assert "texts alone" in spec.summary
    assert len(spec.mean) == len(spec.std)
    assert all(0 <= mean <= 1 for mean in spec.mean)
    assert all(0 < std <= 1 for std in spec.std)


@pytest.mark.parametrize("spec", TEACHERS, ids=lambda spec: spec.name)
def test_sources_name_facts_that_are_stated(spec: TeacherSpec) -> None:
    assert set(sources_of(spec)) == set(known_facts(spec))
    assert datetime.date.fromisoformat(spec.checked)
    for source in spec.sources:
        assert not source.verified or re.match(r"(hf:|github:|https://|measured: )", source.source), source.source


def test_most_entries_can_be_added_and_the_others_say_what_would_change_that() -> None:
    addable = [spec for spec in TEACHERS if not spec.unavailable and spec.distillation != "forbidden"]
    assert len(TEACHERS) >= 60
    assert len(addable) >= 45
    assert [spec.name for spec in TEACHERS if bool(spec.unavailable) != bool(spec.remedy)] == []


def test_facts_that_were_wrong_once() -> None:
    """Each was stated otherwise before its source was read."""
    assert BY_NAME["bmc-clip"].license == "mit"
    assert BY_NAME["dermlip-panderm"].distillation == "forbidden"
    assert BY_NAME["medpmc-clip"].loader == "open_clip"
    assert BY_NAME["pathgen-clip"].source == "hf:jamessyx/PathGen-CLIP"
    assert (BY_NAME["monet"].source, BY_NAME["monet"].mean) == ("hf:suinleelab/monet", (0.485, 0.456, 0.406))


@pytest.mark.parametrize("spec", TEACHERS, ids=lambda spec: spec.name)
def test_distillation_follows_from_the_license(spec: TeacherSpec) -> None:
    expected = {
        "permissive": {"allowed"},
        "share-alike": {"unknown"},
        "non-commercial": {"non-commercial"},
        "no-derivatives": {"forbidden"},
        "unknown": {"unknown"},
    }
    assert spec.distillation in expected[classify(spec.license)]
    if spec.distillation in ("forbidden", "non-commercial"):
        assert spec.notes, "the reason"
        assert not spec.commercial
    if spec.distillation == "allowed":
        assert spec.commercial
    assert LicenseFacts(spec.license).strictest == classify(spec.license)
