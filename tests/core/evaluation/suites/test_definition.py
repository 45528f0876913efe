"""Definitions of suites: what a file must say, and what the built-in ones hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.yaml_model import read_model
from kdkit.core.contracts import SourceSpec, SuiteSpec
from kdkit.core.evaluation.suites.definition import FACTS, Suite, chosen, load_suite
from kdkit.core.plugin_system.catalogue import FAMILIES, Catalogue, Entry
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.licenses import normalize
from kdkit.plugins.sources.medmnist import LABELS
from tests.errors import raises_error

ONE = """\
summary: two stains
datasets:
  stains:
    title: Stains
    home: https://example.org
    license: mit
    modality: microscopy
    classes: {he: hematoxylin, pas: Schiff}
    templates: ["a {label} stain"]
    data: {source: folder, path: test, options: {split: test}}
    sources: {"home, license, classes": the README}
    unverified: [data]
"""
NINE = {"x-ray", "fundus", "histopathology", "endoscopy", "ct", "mri", "ultrasound", "dermatology", "oct"}


@pytest.fixture(scope="module")
def mmkd() -> Suite:
    return load_suite("mmkd", load_catalogue())


def test_the_built_in_suite_covers_the_nine_modalities(mmkd: Suite) -> None:
    by_modality: dict[str, int] = {}
    for item in mmkd.datasets.values():
        by_modality[item.modality] = by_modality.get(item.modality, 0) + 1
    assert set(by_modality) >= NINE
    assert min(by_modality[name] for name in NINE) >= 3
    assert len(mmkd.datasets) >= 40


def test_medmnist_has_its_twelve_sets_with_their_labels_and_hashes() -> None:
    suite = load_suite("medmnist", load_catalogue())
    assert set(suite.datasets) == set(LABELS)
    for name, item in suite.datasets.items():
        assert tuple(item.classes) == LABELS[name]
        paths = {item.data.path, *item.data.alternatives}
        assert paths == set(item.files)
        assert len({file.md5 for file in item.files.values()}) == 4


def test_every_definition_is_complete(mmkd: Suite) -> None:
    sources, teachers = load_catalogue().names("source"), set(load_catalogue().names("teacher"))
    for name, item in mmkd.datasets.items():
        assert item.data.source in sources
        assert set(item.overlap) <= teachers, name
        prompts = list(item.prompts().values())
        assert len({tuple(texts) for texts in prompts}) == len(item.classes), name
        assert all(text and "{" not in text for texts in prompts for text in texts)
        assert re.match(r"https://[a-z]", item.home), name
        if re.fullmatch(r"cc[\w.-]+", item.license):
            assert normalize(item.license) == item.license, name  # a name that kdkit's judgment of licenses knows
        assert set(item.unverified) <= {*FACTS, "group"}, name


def test_a_fact_without_a_source_is_refused() -> None:
    read_model(Suite, ONE, "suite.yaml")
    with raises_error("KD-BASE-007", where="suite.yaml:3") as caught:
        read_model(Suite, ONE.replace("unverified: [data]", "unverified: []"), "suite.yaml")
    assert "data" in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('["a {label} stain"]', '["a stain"]'),
        ("{he: hematoxylin, pas: Schiff}", "{he: hematoxylin}"),
        ("license: mit", "licence: mit"),
        ("title: Stains", "title: Stains\n    files: {x.zip: {sha256: abc}}"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str) -> None:
    with pytest.raises(KdkitError) as caught:
        read_model(Suite, ONE.replace(old, new), "suite.yaml")
    assert re.fullmatch(r"suite\.yaml:\d+", caught.value.where)


def test_a_suite_of_several_files_names_every_data_set_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "kdkit_stains"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "all.yaml").write_text("summary: all\nparts: [one.yaml]\n")
    (package / "one.yaml").write_text(ONE)
    (package / "twice.yaml").write_text("summary: all\nparts: [one.yaml, one.yaml]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    catalogue = catalogue_of("kdkit_stains:all.yaml", "kdkit_stains:twice.yaml")
    assert list(load_suite("suite-0", catalogue).datasets) == ["stains"]
    with raises_error("KD-EVAL-251", where="one.yaml:3"):
        load_suite("suite-1", catalogue)
    with raises_error("KD-PLUG-003"):
        load_suite("absent", catalogue)


def test_an_unknown_data_set_is_refused(mmkd: Suite) -> None:
    assert list(chosen(mmkd, ("busi",))) == ["busi"]
    with raises_error("KD-EVAL-252") as caught:
        chosen(mmkd, ("buzi",))
    assert "busi" in caught.value.fix


def catalogue_of(*resources: str) -> Catalogue:
    specs = [
        SuiteSpec(name=f"suite-{number}", summary="made up", resource=resource)
        for number, resource in enumerate(resources)
    ]
    contents: dict[Any, Any] = dict.fromkeys(FAMILIES, ())
    contents["suite"] = tuple(Entry(spec, "kdkit-two", "1") for spec in specs)
    contents["source"] = load_catalogue().entries("source")
    made = Catalogue((), contents)
    assert made.spec(SourceSpec, "folder")
    return made
