"""Export: a folder that stock open_clip loads without network and without kdkit, proved before it appears."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kdkit
from kdkit.core.atomic import new_folder
from kdkit.core.contracts import DualEncoder, Reporter, Silent
from kdkit.core.errors import ExitCode, KdkitError
from kdkit.core.publish.layout import RECORD, Origin, Record, file_facts

if TYPE_CHECKING:
    from kdkit.core.versions import Version
    from kdkit.core.workspace import Workspace


@dataclass(frozen=True)
class Exported:
    """What was written, and how far stock open_clip's features on a fixed batch are from the version's.

    ``moves`` is False where the folder must stay where it is (see :func:`export_student`).
    """

    folder: Path
    files: tuple[str, ...]
    size: int
    image_difference: float
    text_difference: float
    moves: bool


def export_version(
    workspace: Workspace,
    name: str | None,
    to: Path,
    *,
    repo: str | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Exported:
    """Export a version (None: the current one); see :func:`export_student`.

    With ``repo`` the folder is the release that ``kdkit push`` would publish there privately: it loads from the Hub, as
    ``hf-hub:ORG/NAME``, and holds no path.
    """
    from kdkit.core.publish import dual_encoder
    from kdkit.core.publish.ancestry import origin_of
    from kdkit.core.versions import Versions

    versions = Versions(workspace)
    version = versions.get(name)
    check_target(Path(to).absolute(), version.student_folder, overwrite)  # before anything slow
    if repo is not None:
        return _export_release(workspace, version, Path(to).absolute(), repo, overwrite, reporter)
    student, history = dual_encoder.load_dual_encoder(version, workspace), versions.history(version)
    return export_student(
        version.student_folder,
        student,
        history,
        to,
        origin=origin_of(workspace, version),
        overwrite=overwrite,
        reporter=reporter,
    )


def _export_release(
    workspace: Workspace, version: Version, to: Path, repo: str, overwrite: bool, reporter: Reporter | None
) -> Exported:
    from kdkit.core.publish.release import assemble_release

    with new_folder(to, replace=overwrite) as draft:
        release = assemble_release(workspace, version, repo, draft, reporter=reporter)
        size = release.size
    for warning in release.warnings:
        (reporter or Silent()).warn(warning)
    check = release.record.checks["open_clip"]
    files = (*release.record.files, RECORD)
    return Exported(to, files, size, check["image_difference"], check["text_difference"], moves=True)


def export_student(
    student_folder: Path,
    student: DualEncoder,
    history: Sequence[Mapping[str, Any]],
    to: Path,
    *,
    origin: Origin | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Exported:
    """Copy a saved student to ``to``, with its lineage, if stock open_clip gives the same features from it.

    Stock open_clip finds a Hugging Face text tower's config by a path or on the Hub, and by nothing else: such a
    folder names its own absolute path, and must be exported again rather than moved. All other students' may move.

    Args:
        student_folder: what ``Student.save`` wrote.
        student: the same student, loaded, in eval mode on the CPU; its features are the reference.
        history: lineages, oldest first, its own last; go into ``kdkit.json`` without paths.
        to: the folder to make; with ``overwrite`` it may be an earlier export, never anything else.
        origin: what the project was pulled from.
        overwrite: replace an earlier export.
        reporter: where progress is told.

    Raises:
        KdkitError: when ``to`` is in use, or when stock open_clip's features differ; nothing is left behind.
    """
    from kdkit.core.publish import dual_encoder
    from kdkit.core.publish.compare import compare_with_stock
    from kdkit.core.publish.redact import public_lineage

    report = reporter or Silent()
    to = Path(to).absolute()
    check_target(to, student_folder, overwrite)
    try:
        with new_folder(to, replace=overwrite) as draft:
            tower = dual_encoder.write_for_folder(student_folder, draft)
            report.say("checking that stock open_clip gives the same features")
            compared = compare_with_stock(dual_encoder.card_lines(f"local-dir:{draft}", draft), student, where=str(to))
            if tower:
                dual_encoder.point_text_tower(draft, to)
            lineages = tuple(public_lineage(lineage) for lineage in history)
            record = Record(
                kdkit=kdkit.__version__,
                version=lineages[-1]["version"],
                repository=None,
                licence=None,
                family=lineages[-1]["student"]["family"],
                student=tuple(sorted(path.name for path in draft.iterdir() if path.is_file())),
                history=lineages,
                text_tower=tower,
                checks=dual_encoder.checks_of(compared),
                environment=compared.environment,
                origin=origin,
                files=file_facts(draft),
            )
            (draft / RECORD).write_text(json.dumps(record.to_json(), indent=1) + "\n", encoding="utf-8")
            size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
    except OSError as error:
        raise KdkitError("the export cannot be written", where=str(to), why=str(error)) from error
    image, text = compared.differences["open_clip"]
    return Exported(to, (*record.files, RECORD), size, image, text, moves=not tower)


def check_target(to: Path, student_folder: Path, overwrite: bool) -> None:
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
