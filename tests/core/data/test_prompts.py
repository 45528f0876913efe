"""Prompts of zero-shot classification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kdkit.core.data import SampleIndex, load_index, prompt_sets
from kdkit.core.data.prompts import DEFAULT_TEMPLATES, all_prompts, finding_sets, project_prompts
from kdkit.core.project.registry.schema import Registry
from tests.core.data.projects import make_project, row
from tests.errors import raises_error


def prompts_of(tmp_path: Path, prompts: dict[str, Any]) -> tuple[Registry, SampleIndex]:
    rows = [row(0, domain="brain_mr", label="no_tumour"), row(1, domain="ct"), row(2, domain="x", label=None)]
    project = make_project(tmp_path, rows, prompts=prompts)
    return project.registry, load_index(project)


def test_templates_of_a_domain_and_default(tmp_path: Path) -> None:
    registry, index = prompts_of(tmp_path, {"ct": ["{label}", "CT: {label}"], "default": ["{domain} {label}"]})
    sets = prompt_sets(registry, index)
    assert sets == {
        "brain_mr": {"no_tumour": ["brain mr no tumour"]},
        "ct": {"normal": ["normal", "CT: normal"]},
    }
    assert all_prompts(sets) == ("brain mr no tumour", "normal", "CT: normal")


def test_default_prompts(tmp_path: Path) -> None:
    sets = prompt_sets(*prompts_of(tmp_path, {}))
    assert len(sets["ct"]["normal"]) == len(DEFAULT_TEMPLATES)
    assert len(all_prompts(sets)) == 2 * len(DEFAULT_TEMPLATES)


def test_classes_may_have_prompts_of_their_own(tmp_path: Path) -> None:
    own = {"brain_mr": {"no_tumour": ["a healthy brain", "{domain} without {label}"]}, "default": ["{label}"]}
    registry, index = prompts_of(tmp_path, own)
    sets = prompt_sets(registry, index)
    assert sets["brain_mr"] == {"no_tumour": ["a healthy brain", "brain mr without no tumour"]}
    assert sets["ct"] == {"normal": ["normal"]}


def test_prompts_of_a_class_that_no_sample_has_are_refused(tmp_path: Path) -> None:
    registry, index = prompts_of(tmp_path, {"ct": {"norml": ["a normal ct"]}})
    with raises_error("KD-DATA-230", mentions=("norml", "'normal'")):
        prompt_sets(registry, index)


def test_findings_have_positive_and_negative_prompts(tmp_path: Path) -> None:
    rows = [{**row(n, domain="xray", label=None), "label": names} for n, names in enumerate((["edema", "mass"], []))]
    prompts = {"xray": {"edema": {"positive": ["edema!"], "negative": ["clear"]}}, "default": ["{label}"]}
    project = make_project(tmp_path, rows, prompts=prompts)
    index = load_index(project)
    assert finding_sets(project.registry, index) == {
        "xray": {"edema": (["edema!"], ["clear"]), "mass": (["mass"], ["no mass"])}
    }
    assert project_prompts(project.registry, index) == ("edema!", "clear", "mass", "no mass")
