"""Export: a folder that stock open_clip loads without network and without kdkit, proved before it appears."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import kdkit
from kdkit.core.atomic import new_folder
from kdkit.core.contracts import DualEncoder, Reporter, Silent
from kdkit.core.errors import ExitCode, KdkitError

if TYPE_CHECKING:
    from kdkit.core.workspace import Workspace

FORMAT = 1
RECORD = "kdkit.json"
CONFIG = "open_clip_config.json"
TOLERANCE = 1e-5
"""Largest difference of a feature from the version's own, relative to the largest feature (at least to 1)."""


@dataclass(frozen=True)
class Exported:
    """What was written, and how far stock open_clip's features on a fixed batch are from the version's."""

    folder: Path
    files: tuple[str, ...]
    size: int
    image_difference: float
    text_difference: float


def export_version(
    workspace: Workspace,
    name: str | None,
    to: Path,
    *,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Exported:
    """Export a version (None: the current one); see :func:`export_student`."""
    from kdkit.core.versions import Versions, load_student

    version = Versions(workspace).get(name)
    _check_target(Path(to).absolute(), version.student_folder, overwrite)  # before anything slow
    student = load_student(version)
    if not isinstance(student, DualEncoder):
        raise KdkitError(
            f"the student of {version.name} is no dual encoder",
            where=str(version.student_folder),
            why="only dual encoders are exported, as open_clip models",
        )
    lineage = {"version": version.name, **version.lineage}
    return export_student(version.student_folder, student, lineage, to, overwrite=overwrite, reporter=reporter)


def export_student(
    student_folder: Path,
    student: DualEncoder,
    lineage: Mapping[str, Any],
    to: Path,
    *,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Exported:
    """Copy a saved student to ``to``, with its lineage, if stock open_clip gives the same features from it.

    Stock open_clip finds a Hugging Face text tower's config only by an absolute path or on the Hub, so for such
    a student ``hf_model_name`` becomes the path of ``to/text``: after moving the folder, export again.

    Args:
        student_folder: what ``Student.save`` wrote.
        student: the same student, loaded, in eval mode on the CPU; its features are the reference.
        lineage: JSON-able; goes into ``kdkit.json`` with the files' hashes and the outcome of the check.
        to: the folder to make; with ``overwrite`` it may be an earlier export, never anything else.
        overwrite: replace an earlier export.
        reporter: where progress is told.

    Raises:
        KdkitError: when ``to`` is in use, or when stock open_clip's features differ; nothing is left behind.
    """
    from kdkit.core.publish.compare import compare_with_stock

    report = reporter or Silent()
    to = Path(to).absolute()
    if not (student_folder / CONFIG).is_file():
        raise KdkitError("not an open_clip student", where=str(student_folder), why=f"it has no {CONFIG}")
    _check_target(to, student_folder, overwrite)
    try:
        with new_folder(to, replace=overwrite) as draft:
            shutil.copytree(student_folder, draft, dirs_exist_ok=True)
            tower = _point_text_tower(draft, draft)
            report.say("checking that stock open_clip gives the same features")
            image, text = compare_with_stock(draft, student, tolerance=TOLERANCE)
            _point_text_tower(draft, to)
            files = {path.relative_to(draft).as_posix(): path for path in sorted(draft.rglob("*")) if path.is_file()}
            record = {
                "format": FORMAT,
                "kdkit": kdkit.__version__,
                "lineage": dict(lineage),
                "text_tower": tower,
                "files": {name: {"size": path.stat().st_size, "sha256": _sha256(path)} for name, path in files.items()},
                "stock_check": {"tolerance": TOLERANCE, "image_difference": image, "text_difference": text},
            }
            (draft / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
            size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
    except OSError as error:
        raise KdkitError("the export cannot be written", where=str(to), why=str(error)) from error
    return Exported(to, (*files, RECORD), size, image, text)


def _check_target(to: Path, student_folder: Path, overwrite: bool) -> None:
    """``to`` must be new or empty, or an earlier export that may be overwritten."""
    if to.is_relative_to(student_folder.absolute()):
        raise KdkitError("a version cannot be exported into itself", where=str(to), fix="choose another --to")
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not (to / RECORD).is_file():
        raise KdkitError(
            "this is in use, and not by an export of kdkit",
            where=str(to),
            fix="choose another folder for --to",
            code=ExitCode.FOUND,
        )
    if not overwrite:
        raise KdkitError(
            "there is an export already", where=str(to), fix="add --overwrite to replace it", code=ExitCode.FOUND
        )


def _point_text_tower(folder: Path, at: Path) -> str | None:
    """Make ``hf_model_name`` the path of ``at/text``, where the student has such a tower; returns the old name."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    text_cfg = config["model_cfg"]["text_cfg"]
    name = cast("str | None", text_cfg.get("hf_model_name"))
    if name:
        text_cfg["hf_model_name"] = str(at / "text")
        path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return name or None


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
