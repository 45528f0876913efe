"""Files with nearly the name of a missing one."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from kdkit.core.data.names import is_no_name, near_miss, same_meaning


@pytest.mark.parametrize(
    "written",
    [
        "imgs\\a b.png",
        "IMGS/A B.PNG",
        "imgs/a b.jpg",
        "imgs/a b.png ",
        "imgs/a%20b.png",
        "imgs/a  b.png",
    ],
)
def test_nearly_the_same_name(tmp_path: Path, written: str) -> None:
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs/a b.png").touch()
    (tmp_path / "imgs/other.png").touch()
    assert str(tmp_path / "imgs/a b.png") in near_miss(tmp_path / written)


def test_unicode_forms(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "\u00e9.png")).touch()
    assert near_miss(tmp_path / unicodedata.normalize("NFC", "\u00e9.png"))


@pytest.mark.parametrize("written", ["x.png", "imgs/y.png", "a" * 300, "nul\0"])
def test_nothing_near(tmp_path: Path, written: str) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / "x.json").touch()
    assert near_miss(tmp_path / written) == ""
    assert near_miss(tmp_path / "a.png") == ""


@pytest.mark.parametrize(
    "other",
    [
        "no-finding",
        "no\u2010finding",
        "No_Finding",
        "no\u00a0finding",
        "no find\u200bing",
        "n\u043e f\u0456nding",
        "no \ufb01nding",
    ],
)
def test_names_that_look_alike_mean_one_thing(other: str) -> None:
    assert same_meaning(other) == same_meaning("no finding")


def test_several_classes_in_any_order_mean_one_thing() -> None:
    assert len({same_meaning(name) for name in ("a|b", "b|a", "b; a", "A, b")}) == 1
    assert len({same_meaning(name) for name in ("1", "-1", "1,0", "0,1", "a", "ab", "a b")}) == 7


@pytest.mark.parametrize("text", ["nan", "<NA>", "#N/A", "['a', 'b']", "('a',)", "{}", "array(['a'], dtype=object)"])
def test_missing_values_and_lists_are_no_names(text: str) -> None:
    assert is_no_name(text)
    assert not is_no_name(f"{text} mass")
