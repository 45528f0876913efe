"""``kdkit init --from``: a project whose data entry was found by looking at the data."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kdkit.core.base.errors import KdkitError
from kdkit.core.base.result import one_line
from kdkit.core.base.system_errors import optional_write
from kdkit.core.contracts import SPLITS, Reporter, Sample
from kdkit.core.data.contact_sheet import write_contact_sheet
from kdkit.core.data.entries import read_sources
from kdkit.core.data.names import name_some
from kdkit.core.data.recognize import Recognized, recognize
from kdkit.core.plugin_system.discovery import load_catalogue
from kdkit.core.project.project import Project
from kdkit.core.project.registry.create import create_project

EXAMPLES = 5
"""Samples that are shown."""
TEXT = 80
"""Characters of their texts."""


def start_project(folder: Path, path: Path, reporter: Reporter) -> Project:
    """Look at ``path``, write a registry that reads it, read it, and show some samples.

    Args:
        folder: of the project, which is created if necessary.
        path: the data.
        reporter: receives what was found.

    Raises:
        KdkitError: no source recognizes the data, or reads them with these options; a project exists. No registry is
            left then.
    """
    taken = recognize(Path(os.path.abspath(path)), load_catalogue())
    root = folder.resolve()
    made = [path for path in (root, root / ".kdkit") if not path.exists()]
    entry = {"source": taken.source, "path": _relative(taken.found.path, root), "options": dict(taken.found.options)}
    existed = (root / "registry.yaml").exists()
    project = create_project(folder, entry)
    try:
        (read,) = read_sources(project)
    except BaseException:
        if not existed:
            project.registry_path.unlink()
            _remove(made)
        raise
    _tell(taken, reporter)
    for kind in read.skipped:
        (reporter.say if kind.level == "note" else reporter.warn)(str(kind))
    _show(project, read.samples, reporter)
    return project


def _remove(made: Sequence[Path]) -> None:
    """What this call has made: the caches, and the folder if nothing else is in it."""
    for path in reversed(made):
        if path.name == ".kdkit":
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _relative(path: Path, root: Path) -> str:
    """A path in or beside the project is relative, so that both can move together."""
    beside = os.path.realpath(path).startswith(str(root.parent) + os.sep)
    return Path(os.path.relpath(os.path.realpath(path), root)).as_posix() if beside else str(path)


def _tell(taken: Recognized, reporter: Reporter) -> None:
    reporter.say(f"taken for: source {taken.source}")
    for line in taken.found.says:
        reporter.say(f"  {one_line(line)}")
    if taken.others:
        reporter.say(f"  other sources could read it too: {', '.join(taken.others)}")
    for line in taken.found.warns:
        reporter.warn(one_line(line))
    for name, error in taken.refused.items():
        fix = f"; {error.fix}" if error.fix else ""
        reporter.warn(one_line(f"source {name} could not read it: {error.headline}{fix}"))


def _show(project: Project, samples: Sequence[Sample], reporter: Reporter) -> None:
    """Counts, some samples as text, and the contact sheet."""
    splits = {split: sum(sample.split == split for sample in samples) for split in SPLITS}
    counts = ", ".join(f"{count} {split}" for split, count in splits.items())
    domains = sorted({sample.domain for sample in samples})
    labels = {(sample.domain, sample.label) for sample in samples if sample.label}
    reporter.say(f"{len(samples)} samples ({counts}), domains {one_line(name_some(domains))}, {len(labels)} classes")
    if not splits["calibration"]:
        reporter.warn("no sample is in the split calibration, so trust cannot be measured")
    places = sorted({int(place) for place in np.linspace(0, len(samples) - 1, EXAMPLES)}) if samples else []
    chosen = [samples[place] for place in places]
    for sample in chosen:
        label = sample.label or "no label"
        line = f"{sample.id}: {sample.domain} / {label} / {sample.split}: {sample.text[:TEXT]}"
        reporter.say(f"  {one_line(line)}")
    sheet = project.root / "reports" / "samples.png"
    try:
        with optional_write("the contact sheet"):
            unreadable = write_contact_sheet(sheet, chosen)
            if unreadable:
                reporter.warn(f"images that cannot be read: {name_some(unreadable)}; see 'kdkit data check'")
            reporter.say(f"contact sheet: {os.path.relpath(sheet, project.root)}")
    except KdkitError as error:  # a reader lacks a package
        reporter.warn(f"no contact sheet: {error.headline}; {error.fix}")
