"""Which teachers a filter leaves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.registry.filters import TeacherFilter, choices, parse_count
from kdkit.core.project.registry.listing import TeacherRow, available_rows
from tests.errors import raises_error

ROWS = tuple(available_rows(load_catalogue(), "research"))


def left(only: TeacherFilter) -> tuple[TeacherRow, ...]:
    return tuple(row for row in ROWS if only.matches(row))


def test_each_condition_leaves_exactly_the_rows_that_fulfill_it() -> None:
    assert left(TeacherFilter()) == ROWS
    assert left(TeacherFilter(domain="xray")) == tuple(row for row in ROWS if "xray" in row.domains)
    assert left(TeacherFilter(kind="image")) == tuple(row for row in ROWS if set(row.dims) == {"image"})
    assert {row.license for row in left(TeacherFilter(license="MIT"))} == {"mit"}
    for name in ("permissive", "non-commercial", "no-derivatives", "unknown"):
        assert {row.license_class for row in left(TeacherFilter(license=name))} == {name}


def test_what_each_condition_can_be_is_offered() -> None:
    assert choices(ROWS, TeacherFilter()) == []
    (domains,) = choices(ROWS, TeacherFilter(domain="x"))
    assert "xray" in domains
    classes, licenses = choices(ROWS, TeacherFilter(license="nonsense"))
    assert "permissive" in classes
    assert "mit" in licenses.split(": ")[1].split(", ")
    (least,) = choices(ROWS, TeacherFilter(max_parameters=500_000))
    assert f"{min(row.parameters for row in ROWS if row.parameters):,}" in least


def test_conditions_are_joined_by_and() -> None:
    both = left(TeacherFilter(domain="pathology", kind="image", license="no-derivatives"))
    assert {row.name for row in both} >= {"uni", "virchow2"}
    assert all(row.kind == "image" and "pathology" in row.domains for row in both)


def test_a_teacher_of_unknown_size_is_not_known_to_be_small() -> None:
    row = replace(ROWS[0], parameters=None)
    assert not TeacherFilter(max_parameters=10**12).matches(row)
    assert TeacherFilter(max_parameters=5).matches(replace(row, parameters=5))
    assert not TeacherFilter(max_parameters=4).matches(replace(row, parameters=5))


@pytest.mark.parametrize(
    ("text", "count"), [("7", 7), ("86k", 86_000), ("150M", 150_000_000), (" 1.5b ", 1_500_000_000)]
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "-3M", "0", "1e9", "nan", "12 apples"])
def test_a_size_that_is_no_count_is_refused(text: str) -> None:
    with raises_error("KD-TEACH-028"):
        parse_count(text)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with raises_error("KD-TEACH-027", mentions=("'image'",)):
        TeacherFilter(kind="images")
