"""Slides are recognized, and then read."""

from __future__ import annotations

from pathlib import Path

import pytest

from kdkit.core.data.recognize import recognize
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.plugins.sources.recognize.slides import recognize_wsi
from tests.core.features.small import paint
from tests.plugins.sources.files import read, write_manifest
from tests.plugins.sources.slide_files import noise, tissue_on_glass, write_slide


def write(path: Path) -> Path:
    described = "" if path.suffix == ".tif" else "Aperio Image Library v1"
    return write_slide(path, tissue_on_glass(320, 320, (20, 20, 300, 300)), described=described)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.svs", "b.tif"], {("a", None), ("b", None)}),
        (["luad/a.tif", "lusc/b.tif"], {("luad/a", "luad"), ("lusc/b", "lusc")}),
        (["train/luad/a.svs", "val/lusc/b.svs"], {("train/luad/a", "luad"), ("val/lusc/b", "lusc")}),
        (["train/a.svs", "val/b.svs"], {("train/a", None), ("val/b", None)}),
        (["same/a.svs", "same/b.svs"], {("same/a", None), ("same/b", None)}),
    ],
)
def test_folders(tmp_path: Path, names: list[str], expected: set[tuple[str, str | None]]) -> None:
    for name in names:
        write(tmp_path / "set" / name)
    found = recognize(tmp_path / "set", load_catalogue())
    assert found.source == "wsi"
    samples = read("wsi", found.found.path, **found.found.options)
    assert {(sample.id.rsplit("_", 2)[0], sample.label) for sample in samples} == expected
    by_folder = names[0].startswith("train")
    assert ("split_fractions" in found.found.options) != by_folder
    assert not by_folder or {sample.split for sample in samples} == {"train", "calibration"}


def test_tables(tmp_path: Path) -> None:
    write(tmp_path / "slides" / "a.tif")
    write(tmp_path / "slides" / "b.svs")
    rows = [{"file": "a.tif", "diagnosis": "luad", "case": "p1"}, {"file": "b.svs", "diagnosis": "lusc", "case": "p2"}]
    write_manifest(tmp_path / "cohort.csv", rows)
    found = recognize(tmp_path / "cohort.csv", load_catalogue())
    assert found.source == "wsi"
    samples = read("wsi", found.found.path, **found.found.options)
    assert {(s.id.rsplit("_", 2)[0], s.label, s.extra["group"]) for s in samples} == {
        ("a", "luad", "p1"),
        ("b", "lusc", "p2"),
    }


def test_other_data(tmp_path: Path) -> None:
    paint(tmp_path / "set" / "cyst" / "a.png", seed=0)
    paint(tmp_path / "set" / "cyst" / "b.tif", seed=0)
    assert recognize_wsi(tmp_path / "set") is None
    assert recognize_wsi(tmp_path / "set" / "cyst" / "a.png") is None
    write_manifest(tmp_path / "rows.csv", [{"image": "set/cyst/b.tif", "text": "a"}])
    assert recognize_wsi(tmp_path / "rows.csv") is None
    write_manifest(tmp_path / "lost.csv", [{"slide": "lost.svs", "text": "a"}])
    assert recognize_wsi(tmp_path / "lost.csv") is None
    write_slide(tmp_path / "tiles" / "cyst" / "a.tif", noise(64, 64), levels=[], described="")
    assert recognize(tmp_path / "tiles", load_catalogue()).source == "folder"  # tiled, but no pyramid
    one = write_slide(tmp_path / "one.svs", noise(300, 300))
    found = recognize(one, load_catalogue())
    assert (found.source, found.found.path) == ("wsi", one)
