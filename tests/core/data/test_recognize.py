"""The source that reads a path is found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdkit.core.base.errors import KdkitError
from kdkit.core.contracts import Recognition
from kdkit.core.data.recognize import recognize
from kdkit.core.plugin_system.catalogue import Catalogue
from kdkit.core.plugin_system.discovery import load_catalogue
from tests.core.features.small import paint
from tests.errors import raises_error
from tests.plugins.sources.archives import png, write_tar
from tests.plugins.sources.files import write_manifest


def test_the_most_certain_source_is_taken(tmp_path: Path) -> None:
    for name in ("cyst/a", "normal/b"):
        paint(tmp_path / "set" / f"{name}.png", seed=1)
    assert recognize(tmp_path / "set", load_catalogue()).source == "folder"
    table = write_manifest(tmp_path / "set" / "rows.csv", [{"image": "cyst/a.png", "text": "a cyst"}])
    found = recognize(tmp_path / "set", load_catalogue())
    assert (found.source, found.found.path, found.others) == ("csv", table, ("folder",))


def test_nothing_recognized_says_what_is_there(tmp_path: Path) -> None:
    with raises_error("KD-DATA-022", where=str(tmp_path / "gone")):
        recognize(tmp_path / "gone", load_catalogue())
    (tmp_path / "a.xyz").write_bytes(b"x")
    for path, word in ((tmp_path, ".xyz"), (tmp_path / "a.xyz", ".xyz")):
        with raises_error("KD-DATA-023", where=str(path)) as caught:
            recognize(path, load_catalogue())
        assert word in caught.value.why


def test_a_table_that_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    paint(tmp_path / "imgs" / "a.png", seed=1)
    table = write_manifest(tmp_path / "labels.csv", [{"image": f"{name}.png", "label": "cyst"} for name in "ab"])
    with raises_error("KD-SRC-107", where=str(table)):
        recognize(tmp_path, load_catalogue())
    write_manifest(table, [{"image_id": "a", "dx": "cyst"}])  # paths without endings
    with raises_error("KD-SRC-115", where=str(tmp_path)) as caught:
        recognize(tmp_path, load_catalogue())
    assert "labels.csv" in caught.value.what


def test_images_beside_an_archive_are_not_passed_over(tmp_path: Path) -> None:
    for number in range(4):
        paint(tmp_path / ("cat", "dog")[number % 2] / f"{number}.png", seed=1)
    write_tar(tmp_path / "old.tar", {"a.png": png(1), "a.cls": b"cat"})
    found = recognize(tmp_path, load_catalogue())
    assert (found.source, found.others) == ("folder", ())


def refuses(path: Path) -> Recognition | None:
    raise KdkitError("MINE-001", f"{path.name} lacks something")


def certain(path: Path) -> Recognition | None:
    return Recognition(path, {}, ("mine",), 100)


def with_recognizer(name: str) -> Catalogue:
    """As if a plugin's source had that recognizer."""
    catalogue = load_catalogue()
    entries = catalogue.contents["source"]
    spec = replace(entries[0].spec, name="mine", recognizer=f"{__name__}:{name}")
    return replace(catalogue, contents={**catalogue.contents, "source": (*entries, replace(entries[0], spec=spec))})


def test_a_plugin_takes_part(tmp_path: Path) -> None:
    paint(tmp_path / "set" / "cyst" / "a.png", seed=1)
    found = recognize(tmp_path / "set", with_recognizer("certain"))
    assert (found.source, found.others) == ("mine", ("folder",))
    found = recognize(tmp_path / "set", with_recognizer("refuses"))
    assert (found.source, {name: error.id for name, error in found.refused.items()}) == ("folder", {"mine": "MINE-001"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(KdkitError) as caught:
        recognize(tmp_path / "empty", with_recognizer("refuses"))
    assert caught.value.id == "MINE-001"
