"""Prompts of zero-shot classification."""

from __future__ import annotations

from pathlib import Path

from kdkit.core.data import SampleIndex, load_index, prompt_sets
from kdkit.core.data.prompts import DEFAULT_TEMPLATES, all_prompts
from kdkit.core.project.registry.schema import Registry
from tests.core.data.projects import make_project, row


def prompts_of(tmp_path: Path, prompts: dict[str, list[str]]) -> tuple[Registry, SampleIndex]:
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
