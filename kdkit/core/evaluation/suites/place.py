"""Which data sets of a suite are present, and whether their files are those of the definition."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kdkit.core.base.result import Result, Section, Table
from kdkit.core.evaluation.suites.definition import SuiteDataset, SuiteFile

Status = Literal["present", "missing", "other release"]
IMAGES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"))
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Placed:
    """A data set of a suite on this machine.

    Attributes:
        folder: where it is, or should be.
        path: what is read of it; None if it is missing.
        problems: files that differ from the definition, with what was found.
    """

    name: str
    dataset: SuiteDataset
    folder: Path
    path: Path | None
    problems: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        if self.path is None:
            return "missing"
        return "other release" if self.problems else "present"

    def how_to_place(self) -> str:
        """What a person must do to have it here."""
        item = self.dataset
        target = self.folder / item.data.path if item.data.path != "." else self.folder
        return f"{item.place or 'download and unpack it'}; it is read from {target}"


def locate(datasets: Mapping[str, SuiteDataset], folder: Path, *, check: bool = True) -> tuple[Placed, ...]:
    """Look for each data set in ``folder/NAME``.

    Args:
        check: compare the files with the definition, by hash or by number.
    """
    return tuple(_locate(name, item, folder / name, check=check) for name, item in datasets.items())


def _locate(name: str, item: SuiteDataset, folder: Path, *, check: bool) -> Placed:
    candidates = [folder / path for path in (item.data.path, *item.data.alternatives)]
    path = next((found for found in candidates if _is_there(found)), None)
    problems = tuple(_problems(item, folder, path)) if check and path is not None else ()
    return Placed(name, item, folder, path, problems)


def _is_there(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and any(path.iterdir()))


def _problems(item: SuiteDataset, folder: Path, path: Path | None) -> list[str]:
    """Differences of the files that are read; files of alternatives that are not there count for nothing."""
    found = []
    for name, expected in item.files.items():
        file = folder / name
        if file.exists() and (path is None or file == path or path.is_dir()):
            found += _compare(name, file, expected)
    return found


def _compare(name: str, file: Path, expected: SuiteFile) -> list[str]:
    found = []
    if expected.images is not None:
        count = sum(1 for path in file.rglob("*") if path.suffix.lower() in IMAGES)
        if count != expected.images:
            found.append(f"{name} has {count} images; the definition is of {expected.images}")
    for kind in ("sha256", "md5"):
        wanted = getattr(expected, kind)
        if wanted is not None and file.is_file() and (own := file_hash(file, kind)) != wanted:
            found.append(f"{name} has the {kind} {own}; the definition is of {wanted}")
    return found


def file_hash(path: Path, kind: str) -> str:
    """The hash of a file's content; ``md5`` is compared with what publishers state, and protects nothing."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class SuiteStatus(Result):
    """The data sets of a suite, and where they are.

    Attributes:
        suite, summary: its name and what it is.
        folder: of the data sets.
        placed: one per data set, in the order of the suite.
    """

    suite: str
    summary: str
    folder: Path
    placed: tuple[Placed, ...]

    def to_json(self) -> dict[str, Any]:
        """The definitions with ``status``, ``folder`` and ``problems``."""
        return {
            "suite": self.suite,
            "folder": str(self.folder),
            "datasets": {
                item.name: {
                    **item.dataset.model_dump(mode="json"),
                    "status": item.status,
                    "folder": str(item.folder),
                    "problems": list(item.problems),
                }
                for item in self.placed
            },
        }

    def sections(self) -> list[Section]:
        """One row per data set; then, of those that are absent, how to place them."""
        rows = [
            (
                item.name, item.status, item.dataset.modality, str(len(item.dataset.classes)),
                f"{item.dataset.splits['test']:,}" if "test" in item.dataset.splits else "-", item.dataset.license,
                item.dataset.size or "-",
            )
            for item in self.placed
        ]  # fmt: skip
        headers = ("data set", "status", "modality", "classes", "test", "license", "size")
        here = sum(item.path is not None for item in self.placed)
        parts: list[Section] = [
            f"{self.suite}: {self.summary}",
            f"{here} of {len(rows)} data sets are in {self.folder}",
            "",
            Table(headers, rows, "lllrrll"),
        ]
        return parts + missing_lines(self.placed)


def missing_lines(placed: tuple[Placed, ...]) -> list[Section]:
    """Files of other releases, then what is missing with home, license, size and place."""
    lines: list[Section] = [f"{item.name}: {problem}" for item in placed for problem in item.problems]
    absent = [item for item in placed if item.path is None]
    if absent:
        lines += ["", "Missing; the publisher's terms hold for each:"]
    for item in absent:
        facts = [item.dataset.home, f"license: {item.dataset.license}", f"access: {item.dataset.access}"]
        facts += [f"size: {item.dataset.size}"] if item.dataset.size else ["size: not known"]
        if item.dataset.unverified:
            facts.append(f"not verified: {', '.join(item.dataset.unverified)}")
        lines.append(f"  {item.name}: {'; '.join(facts)}")
        lines.append(f"    {item.how_to_place()}")
    return lines
