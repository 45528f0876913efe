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

import numpy as np

from kdkit.core.base.atomic import write_atomically
from kdkit.core.base.markup import Markup, join, tag
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import SPLITS, ImageLocation, ImageRef, Split
from kdkit.core.data.check.examined import Examined
from kdkit.core.data.check.finding import SHOWN, Finding
from kdkit.core.data.check.page_elements import STYLE, bars, histogram, picture, table
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
    title = f"Data of {data.project.root.resolve().name}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", Markup(STYLE)),
    )
    hide = _path_remover(data)
    parts = (_summary(report), _findings(data, report, hide), _counts(data), _histograms(data), _sheets(data, hide))
    page = f"<!DOCTYPE html>\n{tag('html', head, tag('body', tag('h1', title), *parts), lang='en')}\n"
    with optional_write("the page"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, page.encode())


def _summary(report: DataReport) -> Markup:
    if report.problems:
        found = tag("p", count_of(report.problems, "problem"), class_="problem")
    else:
        found = tag("p", "No problems found" + " in what was looked at." * bool(report.not_looked_at))
    return join([
        tag("p", f"{report.samples} samples, {len(report.counts)} domains"),
        found,
        tag("p", f"Looked at: {'; '.join(report.looked_at.values())}.", class_="soft"),
        *(tag("p", f"Not looked at: {name}: {why}") for name, why in report.not_looked_at.items()),
    ])  # fmt: skip


def _findings(data: Examined, report: DataReport, hide: Callable[[str], str]) -> Markup:
    parts: list[Markup] = []
    for level, heading in (("problem", "Problems"), ("note", "Notes")):
        findings = [one for one in report.findings if one.level == level]
        if findings:
            parts.append(tag("h2", heading))
        for one in findings:
            parts.append(tag("p", hide(one.text), class_=level))
            if one.details and not one.groups:
                parts.append(tag("ul", *(tag("li", hide(line)) for line in one.details[:SHOWN])))
            if one.groups:
                sheet = _groups(data, one, hide)
                parts.append(tag("details", tag("summary", "pictures"), sheet) if level == "note" else sheet)
    return join(parts)


def _groups(data: Examined, one: Finding, hide: Callable[[str], str]) -> Markup:
    groups = []
    for number, rows in enumerate(one.groups[:GROUPS]):
        caption = tag("p", hide(one.captions[number])) if number < len(one.captions) else None
        pictures = (picture(data.samples[row], hide, text=False) for row in rows[:4])
        groups.append(tag("div", caption, *pictures, class_="group"))
    return join([tag("div", *groups, class_="sheet"), _not_shown(len(one.groups) - GROUPS, "")])


def _not_shown(number: int, what: str) -> Markup | None:
    return tag("p", f"{number} more {what}are not shown", class_="soft") if number > 0 else None


def _counts(data: Examined) -> Markup:
    splits_of: dict[str, dict[Split, int]] = {
        domain: {split: sum(splits[split] for splits in classes.values()) for split in SPLITS}
        for domain, classes in data.counts.items()
    }
    listed = [(domain, name, splits) for domain, names in data.counts.items() for name, splits in names.items()]
    rows = [(domain, name, *splits.values(), sum(splits.values())) for domain, name, splits in listed[:CLASSES]]
    return join([
        tag("h2", "Domains and classes"),
        tag("p", "Samples: ", *(tag("span", f"\u25a0 {split}  ", class_=split) for split in SPLITS)),
        bars(splits_of),
        table(("domain", "class", *SPLITS, "all"), rows, 2),
        _not_shown(len(listed) - CLASSES, "classes "),
    ])  # fmt: skip


def _histograms(data: Examined) -> Markup:
    facts = data.images.facts[data.readable]
    words = [len(sample.text.split()) for sample in data.samples if sample.text]
    groups: dict[tuple[int, object], int] = {}
    for number, sample in zip(data.entry.tolist(), data.samples, strict=True):
        if "group" in sample.extra:
            key = (number, sample.extra["group"])
            groups[key] = groups.get(key, 0) + 1
    charts = (
        histogram("Width of images", facts["width"].astype(np.float64), "pixels", log=True),
        histogram("Height of images", facts["height"].astype(np.float64), "pixels", log=True),
        histogram("Contrast of images (deviation of gray values)", facts["contrast"].astype(np.float64), ""),
        histogram("Length of texts", np.array(words, dtype=np.float64), "words"),
        histogram("Samples of a group", np.array(list(groups.values()), dtype=np.float64), "samples", log=True),
    )
    return join([tag("h2", "Images and texts"), tag("div", *charts, class_="charts")])


def _sheets(data: Examined, hide: Callable[[str], str]) -> Markup:
    rows: dict[str, list[int]] = {}
    for row, sample in enumerate(data.samples):
        rows.setdefault(sample.domain, []).append(row)
    parts: list[Markup | None] = [tag("h2", "Samples")]
    for domain in sorted(rows)[:DOMAINS]:
        found = rows[domain]
        places = sorted({int(place) for place in np.linspace(0, len(found) - 1, PICTURES)})
        pictures = (picture(data.samples[found[place]], hide) for place in places)
        parts += [tag("h3", f"{domain}: {len(found)} samples"), tag("div", *pictures, class_="sheet")]
    return join([*parts, _not_shown(len(rows) - DOMAINS, "domains ")])


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
