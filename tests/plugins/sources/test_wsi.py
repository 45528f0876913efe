"""Folders and tables of whole-slide images."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from kdkit.core.contracts import ImageLocation, Sample, Skipped
from kdkit.core.data import load_index, stamps
from kdkit.core.data.check import check_data
from kdkit.core.data.images import open_image
from kdkit.core.data.start import start_project
from kdkit.core.features.imports.hdf5 import read_hdf5_files
from kdkit.core.features.imports.rows import ReadOptions
from kdkit.core.project.project import Project
from kdkit.plugins.sources import wsi, wsi_tiles
from kdkit.plugins.sources.wsi import SHARED
from tests.core.data.projects import write_registry
from tests.errors import raises_error
from tests.plugins.sources.files import read, read_all, write_manifest
from tests.plugins.sources.slide_files import SECRETS, noise, tissue_on_glass, write_coordinates, write_slide
from tests.recorder import Recorder

HALVES = {"train": 0.5, "test": 0.5}
GRID: dict[str, Any] = {"tile_size": 64, "min_tissue": 0}


def skipped(found: list[Sample | Skipped]) -> dict[str, str]:
    return {item.what: item.level for item in found if isinstance(item, Skipped)}


def write_cohort(folder: Path) -> Path:
    """Two patients of two slides each, of 2 x 3 tiles of 64 pixels."""
    for n, name in enumerate(("tumor/p1_a", "tumor/p1_b", "normal/p2_a", "normal/p2_b")):
        write_slide(folder / f"{name}.svs", noise(200, 140, n))
    return folder


def test_a_sample_is_a_tile(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "slides")
    found = read("wsi", folder, split="train", classes=True, group_pattern=r"^(p\d)_", **GRID)
    assert len(found) == 4 * 6
    first, second, third = found[:3]
    assert [one.id for one in (first, second, third)] == [f"normal/p2_a_{x}_{y}" for x, y in [(0, 0), (64, 0), (0, 64)]]
    assert (first.domain, first.label, first.text) == (
        "histopathology",
        "normal",
        "a histopathology image of normal",
    )
    assert first.image == ImageLocation("wsi", folder / "normal" / "p2_a.svs", (0, 0, 0, 64, 64), "0, 0")
    assert {one.extra["group"] for one in found} == {"p1", "p2"}
    assert np.array_equal(np.asarray(open_image(third)), noise(200, 140, 2)[64:128, :64])
    plain = read("wsi", folder / "tumor", split="test", domain="skin", id_prefix="x/", **GRID)
    assert (plain[0].id, plain[0].text, plain[0].label, plain[0].extra["group"]) == (
        "x/p1_a_0_0",
        "skin image",
        None,
        "p1_a",
    )


def test_splits_are_those_of_groups_or_folders(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "slides")
    found = read("wsi", folder, split_fractions=HALVES, group_pattern=r"^(p\d)_", **GRID)
    assert all(len({one.split for one in found if one.extra["group"] == group}) == 1 for group in ("p1", "p2"))
    with raises_error("KD-SRC-007", where=str(folder / "normal" / "p2_a.svs")):  # its patient may be in another split
        read("wsi", folder, split_fractions=HALVES, group_pattern="^p1", **GRID)
    by_folder = read("wsi", folder, splits={"tumor": "train", "normal": "calibration"}, **GRID)
    assert {(one.id.partition("/")[0], one.split) for one in by_folder} == {
        ("tumor", "train"),
        ("normal", "calibration"),
    }
    with raises_error("KD-SRC-020"):
        read("wsi", folder, **GRID)


def test_a_table_names_slides(tmp_path: Path) -> None:
    write_cohort(tmp_path / "slides")
    rows = [
        {"slide": "tumor/p1_a.svs", "dx": "luad", "patient": "p1", "split": "train", "age": "61"},
        {"slide": "normal/p2_a.svs", "dx": "", "patient": "p2", "split": "val", "age": ""},
    ]
    table = write_manifest(tmp_path / "cohort.csv", rows)
    options = {
        "columns": {"label": "dx", "group": "patient"},
        "image_root": "slides",
        "splits": {"val": "calibration"},
        "metadata": ["age"],
        "caption": "{domain}",
        **GRID,
    }
    found = read("wsi", table, **options)
    assert len(found) == 12
    assert (found[0].id, found[0].label, found[0].split) == ("tumor/p1_a_0_0", "luad", "train")
    assert found[0].extra == {"metadata": {"age": "61"}, "group": "p1"}
    assert (found[-1].label, found[-1].split, found[-1].extra["group"]) == (None, "calibration", "p2")
    assert found[0].origin == f"{table}:2"
    write_manifest(table, [{"id": "case-7", "image": "slides/tumor/p1_a.svs", "text": "report", "domain": "lung"}])
    (first, *_) = read("wsi", table, split="test", **GRID)
    assert (first.id, first.text, first.domain) == ("case-7_0_0", "report", "lung")
    assert first.extra["group"] == "case-7"
    with raises_error("KD-SRC-046", where=f"{table}:2"):
        read("wsi", table, columns={"slide": "path"}, split="test", **GRID)
    with raises_error("KD-SRC-351"):
        read("wsi", table, classes=True, split="test")
    with raises_error("KD-SRC-351"):
        read("wsi", tmp_path / "slides", columns={"label": "dx"}, split="test")


def test_coordinates_name_the_tiles(tmp_path: Path) -> None:
    write_slide(tmp_path / "slides" / "a.svs", noise(200, 140))
    write_slide(tmp_path / "slides" / "b.svs", noise(200, 140))
    write_coordinates(tmp_path / "patches" / "a.h5", [[3, 5], [70, 90]], {"patch_size": 32, "patch_level": 0})
    found = read_all("wsi", tmp_path / "slides", coordinates="../patches", split="train")
    samples = [one for one in found if isinstance(one, Sample)]
    assert [(one.id, one.image.at) for one in samples if isinstance(one.image, ImageLocation)] == [
        ("a_3_5", (3, 5, 0, 32, 32)),
        ("a_70_90", (70, 90, 0, 32, 32)),
    ]
    assert skipped(found) == {"slides without a file of coordinates": "problem"}
    with raises_error("KD-SRC-350", mentions=["tile_size"]):
        read("wsi", tmp_path / "slides", coordinates="../patches", split="train", tile_size=64)


def test_slides_of_one_name_have_no_coordinates(tmp_path: Path) -> None:
    """Their file cannot say which of both it is of."""
    for name in ("one/a.svs", "two/a.svs", "two/b.svs"):
        write_slide(tmp_path / "slides" / name, noise(64, 64))
        write_coordinates(tmp_path / f"{name[4:-4]}.h5", [[3, 5]], {"patch_size": 32, "patch_level": 0})
    found = read_all("wsi", tmp_path / "slides", coordinates="..", split="train")
    assert [one.id for one in found if isinstance(one, Sample)] == ["two/b_3_5"]
    assert [(one.what, one.level) for one in found if isinstance(one, Skipped)] == [(SHARED, "problem")] * 2


def test_ids_are_those_of_imported_features(tmp_path: Path) -> None:
    """TRIDENT and CLAM write a file of features per slide, with the corners."""
    folder = write_cohort(tmp_path / "slides")
    corners = [[3, 5], [70, 90]]
    for name in ("tumor/p1_a", "normal/p2_a"):
        path = write_coordinates(tmp_path / "features" / f"{name}.h5", corners, {"patch_size": 32, "patch_level": 0})
        write_coordinates(tmp_path / "patches" / f"{Path(name).name}.h5", corners, {"patch_size": 32, "patch_level": 0})
        with h5py.File(path, "a") as file:
            file["features"] = np.ones((2, 4), dtype=np.float32)
    files = {f"{name}.h5": tmp_path / "features" / f"{name}.h5" for name in ("tumor/p1_a", "normal/p2_a")}
    imported = [id_ for part in read_hdf5_files(files, ReadOptions()).parts() for id_ in part.ids]
    samples = read("wsi", folder, coordinates="../patches", split="train")
    assert sorted(imported) == sorted(sample.id for sample in samples)


def test_a_draw_is_stable(tmp_path: Path) -> None:
    folder = write_cohort(tmp_path / "slides")

    def ids(**options: Any) -> list[str]:
        return [one.id for one in read("wsi", folder, split="train", **GRID, **options)]

    two, four = ids(max_tiles_per_slide=2), ids(max_tiles_per_slide=4)
    assert (len(two), len(four)) == (8, 16)
    assert set(two) < set(four)
    assert two == ids(max_tiles_per_slide=2) != ids(max_tiles_per_slide=2, seed=1)
    assert ids(max_tiles_per_slide=100) == ids()
    os.remove(folder / "normal" / "p2_a.svs")
    assert ids(max_tiles_per_slide=2) == two[2:]  # the draw of one slide does not depend on others
    with raises_error("KD-SRC-348"):
        ids(max_tiles_per_slide=0)


def test_slides_are_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a command ended in the middle; a replaced slide is looked at again."""
    folder = write_cohort(tmp_path / "slides")
    write_registry(tmp_path, [{"source": "wsi", "path": "slides", "options": {"split_fractions": HALVES, **GRID}}])
    monkeypatch.setattr(stamps, "RECENT_NS", 0)
    cut, seen = wsi_tiles.cut_into_tiles, list[str]()

    def count(path: Path, plan: Any) -> Any:
        if len(seen) == 2 and "stop" not in seen:
            seen.append("stop")
            raise KeyboardInterrupt
        seen.append(path.name)
        return cut(path, plan)

    monkeypatch.setattr(wsi, "cut_into_tiles", count)
    with pytest.raises(KeyboardInterrupt):
        load_index(Project(tmp_path))
    assert len(load_index(Project(tmp_path))) == 24
    assert seen == ["p2_a.svs", "p2_b.svs", "stop", "p1_a.svs", "p1_b.svs"]
    first = load_index(Project(tmp_path))
    write_slide(folder / "tumor" / "p1_a.svs", noise(200, 140, 77))
    second = load_index(Project(tmp_path))
    assert seen[5:] == ["p1_a.svs"]
    changed = first.digests != second.digests
    assert [id_ for id_, new in zip(first.ids, changed, strict=True) if new] == [
        id_ for id_ in first.ids if id_.startswith("tumor/p1_a_")
    ]


def test_what_is_left_out_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "slides"
    write_slide(folder / "a.svs", noise(200, 140))
    write_slide(folder / "b.tiff", noise(200, 140), mpp=None, described="")
    write_slide(folder / "c.svs", tissue_on_glass(200, 200, (0, 0, 0, 0)))
    (folder / "d.svs").write_bytes(b"damaged")
    (folder / "e.mrxs").write_bytes(b"damaged")
    for name in ("e/Data0000.dat", "notes.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    found = read_all("wsi", folder, split="train", tile_size=64)
    assert {one.origin for one in found if isinstance(one, Sample)} == {str(folder / "a.svs")}
    assert skipped(found) == {
        "slides that do not say how many microns a pixel has": "problem",
        "slides without a tile of enough tissue": "warning",
        "slides that cannot be opened": "problem",
        "files that are no slides": "note",
    }
    os.remove(folder / "a.svs")
    with raises_error("KD-SRC-349", where=str(folder), mentions=["2 slides that cannot be opened"]):
        read("wsi", folder, split="train", tile_size=64)
    with raises_error("KD-SRC-347"):
        read("wsi", tmp_path / "none", split="train")


def test_without_openslide_the_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slide(tmp_path / "a.svs", noise(80, 80))
    monkeypatch.setitem(sys.modules, "openslide", None)
    with raises_error("KD-SRC-340", mentions=["pip install 'kdkit[wsi]'"]):
        read("wsi", tmp_path, split="train", **GRID)


def test_nothing_names_the_patient(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Header, barcode, label image and the names in coordinates: not in samples, pages, the index or messages."""
    for n, split in enumerate(("train", "val", "test")):
        write_slide(tmp_path / "slides" / split / f"{n}.svs", noise(200, 140, n))
        corners = [[0, 0], [64, 64]]
        write_coordinates(tmp_path / "patches" / f"{n}.h5", corners, {"patch_size": 64, "patch_level": 0})
    folder = tmp_path / "slides" / "train"
    (folder / "cut.svs").write_bytes((folder / "0.svs").read_bytes()[:900])
    options = {"coordinates": "../patches"}
    write_registry(tmp_path, [{"source": "wsi", "path": "slides", "options": options}])
    project, recorder = Project(tmp_path), Recorder()
    index = load_index(project, recorder)
    report = check_data(project, reporter=recorder, page=tmp_path / "page.html")
    texts = [repr([index.samples[row] for row in range(len(index))]), repr(report), "".join(capfd.readouterr())]
    texts += [repr(vars(recorder))]
    written = [path for path in (tmp_path / ".kdkit").rglob("*") if path.is_file()] + [tmp_path / "page.html"]
    texts += [path.read_bytes().decode("latin-1") for path in written]
    for secret in SECRETS:
        assert not [text[:200] for text in texts if secret in text]


def test_init_recognizes_slides(tmp_path: Path) -> None:
    for name in ("tumor/a", "normal/b"):
        write_slide(tmp_path / "slides" / f"{name}.svs", tissue_on_glass(300, 300, (20, 20, 270, 270)))
    project = start_project(tmp_path / "p", tmp_path / "slides", Recorder())
    (entry,) = project.registry.data
    assert (entry.source, entry.options["classes"], len(load_index(project))) == ("wsi", True, 2)
