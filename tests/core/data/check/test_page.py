"""The page of findings."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kdkit.core.data.check import check_data
from kdkit.core.project.project import Project
from tests.core.data.projects import make_project, row, write_registry
from tests.core.features.small import paint
from tests.errors import raises_error

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\" onload='x' </style></title> \u202e\x1b[31m &amp;"


class Elements(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_texts_of_others_are_shown_and_never_obeyed(tmp_path: Path) -> None:
    rows = [row(i, text=HOSTILE, domain=HOSTILE, label=HOSTILE + str(i % 2), id=HOSTILE + str(i)) for i in range(6)]
    project = make_project(tmp_path / HOSTILE.replace("/", "")[:60], rows)
    report = check_data(project, page=tmp_path / "page.html")
    content = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Elements(content)
    used = {tag for tag, _ in page.tags}
    assert not used & {"script", "iframe", "object", "link", "form", "a", "base"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) >= 6
    assert all((one["src"] or "").startswith("data:image/jpeg;base64,") for one in images)
    (policy,) = [a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "<script>alert(1)</script>" in page.text  # as a text
    assert not set(content) & {"\u202e", "\x1b", "\x00"}
    assert not re.search(r"https?://", content)
    assert report.samples == 6


def test_it_shows_findings_counts_and_samples(tmp_path: Path) -> None:
    rows = [*(row(i) for i in range(24)), row(30, image="3.png", split="test"), row(31, image="bad.png")]
    project = make_project(tmp_path, rows)
    (tmp_path / "data" / "bad.png").write_bytes(b"no image")
    report = check_data(project, page=tmp_path / "new" / "page.html")
    page = Elements((tmp_path / "new" / "page.html").read_text(encoding="utf-8"))
    assert report.problems
    for line in (*report.problems, *report.notes, *report.looked_at.values()):
        assert line in page.text
    assert "prefers-color-scheme: dark" in page.text  # of the style
    assert sum(tag == "svg" for tag, _ in page.tags) >= 5
    assert "no picture" in page.text  # of the damaged one


def test_what_identifies_a_patient_is_not_on_the_page(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    from tests.plugins.sources.dicom_files import write_dicom

    folder = tmp_path / "scans, all" / "DOE JOHN"
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32), dtype=np.uint8)
        write_dicom(folder / f"{number}.dcm", pixels, PatientName="Doe^John", PatientID="MRN-4711")
    damaged = folder / "broken (1).dcm"
    damaged.write_bytes((folder / "0.dcm").read_bytes()[:400])
    write_registry(tmp_path, [{"source": "dicom", "path": "scans, all", "options": {"split": "test"}}])
    assert "DOE" in str(check_data(Project(tmp_path), page=tmp_path / "page.html"))  # on the terminal it helps
    content = re.sub(r"base64,[^\"]+", "", (tmp_path / "page.html").read_text(encoding="utf-8")).lower()
    assert not [word for word in ("doe", "john", "mrn", "4711") if word in content]
    assert "a file whose path may name a patient" in content


def test_names_of_slides_are_not_on_the_page(tmp_path: Path) -> None:
    """They are in ids of tiles, and in paths of what is left out."""
    pytest.importorskip("openslide")
    from tests.plugins.sources.slide_files import noise, write_slide

    for number, name in enumerate(("DOE JANE 1", "DOE JANE 12", "ROE")):
        write_slide(tmp_path / "slides" / f"{name}.svs", noise(128, 128, min(number, 1)))
    (tmp_path / "slides" / "DOE JOHN.svs").write_bytes(b"damaged")
    options = {"tile_size": 64, "min_tissue": 0, "split_fractions": {"train": 0.5, "test": 0.5}}
    write_registry(tmp_path, [{"source": "wsi", "path": "slides", "options": options}])
    assert "DOE" in str(check_data(Project(tmp_path), page=tmp_path / "page.html"))
    content = re.sub(r"base64,[^\"]+", "", (tmp_path / "page.html").read_text(encoding="utf-8")).lower()
    assert not [word for word in ("doe", "jane", "john", "roe") if word in content]
    assert "(a tile)" in content


def test_ids_that_are_paths_of_dicom_files_are_not_on_the_page(tmp_path: Path) -> None:
    """The manifest has no ids and its images are elsewhere; findings, captions and figures would name them."""
    pytest.importorskip("pydicom")
    from tests.plugins.sources.dicom_files import write_dicom

    names = [f"DOE_JANE/{number}.dcm" for number in range(3)] + ["ROE_RICHARD.DCM"]
    for name in names:
        write_dicom(tmp_path / "dicom" / name, np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8))
    (tmp_path / "dicom" / names[0]).write_bytes((tmp_path / "dicom" / names[0]).read_bytes()[:400])
    paint(tmp_path / "dicom" / "plain.png", seed=1)
    rows = [
        {"image": name, "text": f"text {i}", "domain": "ct", "split": ("train", "test")[i % 2]}
        for i, name in enumerate([*names, "plain.png"])
    ]
    make_manifest(tmp_path / "lists" / "samples.jsonl", rows)
    write_registry(
        tmp_path, [{"source": "jsonl", "path": "lists/samples.jsonl", "options": {"image_root": "../dicom"}}]
    )
    report = check_data(Project(tmp_path), page=tmp_path / "page.html")
    assert {"images", "leaks"} <= {one.check for one in report.findings if "DOE_JANE" in str(one)}
    content = re.sub(r"base64,[^\"]+", "", (tmp_path / "page.html").read_text(encoding="utf-8")).lower()
    assert not [word for word in ("doe", "jane", "roe", "richard") if word in content]
    assert "plain.png" in content


def make_manifest(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir()
    path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")


def test_pictures_carry_nothing_but_pixels(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(0, image="0.jpg")])
    exif = Image.Exif()
    exif[0x010E] = "MRN-4711"  # the description
    Image.open(paint(tmp_path / "p.png", seed=1)).save(tmp_path / "data" / "0.jpg", exif=exif, comment=b"MRN-4711")
    check_data(project, page=tmp_path / "page.html")
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', (tmp_path / "page.html").read_text("utf-8"))
    assert pictures
    assert not [one for one in pictures if b"MRN" in base64.b64decode(one)]


def test_a_page_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    project = make_project(tmp_path, [row(0)])
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file" / "page.html", tmp_path / "data"):
        with raises_error("KD-BASE-300", where=str(place)):
            check_data(project, page=place)
    assert not project.state.exists()  # nothing was decoded before
