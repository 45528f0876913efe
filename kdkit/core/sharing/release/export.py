"""Export: a folder that stock libraries load without network and without kdkit, proved before it appears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kdkit
from kdkit.core.base.atomic import disk_errors, new_folder
from kdkit.core.base.errors import ExitCode, KdkitError
from kdkit.core.contracts import DualEncoder, Reporter, Silent
from kdkit.core.project.lineage import Lineage, Origin
from kdkit.core.project.manifest import describe_folder
from kdkit.core.sharing.release.layout import RECORD, Record

if TYPE_CHECKING:
    from kdkit.core.project.project import Project
    from kdkit.core.project.versions import Version


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        folder: the export.
        files, size: what is in it, in bytes.
        checks: how far stock libraries' answers or features are from the version's; see the record.
        lines: library -> the lines that load it.
        moves: False where the folder must stay where it is (see :func:`export_student`).
    """

    folder: Path
    files: tuple[str, ...]
    size: int
    checks: Mapping[str, Mapping[str, Any]]
    lines: Mapping[str, str]
    moves: bool


def export_version(
    project: Project,
    name: str | None,
    to: Path,
    *,
    repo: str | None = None,
    overwrite: bool = False,
    merged: bool = False,
    reporter: Reporter | None = None,
) -> Exported:
    """Export a version (None: the current one); see :func:`export_student`.

    With ``repo`` the folder is the release that ``kdkit push`` would publish there privately: it loads from the Hub, as
    ``ORG/NAME``, and holds no path. ``merged``: whole weights where the student has adapters.
    """
    from kdkit.core.project.versions import Versions
    from kdkit.core.sharing.release import answering, dual_encoder

    versions = Versions(project)
    version = versions.get(name)
    check_target(Path(to).absolute(), version.student_folder, overwrite)  # before anything slow
    if repo is not None:
        return _export_release(
            project, version, Path(to).absolute(), repo, overwrite=overwrite, merged=merged, reporter=reporter
        )
    if answering.publisher_of(project, version):
        return _export_answering(
            project, version, Path(to).absolute(), overwrite=overwrite, merged=merged, reporter=reporter
        )
    student, history = dual_encoder.load_dual_encoder(version, project), versions.history(version)
    return export_student(
        version.student_folder,
        student,
        history,
        to,
        origin=Versions(project).origin(version),
        overwrite=overwrite,
        reporter=reporter,
    )


def _export_release(
    project: Project,
    version: Version,
    to: Path,
    repo: str,
    *,
    overwrite: bool,
    merged: bool,
    reporter: Reporter | None,
) -> Exported:
    from kdkit.core.base.hub import connect
    from kdkit.core.sharing.release.release import assemble_release

    with new_folder(to, replace=overwrite) as draft:
        release = assemble_release(
            project, version, repo, draft, merged=merged, endpoint=connect().endpoint, reporter=reporter
        )
        size = release.size
    for warning in release.warnings:
        (reporter or Silent()).warn(warning)
    return Exported(to, (*release.record.files, RECORD), size, release.record.checks, release.lines, moves=True)


def _export_answering(
    project: Project, version: Version, to: Path, *, overwrite: bool, merged: bool, reporter: Reporter | None
) -> Exported:
    from kdkit.core.project.versions import Versions
    from kdkit.core.sharing.release import answering

    with _writing(to, overwrite) as draft:
        form = answering.publish(project, version, draft, str(draft), reporter or Silent(), merged=merged)
        history = Versions(project).history(version)
        record = _seal(
            draft, history, form.names, form.checks, form.environment, origin=Versions(project).origin(version)
        )
        size = _size(draft)
    lines = {library: code.replace(str(draft), str(to)) for library, code in form.lines.items()}
    return Exported(to, (*record.files, RECORD), size, form.checks, lines, moves=True)


def export_student(
    student_folder: Path,
    student: DualEncoder,
    history: Sequence[Lineage],
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
    from kdkit.core.sharing.release import dual_encoder
    from kdkit.core.sharing.release.compare import compare_with_stock

    report = reporter or Silent()
    to = Path(to).absolute()
    check_target(to, student_folder, overwrite)
    with _writing(to, overwrite) as draft:
        tower = dual_encoder.write_for_folder(student_folder, draft)
        report.say("checking that stock open_clip gives the same features")
        compared = compare_with_stock(dual_encoder.card_lines(f"local-dir:{draft}", draft), student, where=str(to))
        if tower:
            dual_encoder.point_text_tower(draft, to)
        names = tuple(sorted(path.name for path in draft.iterdir() if path.is_file()))
        checks = dual_encoder.checks_of(compared)
        record = _seal(draft, history, names, checks, compared.environment, origin=origin, text_tower=tower)
        size = _size(draft)
    lines = dual_encoder.card_lines(f"local-dir:{to}", to)
    return Exported(to, (*record.files, RECORD), size, checks, lines, moves=not tower)


@contextmanager
def _writing(to: Path, overwrite: bool) -> Iterator[Path]:
    try:
        with disk_errors(str(to)), new_folder(to, replace=overwrite) as draft:
            yield draft
    except OSError as error:
        raise KdkitError("KD-REL-008", "the export cannot be written", where=str(to), why=str(error)) from error


def _seal(
    folder: Path,
    history: Sequence[Lineage],
    names: tuple[str, ...],
    checks: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, str],
    *,
    origin: Origin | None,
    text_tower: str | None = None,
) -> Record:
    """Write the record of an export."""
    from kdkit.core.sharing.release.redact import public_lineage

    lineages = tuple(public_lineage(lineage) for lineage in history)
    record = Record(
        kdkit=kdkit.__version__,
        version=lineages[-1].version,
        repository=None,
        license=None,
        student=names,
        history=lineages,
        text_tower=text_tower,
        checks=checks,
        environment=environment,
        origin=origin,
        files=describe_folder(folder, without=RECORD),
    )
    record.save(folder)
    return record


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check_target(to: Path, student_folder: Path, overwrite: bool) -> None:
    """``to`` must be new or empty, or an earlier export that may be overwritten."""
    if to.is_relative_to(student_folder.absolute()):
        raise KdkitError(
            "KD-REL-009", "a version cannot be exported into itself", where=str(to), fix="choose another --to"
        )
    if not to.exists() or (to.is_dir() and not any(to.iterdir())):
        return
    if not (to / RECORD).is_file():
        raise KdkitError(
            "KD-REL-010",
            "this is in use, and not by an export of kdkit",
            where=str(to),
            fix="choose another folder for --to",
            code=ExitCode.FOUND,
        )
    if not overwrite:
        raise KdkitError(
            "KD-REL-011",
            "there is an export already",
            where=str(to),
            fix="add --overwrite to replace it",
            code=ExitCode.FOUND,
        )
