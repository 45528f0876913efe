"""Files with nearly the name of a missing one."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from kdkit.core.data.names import near_miss


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
