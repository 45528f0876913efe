"""Domains and labels by rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kdkit.core.contracts import Sample, Silent
from kdkit.core.data import load_index
from kdkit.core.data.check import check_data
from kdkit.core.data.entries import read_sources
from kdkit.core.project.project import Project
from tests.core.data.projects import make_project, row, write_registry
from tests.core.features.small import paint
from tests.errors import raises_error

NAMES = ("site_ct_p1", "site_mr_p2", "site_us_p3", "other")


def samples_of(project: Project) -> list[Sample]:
    return [sample for entry in read_sources(project) for sample in entry.samples]


def named_project(tmp_path: Path, **options: Any) -> Project:
    rows = [
        row(i, id=name, image=f"{name.replace('_', '/')}.png", label=str(i), domain="x", text=f"Image of {name}.")
        for i, name in enumerate(NAMES)
    ]
    for one in rows:
        (tmp_path / "data" / one["image"]).parent.mkdir(parents=True, exist_ok=True)
    return make_project(tmp_path, rows, options)


def test_a_regular_expression_over_id_path_or_text_names_the_domain(tmp_path: Path) -> None:
    rules = [
        {"of": "id", "pattern": "_(?P<domain>ct|mr|us)_", "otherwise": "unknown"},
        {"of": "path", "pattern": "^site/([a-z]+)/", "otherwise": "unknown"},
        {"of": "text", "pattern": "(?<=_)(ct|mr|us)(?=_)", "otherwise": "unknown"},
    ]
    for rule in rules:
        found = samples_of(named_project(tmp_path, domain_by=rule))
        assert [one.domain for one in found] == ["ct", "mr", "us", "unknown"]
        assert [one.id for one in found] == list(NAMES)


def test_what_a_rule_does_not_name_is_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = named_project(
        tmp_path,
        domain_by={"of": "id", "pattern": "_(ct|mr|us)_", "map": {"ct": "CT", "mr": "MRI"}},
        label_by={"of": "label", "map": {"0": "normal", "2": "cyst"}},
        text_by="a {domain} picture",
    )
    found = samples_of(project)
    assert [(one.domain, one.label, one.text) for one in found] == [
        ("CT", "normal", "a CT picture"),
        ("MRI", None, "a MRI picture"),
    ]
    (entry,) = read_sources(project)
    kinds = {(kind.count, kind.level, kind.what.split("_by")[0]) for kind in entry.skipped}
    assert kinds == {
        (1, "warning", "samples of 'us', which domain"),
        (1, "warning", "samples whose id domain"),
        (1, "warning", "labels of samples of '1', which label"),
        (1, "warning", "labels of samples of '3', which label"),
    }
    reporter = Silent()
    monkeypatch.setattr(reporter, "warn", (warnings := list[str]()).append)
    assert len(load_index(project, reporter)) == 2
    assert len(warnings) == 4  # every command says so
    assert len(check_data(project).items("skipped-files")) == 4


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.csv", "value,site,label\n0,a,normal\n1,b,cyst\n2,a,normal\n3,b, cyst \n"),
        ("map.tsv", "value\tname\n0\tnormal\n1\tcyst\n2\tnormal\n3\tcyst\n"),
        ("map.json", '{"0": "normal", "1": "cyst", "2": "normal", "3": "cyst"}'),
        ("map.yaml", "0: normal\n1: cyst\n2: normal\n3: cyst\n"),
    ],
)
def test_names_come_from_a_file(tmp_path: Path, name: str, content: str) -> None:
    project = named_project(tmp_path, label_by={"of": "label", "map": name}, text_by="{label}")
    (tmp_path / name).write_text("\ufeff" + content, encoding="utf-8")
    found = samples_of(project)
    assert [one.label for one in found] == ["normal", "cyst", "normal", "cyst"]
    assert [one.text for one in found] == [one.label for one in found]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("map.csv", "value\n0\n"),
        ("map.csv", "value,label\n0\n"),
        ("map.csv", "value,label\n0,a\n0,b\n"),
        ("map.json", "[1]"),
        ("map.json", '{"0": 1}'),
        ("map.yaml", "a: [b"),
        ("gone.csv", None),
    ],
)
def test_a_map_that_cannot_be_read_is_an_error(tmp_path: Path, name: str, content: str | None) -> None:
    project = named_project(tmp_path, label_by={"of": "label", "map": name})
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with raises_error("KD-DATA-203", where=str(tmp_path / name)):
        samples_of(project)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"domain_by": {"of": "color"}}, "KD-DATA-201"),
        ({"domain_by": {"of": "id", "patern": "x"}}, "KD-DATA-201"),
        ({"label_by": {"of": "id", "map": {"a": ""}}}, "KD-DATA-201"),
        ({"label_by": {"of": "id", "pattern": "("}}, "KD-DATA-202"),
        *(({"text_by": text}, "KD-DATA-204") for text in ("{color}", "{label:>300000}", "{domain.x}", "{domain", "{}")),
        ({"domain_by": "id"}, "KD-DATA-012"),
    ],
)
def test_wrong_rules_are_errors_with_their_line(tmp_path: Path, options: dict[str, Any], error: str) -> None:
    project = named_project(tmp_path, **options)
    with raises_error(error) as caught:
        samples_of(project)
    assert caught.value.where
    assert caught.value.fix


def test_rules_work_with_any_source(tmp_path: Path) -> None:
    for name in ("CT_01_benign.png", "MR_02_malignant.png"):
        paint(tmp_path / "scans" / "all" / name, seed=len(name))
    options = {
        "split": "train", "domain": "x",
        "domain_by": {"of": "path", "pattern": r"/(CT|MR)_"},
        "label_by": {"of": "path", "pattern": r"_([a-z]+)\.png$"},
        "text_by": "a {domain} image, {label}",
    }  # fmt: skip
    write_registry(tmp_path, [{"source": "folder", "path": "scans", "options": options}])
    found = samples_of(Project(tmp_path))
    assert [(one.domain, one.label) for one in found] == [("CT", "benign"), ("MR", "malignant")]
    assert [one.text for one in found] == ["a CT image, benign", "a MR image, malignant"]
    assert json.dumps(options)  # plain data
