"""The page of ``kdkit data check``: one HTML file with findings, counts, histograms and contact sheets.

It has no script and loads nothing; its policy forbids browsers both. Pictures are small JPEG files made from pixels,
so nothing that a file says beside them enters the page. Paths of DICOM files and slides do not either: they may name
patients.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

import numpy as np

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import SPLITS, ImageLocation, ImageRef
from kdkit.core.data.check.examined import Examined
from kdkit.core.data.check.finding import SHOWN, Finding
from kdkit.core.data.check.page_elements import STYLE, add, add_bars, add_histogram, add_picture, add_table
from kdkit.core.data.check.report import DataReport
from kdkit.core.data.locations import PRIVATE, file_of, images_of
from kdkit.core.data.names import count_of

PICTURES = 7
"""Samples of a domain that are shown."""
GROUPS = 12
"""Groups of a finding that are shown, with up to 4 pictures."""
DOMAINS, CLASSES = 40, 60
"""That are shown; the rest are counted."""
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def write_page(path: Path, data: Examined, report: DataReport) -> None:
    """Write the page; a file there is replaced. A full or read-only disk costs the page alone, with a warning."""
    root = Element("html", {"lang": "en"})
    head, body = add(root, "head"), add(root, "body")
    title = f"Data of {data.project.root.resolve().name}"
    add(head, "meta", charset="utf-8")
    add(head, "meta", http_equiv="Content-Security-Policy", content=POLICY)
    add(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    add(head, "title", title)
    add(head, "style").text = STYLE
    add(body, "h1", title)
    _add_summary(body, report)
    hide = _path_remover(data)
    _add_findings(body, data, report, hide)
    _add_counts(body, data)
    _add_histograms(body, data)
    _add_sheets(body, data, hide)
    content = b"<!DOCTYPE html>\n" + tostring(root, encoding="utf-8", method="html")
    with optional_write("the page"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def _add_summary(body: Element, report: DataReport) -> None:
    add(body, "p", f"{report.samples} samples, {len(report.counts)} domains")
    if report.problems:
        add(body, "p", count_of(report.problems, "problem"), class_="problem")
    else:
        add(body, "p", "No problems found" + " in what was looked at." * bool(report.not_looked_at))
    add(body, "p", f"Looked at: {'; '.join(report.looked_at.values())}.", class_="soft")
    for name, why in report.not_looked_at.items():
        add(body, "p", f"Not looked at: {name}: {why}")


def _add_findings(body: Element, data: Examined, report: DataReport, hide: Callable[[str], str]) -> None:
    for level, heading in (("problem", "Problems"), ("note", "Notes")):
        findings = [one for one in report.findings if one.level == level]
        if findings:
            add(body, "h2", heading)
        for one in findings:
            add(body, "p", hide(one.text), class_="problem" if level == "problem" else "note")
            if one.details and not one.groups:
                listed = add(body, "ul")
                for line in one.details[:SHOWN]:
                    add(listed, "li", hide(line))
            _add_groups(body, data, one, hide)


def _add_groups(body: Element, data: Examined, one: Finding, hide: Callable[[str], str]) -> None:
    if not one.groups:
        return
    if one.level == "note":
        body = add(body, "details")
        add(body, "summary", "pictures")
    sheet = add(body, "div", class_="sheet")
    for number, rows in enumerate(one.groups[:GROUPS]):
        group = add(sheet, "div", class_="group")
        if number < len(one.captions):
            add(group, "p", hide(one.captions[number]))
        for row in rows[:4]:
            add_picture(group, data.samples[row], hide, text=False)
    if len(one.groups) > GROUPS:
        add(body, "p", f"{len(one.groups) - GROUPS} more are not shown", class_="soft")


def _add_counts(body: Element, data: Examined) -> None:
    add(body, "h2", "Domains and classes")
    legend = add(body, "p", "Samples: ")
    for split in SPLITS:
        add(legend, "span", f"\u25a0 {split} ", class_=split).tail = " "
    totals: dict[str, dict[str, int]] = {
        domain: {split: sum(splits[split] for splits in classes.values()) for split in SPLITS}
        for domain, classes in data.counts.items()
    }
    add_bars(body, totals)
    listed = [(domain, name, splits) for domain, names in data.counts.items() for name, splits in names.items()]
    rows = [(domain, name, *splits.values(), sum(splits.values())) for domain, name, splits in listed[:CLASSES]]
    add_table(body, ("domain", "class", *SPLITS, "all"), rows, 2)
    if len(listed) > CLASSES:
        add(body, "p", f"{len(listed) - CLASSES} more classes are not shown", class_="soft")


def _add_histograms(body: Element, data: Examined) -> None:
    add(body, "h2", "Images and texts")
    charts = add(body, "div", class_="charts")
    facts = data.images.facts[data.readable]
    add_histogram(charts, "Width of images", facts["width"].astype(np.float64), "pixels", log=True)
    add_histogram(charts, "Height of images", facts["height"].astype(np.float64), "pixels", log=True)
    add_histogram(charts, "Contrast of images (deviation of gray values)", facts["contrast"].astype(np.float64), "")
    words = np.array([len(sample.text.split()) for sample in data.samples if sample.text], dtype=np.float64)
    add_histogram(charts, "Length of texts", words, "words")
    groups: dict[tuple[int, object], int] = {}
    for number, sample in zip(data.entry.tolist(), data.samples, strict=True):
        if "group" in sample.extra:
            key = (number, sample.extra["group"])
            groups[key] = groups.get(key, 0) + 1
    add_histogram(charts, "Samples of a group", np.array(list(groups.values()), dtype=np.float64), "samples", log=True)


def _add_sheets(body: Element, data: Examined, hide: Callable[[str], str]) -> None:
    add(body, "h2", "Samples")
    rows: dict[str, list[int]] = {}
    for row, sample in enumerate(data.samples):
        rows.setdefault(sample.domain, []).append(row)
    for domain in sorted(rows)[:DOMAINS]:
        found = rows[domain]
        add(body, "h3", f"{domain}: {len(found)} samples")
        sheet = add(body, "div", class_="sheet")
        for place in sorted({int(place) for place in np.linspace(0, len(found) - 1, PICTURES)}):
            add_picture(sheet, data.samples[found[place]], hide)
    if len(rows) > DOMAINS:
        add(body, "p", f"{len(rows) - DOMAINS} more domains are not shown", class_="soft")


def _path_remover(data: Examined) -> Callable[[str], str]:
    """A function that cuts a text where the path of a DICOM file or a slide begins, or an id that has such a path."""
    found = [(one, ref) for one in data.samples for ref in images_of(one) if _is_private(ref)]
    entries = zip(data.project.registry.data, data.entries, strict=True)
    places = {
        Path(os.path.abspath(data.project.root / chosen.path))
        for chosen, entry in entries
        if chosen.source in PRIVATE or any(_is_private(one.image) for one in entry.samples)
    }
    folders = {str(place if place.is_dir() else place.parent) for place in places}
    folders |= {str(file_of(ref).parent) for _, ref in found}
    ids = {one.id for one, ref in found if one.id.endswith(file_of(ref).name)}
    of_tiles = (one.id for one, ref in found if isinstance(ref, ImageLocation) and ref.reader == "wsi")
    slides = sorted({id_.rsplit("_", 2)[0] for id_ in of_tiles}, key=len)
    tiles = re.compile(rf"(?:{'|'.join(map(re.escape, reversed(slides)))})_\d+_\d+(?!\d)") if slides else None
    endings = tuple({os.path.splitext(id_)[1] for id_ in ids})

    def cut(text: str) -> str:
        private = folders | ids if any(ending in text for ending in endings) else folders
        starts = [0] if text in ids else [start for one in private if (start := text.find(one)) >= 0]
        if starts:
            return f"{text[: min(starts)]}(a file whose path may name a patient)"
        return tiles.sub("(a tile)", text) if tiles else text

    return cut


def _is_private(ref: ImageRef) -> bool:
    return isinstance(ref, ImageLocation) and ref.reader in PRIVATE
